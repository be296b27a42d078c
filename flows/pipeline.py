"""The Prefect flow: one task a stage, top to bottom. Which stage waits for which is the graph's business.

Annotations are objects here, not text: Prefect carries the flow to a process that has not the names of this module.
"""

from functools import partial
from typing import Annotated, Any

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled, Completed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BeforeValidator, WithJsonSchema

from facegan import form
from facegan.config import Recipe
from facegan.graph import GUIDE, JUDGE
from facegan.stages import STAGES
from facegan.store import Artifact
from facegan.workers import AGAIN, WorkerKilled
from flows import retraining
from flows.answer import Finished
from flows.steps import RETRIES, Step, Steps

Made = Artifact | State[Artifact]
ALL = "all"  # for a form that cannot say None


def field(schema: dict[str, Any], description: str) -> WithJsonSchema:
    """What Prefect's run form shows of a parameter."""
    return WithJsonSchema({**schema, "description": description})


RecipeForm = Annotated[Recipe, BeforeValidator(form.read), WithJsonSchema(form.schema())]
Workdir = Annotated[str, field({"type": "string"}, "holds data/store and reports, on the machine that does the work")]
Until = Annotated[str | None, field({"type": "string", "enum": [ALL, *STAGES]}, "the last stage to run")]

PROMOTED = "in the end the best recognizer becomes the current model if the gates hold"
Promote = Annotated[bool, field({"type": "boolean"}, PROMOTED)]


def can_help(task: Task[..., Any], run: Any, state: State[Any]) -> bool:
    """Whether trying again may help: the process was killed or the file system failed, not the user."""
    try:
        state.result()
    except (WorkerKilled, OSError):
        return True
    except BaseException:
        return False
    return False


# The store is the only cache: it knows the content of files, which Prefect's keys do not.
stage = partial(
    task,
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=1,
    retry_condition_fn=can_help,
    task_run_name="{step}",
)


@stage
def prepare(step: Step, inputs: list[Artifact]) -> Made:
    """Raw faces to a manifest, split by identity."""
    return step.run(inputs)


@stage
def train_gan(step: Step, inputs: list[Artifact]) -> Made:
    """An identity-conditional generator from the train people alone."""
    return step.run(inputs)


@stage
def synthesize(step: Step, inputs: list[Artifact]) -> Made:
    """New images of the training people and new people, filtered by the guide."""
    return step.run(inputs)


@stage
def audit(step: Step, inputs: list[Artifact]) -> Made:
    """The synthetic set under a judge: its card, and the leakage gate."""
    return step.run(inputs)


@stage
def merge(step: Step, inputs: list[Artifact]) -> Made:
    """One manifest for each arm."""
    return step.run(inputs)


@stage
def train_recognizer(step: Step, inputs: list[Artifact]) -> Made:
    """One recognizer for each arm, trial and seed."""
    return step.run(inputs)


@stage
def select(step: Step, inputs: list[Artifact]) -> Made:
    """The trial of an arm that is best on val people."""
    return step.run(inputs)


@stage
def benchmark(step: Step, inputs: list[Artifact]) -> Made:
    """Each recognizer on the test people."""
    return step.run(inputs)


@stage
def report(step: Step, inputs: list[Artifact]) -> Made:
    """The page that a person reads."""
    return step.run(inputs)


@stage
def study(step: Step, inputs: list[Artifact]) -> Made:
    """What all variants and splits of a study say together."""
    return step.run(inputs)


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE, persist_result=False)
def promote_best(steps: Steps) -> State[None]:
    """The best recognizer of the comparison's arm against the current model: Promoted, Refused or Kept, and why."""
    return retraining.judge(steps)


@flow(
    name="facegan",
    flow_run_name="{recipe.name}",
    task_runner=ThreadPoolTaskRunner(),  # type: ignore[arg-type] # threads wait; runtime.jobs bounds the work
    persist_result=False,
)
def pipeline(
    recipe: RecipeForm, workdir: Workdir = ".", until: Until = ALL, promote: Promote = False
) -> Finished | State[Finished]:
    """Would synthetic identities help my face recognizer? From faces to a verdict.

    `recipe` is a Recipe, or what a recipe file or Prefect's run form says. Writes below `workdir`, the report to its
    reports/; `until` names the last stage (None or `all`: of all). With `promote` the run is Completed with a message
    that says what became of its best recognizer, a refused one too. Raises ConfigError for what cannot work before
    anything is computed, and UserError (and so fails the flow run) with the first stage that fails; ends Cancelled
    where Prefect is asked to cancel it.
    """
    last = None if until == ALL else until
    if promote:
        retraining.check(recipe, last)
    with Steps(recipe, workdir, last) as steps:
        steps.start(prepare)
        steps.start(merge, GUIDE)  # the guide, which filters, learns from real faces alone
        steps.start(train_recognizer, GUIDE)
        steps.start(train_gan)
        steps.start(synthesize)
        steps.start(merge, JUDGE)  # and so does the judge, which no arm waits for
        steps.start(train_recognizer, JUDGE)
        steps.start(audit)
        steps.start(merge)
        steps.start(train_recognizer)
        steps.start(select)
        steps.start(train_recognizer)  # what was chosen, with the seeds that tried nothing
        steps.start(benchmark)
        steps.start(report)
        steps.start(study)
        artifacts = steps.results()
        if steps.cancelled:
            return Cancelled(message=f"Somebody cancelled it: {AGAIN}.")
        finished = steps.finish(artifacts)
        if not promote:
            return finished
        decided = promote_best(steps)
        return Completed(message=decided.message, data=finished)
