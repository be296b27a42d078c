"""The end of a retraining run: its best recognizer against the current model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facegan.core.errors import ConfigError
from facegan.recipe.recipe import Recipe

if TYPE_CHECKING:
    from prefect.states import State

    from flows.tasks import RunTasks


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


def promote_best_recognizer(tasks: RunTasks) -> State[None]:
    """Promote the best recognizer of finished `tasks`, or keep it with the reason: a state that says which."""
    from prefect.states import Completed

    from facegan.promotion.promote import promote  # torch is imported here
    from flows import artifacts

    decision = promote(tasks.recipe, tasks.workdir, say=lambda text: tasks.say("promote", text), nodes=tasks.nodes)
    message = f"{decision.event}: {decision.version}, {decision.why}"
    for remark in (*decision.remarks, message):
        tasks.say("promote", remark)
    artifacts.show_decision(tasks.recipe, decision, message)
    return Completed(name=decision.event.capitalize(), message=message)
