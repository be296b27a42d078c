"""What the curve of an adversarial training says when read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ACCURACIES = ("real_accuracy", "gen_accuracy", "pair_accuracy")
WON = 0.99


def d_has_won(lines: Sequence[dict[str, Any]]) -> str | None:
    """A sentence where D was right at least WON of the time over the last tenth of the curve, else None.

    `lines` are those of `curve.jsonl`. Of accuracies on photos and on fakes the lower one counts.
    """
    last = lines[len(lines) - max(1, len(lines) // 10) :]
    means = []
    for name in ACCURACIES:
        values = [line[name] for line in last if name in line]
        if values:
            means.append(sum(values) / len(values))
    if not means or min(means) < WON:
        return None
    return (
        f"D has won: over the last tenth of the training it was right about {min(means):.1%} of what it saw, so that G "
        "learnt little more. Larger r1_gamma and r2_gamma, a smaller lr_d or ada hold D back."
    )
