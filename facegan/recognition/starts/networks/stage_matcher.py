"""Stages of networks whose blocks are numbered through all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


def matcher(stem: Mapping[str, int], blocks: str, stage_of_block: Sequence[int]) -> Callable[[str], tuple[float]]:
    """What a `group_matcher` may return (timm): (stage,) of a parameter by its name, infinity for one of no stage.

    `stem` names the parts before the blocks, with their stages; block b is called `blocks`.b.
    """

    def stage_of(name: str) -> tuple[float]:
        part, _, rest = name.partition(".")
        if part == blocks:
            return (stage_of_block[int(rest.split(".")[0])],)
        return (stem.get(part, float("inf")),)

    return stage_of
