"""The progress of commands: a line every ten seconds where no terminal is."""

from __future__ import annotations

import pytest

from facegan.console import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_known_total_is_shown_with_rate_and_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.ProgressBar("align", "photos") as bar:
        for clock[0], done in ((0.0, 0), (5.0, 10), (10.0, 20), (15.0, 30), (20.0, 100)):
            bar.at(done, 100)
    assert capsys.readouterr().err == "align: 20 of 100 photos, 2 photos/s, 40 s left\n"


@pytest.mark.parametrize("bar_title", [None, "embedding"])
def test_images_are_counted(clock: list[float], capsys: pytest.CaptureFixture[str], bar_title: str | None) -> None:
    with progress.ImageCounter("read", bar_title) as counter:
        for clock[0], count in ((5.0, 1000), (10.0, 2000), (19.0, 3000), (20.0, 4000)):
            counter.at(count)
    lines = ["2,000 images read (200 images/s)", "4,000 images read (200 images/s)"]
    assert capsys.readouterr().err.splitlines() == lines and counter.seconds() == 20.0
