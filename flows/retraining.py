"""The end of a retraining run: its best recognizer against the current model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facegan.config import Recipe
from facegan.errors import ConfigError

if TYPE_CHECKING:
    from prefect.states import State

    from flows.steps import Steps


def check(recipe: Recipe, until: str | None = None) -> None:
    """Raise ConfigError where a run cannot end with `facegan promote`, or would move people between the splits."""
    if recipe.study is not None or until is not None:
        raise ConfigError(
            "a run of a part, or a study of many runs, has no recognizer to promote",
            fix="promote an ordinary recipe, as a whole: study: null, until empty",
        )
    if recipe.prepare.split.by != "hash":
        raise ConfigError(
            "prepare.split.by is rank: people who are added could move others from test to train",
            fix="set prepare.split.by=hash for runs that promote",
        )


def judge(steps: Steps) -> State[None]:
    """Promote the best recognizer of finished `steps`, or keep it with the reason: a state that says which."""
    from prefect.states import Completed

    from facegan.models.promoting import promote  # torch is imported here
    from flows import artifacts

    found = promote(steps.recipe, steps.workdir, say=lambda text: steps.say("promote", text), nodes=steps.nodes)
    said = f"{found.event}: {found.version}, {found.why}"
    for remark in (*found.remarks, said):
        steps.say("promote", remark)
    artifacts.decision(steps.recipe, found, said)
    return Completed(name=found.event.capitalize(), message=said)
