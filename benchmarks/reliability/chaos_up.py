"""Strike the parts that `facegan up` keeps running, at random moments of a scheduled run, and see that it ends well.

Each event: a fresh working directory, `facegan up`, a run of the deployment `recipe`, at a random moment kill -9 of one
of the parts. After it must hold: the run ends by itself (`facegan up` is started again where it was what was struck);
where it did not complete, a new run with the same options does; `facegan up` then ends at SIGTERM; every artifact has
the sha256 that an undisturbed `facegan run` gave; no process, lock or unfinished folder is left, nothing lies outside
the working directory, and no run in Prefect's history is still running.

    python benchmarks/reliability/chaos_up.py                     # ten events, about ten minutes on two cores
    python benchmarks/reliability/chaos_up.py --events 2 --seed 3 --kinds worker

Exits with 1 when a check failed, and keeps that event's folder. Needs Linux (/proc).
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chaos import (
    ALIVE,
    OVER,
    PATIENCE_S,
    SETS,
    Result,
    World,
    arguments,
    concluded,
    differs,
    kill_first,
    left_behind,
    tell,
    undisturbed,
    until,
)

RUN = "kill -9 of the run's process"
PARTS = {
    "kill -9 of the worker": "flows.service.worker",
    "kill -9 of the server": "flows.service.server",
    RUN: "flows.service.flow_run",
    "kill -9 of a stage's process": "",
    "kill -9 of `facegan up`": "facegan up",
}


class Service(World):
    """`facegan up` in a working directory, and a run of its deployment."""

    alive = tuple(state for state in ALIVE if state != "SCHEDULED")  # the nightly run falls due later

    def command(self) -> list[str]:
        return ["up", "--workdir", str(self.work), "--port", "0"]

    def up(self) -> subprocess.Popen[bytes]:
        """Start it and wait until it is up."""
        from flows.service import address

        process = self.start()
        if not until(lambda: address.of_up(self.work), process):
            raise TimeoutError(f"facegan up is not up: {(self.top / 'log').read_text()[-1000:]}")
        return process

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """Of its server."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from flows.service import address

        if not (found := until(lambda: address.of_up(self.work))):
            raise TimeoutError("facegan up has no address")
        with temporary_settings({PREFECT_API_URL: found.api}), get_client(sync_client=True) as client:
            yield client

    def begin(self, form: dict[str, Any]) -> Any:
        """Start a run of the deployment `recipe`; its id."""
        with self.client() as client:
            deployment = client.read_deployment_by_name("facegan/recipe")
            return client.create_flow_run_from_deployment(deployment.id, parameters={"recipe": form}).id

    def ended(self, run: Any) -> str:
        """The name of the run's last state; raises TimeoutError where it does not end."""
        with self.client() as client:

            def final() -> str:
                state = client.read_flow_run(run).state
                return str(state.name) if state is not None and state.is_final() else ""

            if not (name := until(final, seconds=PATIENCE_S)):
                raise TimeoutError(f"the run is still {client.read_flow_run(run).state_name} after {PATIENCE_S:.0f} s")
            return name

    def part(self, kind: str) -> list[int]:
        """The processes of the part that `kind` strikes."""
        if not (module := PARTS[kind]):
            return self.stages()
        return [pid for pid, (_, words) in self.processes().items() if module in words]


def event(world: Service, kind: str, moment_s: float, form: dict[str, Any], reference: dict[str, Any]) -> Result:
    """One strike, what came of the run, and what it left."""
    result, started = Result(kind, moment_s), time.monotonic()
    try:
        process = world.up()
        run = world.begin(form)
        until(lambda: world.part(RUN))
        time.sleep(moment_s)
        result.during = world.at_work()
        there = until(lambda: world.part(kind) if world.part(RUN) else True, seconds=30)
        if there is True or kill_first(lambda: there, process) is None:
            result.during = OVER
        elif kind.endswith("`facegan up`"):
            process.wait(PATIENCE_S)
            if not until(lambda: not world.processes(), seconds=20):
                result.faults.append(f"outlived facegan up: {list(world.processes().values())}"[:300])
            process = world.up()
        result.ended = world.ended(run)
        if result.ended != "Completed":
            again = world.ended(world.begin(form))
            result.faults += [f"started again, the run is {again}"] if again != "Completed" else []
        process.terminate()
        if (code := process.wait(PATIENCE_S)) != 0:
            result.faults.append(f"facegan up ended with {code}")
        result.faults += [*left_behind(world), *differs(world, reference)]
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        result.faults.append(str(error))
    finally:
        world.end()
    result.seconds = time.monotonic() - started
    return result


def main() -> int:
    """Parse the arguments, strike, print the table."""
    asked = arguments(__doc__, 10, PARTS).parse_args()
    top = asked.top or Path(tempfile.mkdtemp(prefix="chaos-up-"))
    os.environ["PREFECT_HOME"] = str(top / "client")  # before Prefect is imported
    from facegan.recipe.load import load

    form = load(asked.recipe, list(SETS[1::2])).model_dump(mode="json", exclude_none=True)
    rng = random.Random(asked.seed)
    reference, seconds = undisturbed(top / "reference", asked.recipe)
    print(f"an undisturbed run: {seconds:.0f} s, {len(reference)} artifacts", flush=True)
    results: list[Result] = []
    for number in range(asked.events):
        here = top / f"{number:02d}"
        kind, moment_s = asked.kinds[number % len(asked.kinds)], rng.uniform(0, seconds)
        results.append(event(Service(here, asked.recipe), kind, moment_s, form, reference))
        tell(number, results[-1], here)
    return concluded(results, top)


if __name__ == "__main__":
    sys.exit(main())
