"""Operating thresholds on planted faces."""

from __future__ import annotations

import numpy as np

from facegan.promotion.thresholds import operating_points
from planted_faces import planted


def test_thresholds_keep_to_their_far_and_stop_where_the_data_does() -> None:
    val, test = planted(0.9, 1), planted(0.9, 2)
    points = operating_points(val, test)
    rows = val.embedding / np.linalg.norm(val.embedding, axis=1, keepdims=True)
    one, other = np.triu_indices(len(rows), 1)
    impostor = (rows[one] * rows[other]).sum(1)[val.identity[one] != val.identity[other]]
    assert [point["far"] for point in points] == [0.1, 0.01, 0.001]
    for point in points[:2]:
        assert (impostor >= point["threshold"] + 1e-6).mean() <= point["far"]
        assert (impostor >= point["threshold"] - 0.01).mean() > point["chosen_on"]["far"] > 0
        assert point["chosen_on"]["impostor"] == len(impostor) == 2275
    assert points[2]["threshold"] is None and "not resolvable with 2275" in points[2]["why"]
