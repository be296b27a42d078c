"""The Prefect flow: one task a stage, top to bottom. Which stage waits for which is the graph's business.

Annotations are objects here, not text: Prefect carries the flow to a process that has not the names of this module.
"""

from typing import Annotated, Any

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled, Completed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BeforeValidator, WithJsonSchema

from facegan.pipeline.graph import GUIDE, JUDGE
from facegan.pipeline.publish import Finished
from facegan.recipe import form
from facegan.recipe.recipe import Recipe
from facegan.runtime.processes import AGAIN, WorkerKilled
from facegan.stages import STAGES
from facegan.store.local import Artifact
from flows import promotion
from flows.tasks import RETRIES, RunTasks, StageTask, tasks_of

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


def run_stage(stage: StageTask, inputs: list[Artifact]) -> Artifact | State[Artifact]:
    """The artifact of one node of the graph."""
    return stage.run(inputs)


# The store is the only cache: it knows the content of files, which Prefect's keys do not.
STAGE_TASKS = {
    name: task(
        name=name,
        description=description,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=1,
        retry_condition_fn=can_help,
        task_run_name="{stage}",
    )(run_stage)
    for name, description in {
        "prepare": "Raw faces to a manifest, split by identity.",
        "train_gan": "An identity-conditional generator from the train people alone.",
        "synthesize": "New images of the training people and new people, filtered by the guide.",
        "audit": "The synthetic set under a judge: its card, and the leakage gate.",
        "derive": "Sets made from train photos: controls in the place of new people, and augmented photos.",
        "merge": "One manifest for each arm.",
        "train_recognizer": "One recognizer for each arm, trial and seed.",
        "fit_recognizer": "The baselines of the report: fitted, not trained.",
        "select": "The trial of an arm that is best on val people.",
        "benchmark": "Each recognizer on the test people.",
        "report": "The page that a person reads.",
        "study": "What all variants and splits of a study say together.",
    }.items()
}


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE, persist_result=False)
def promote_best(tasks: RunTasks) -> State[None]:
    """The best recognizer of the comparison's arm against the current model: Promoted, Refused or Kept, and why."""
    return promotion.promote_best_recognizer(tasks)


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
        promotion.check(recipe, last)
    with tasks_of(recipe, workdir, last) as tasks:
        tasks.start(STAGE_TASKS["prepare"])
        tasks.start(STAGE_TASKS["merge"], GUIDE)  # the guide, which filters, learns from real faces alone
        tasks.start(STAGE_TASKS["train_recognizer"], GUIDE)
        tasks.start(STAGE_TASKS["train_gan"])
        tasks.start(STAGE_TASKS["synthesize"])
        tasks.start(STAGE_TASKS["merge"], JUDGE)  # and so does the judge, which no arm waits for
        tasks.start(STAGE_TASKS["train_recognizer"], JUDGE)
        tasks.start(STAGE_TASKS["audit"])
        tasks.start(STAGE_TASKS["derive"])
        tasks.start(STAGE_TASKS["merge"])
        tasks.start(STAGE_TASKS["fit_recognizer"])
        tasks.start(STAGE_TASKS["train_recognizer"])
        tasks.start(STAGE_TASKS["select"])
        tasks.start(STAGE_TASKS["train_recognizer"])  # what was chosen, with the seeds that tried nothing
        tasks.start(STAGE_TASKS["benchmark"])
        tasks.start(STAGE_TASKS["report"])
        tasks.start(STAGE_TASKS["study"])
        artifacts = tasks.results()
        if tasks.cancelled:
            return Cancelled(message=f"Somebody cancelled it: {AGAIN}.")
        finished = tasks.finish(artifacts)
        if not promote:
            return finished
        decided = promote_best(tasks)
        return Completed(message=decided.message, data=finished)
