"""What a run shows while it works."""

from __future__ import annotations

from facegan.console.screen import Meter


def test_meter_tells_rate_and_time_left() -> None:
    from facegan.runtime.context import Event

    meter = Meter(0.0)
    assert meter.text() == ""
    meter.add(Event("progress", done=10, total=110, unit="steps", values={"x": 1.0, "loss": 2.0}), 100.0)
    meter.add(Event("progress", done=30, total=110, unit="steps", values={"loss": 1.5}), 110.0)
    assert meter.text() == "30 of 110 steps, 2 steps/s, 40 s left, loss 1.5, x 1"
