"""What the published studies' intervals become where they know how many train people the splits share.

Reads `results.parquet` and `differences.parquet` of those reports/published that were made before the interval knew. A
stored half-width is sqrt(t_(S-1)^2 V_s + t_(n-1)^2 V_p) with V_s = var(splits) / S, which the stored values give; the
people's part is what is left. The overlap is counted by dividing ORL's forty names as the recipe does.

    python benchmarks/calibration/published.py

Prints Markdown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.special import stdtrit

from facegan.data.preparation.splits import assign
from facegan.metrics.intervals import mean_overlap, overlap_factor
from facegan.recipe.load import load

ROOT = Path(__file__).parents[2]
STUDIES = ("orl-long", "orl-parts", "orl-efficiency", "orl-ablation")


def overlap(recipe: str, splits: list[int]) -> float:
    """Mean overlap of train people between the splits of a shipped recipe."""
    options, names = load(recipe).prepare.split, [f"orl/s{number}" for number in range(1, 41)]
    members = []
    for split in splits:
        sides = assign(names, options.model_copy(update={"seed": split}))
        members.append({name for name, side in sides.items() if side == "train"})
    return mean_overlap(members)


def main() -> None:
    """Print the table, `decides` first in each study."""
    print("| study | variant | arm | splits | overlap | difference | stored interval | splits alone | corrected |")
    print("|---|---|---|--:|--:|--:|---|---|---|")
    for study in STUDIES:
        folder = ROOT / "reports" / "published" / study
        stored_differences = pq.read_table(folder / "differences.parquet")
        if "train_overlap" in stored_differences.column_names:
            continue  # made since: its intervals know
        differences = stored_differences.to_pylist()
        values = pq.read_table(folder / "results.parquet").to_pandas()
        for line in sorted(differences, key=lambda line: not line["decides"]):
            if line["metric"] != "eer" or line["ci_low"] is None:
                continue
            cells = values[(values.variant == line["variant"]) & (values.metric == "eer")]
            by_split = cells.groupby(["arm", "split"])["value"].mean().unstack("split")
            apart = (by_split.loc[line["arm"]] - by_split.loc[line["baseline"]]).to_numpy()
            splits, r = len(apart), overlap(study, [int(split) for split in by_split.columns])
            of_splits = stdtrit(splits - 1, 0.975) ** 2 * apart.var(ddof=1) / splits
            of_people = max(0.0, ((line["ci_high"] - line["ci_low"]) / 2) ** 2 - of_splits)
            wider = of_splits * overlap_factor(splits, r)
            stored = f"{line['ci_low']:+.3f} to {line['ci_high']:+.3f}"
            halves = (wider**0.5, np.hypot(wider**0.5, of_people**0.5))
            alone, both = (f"{line['delta'] - h:+.4f} to {line['delta'] + h:+.4f}" for h in halves)
            shown = f"**{line['arm']}**" if line["decides"] else line["arm"]
            out = "" if halves[1] > abs(line["delta"]) else " (without 0)"
            print(f"| {study} | {line['variant']} | {shown} | {splits} | {r:.2f} | {line['delta']:+.4f} "
                  f"| {stored} | {alone} | {both}{out} |")  # fmt: skip


if __name__ == "__main__":
    main()
