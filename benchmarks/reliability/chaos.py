"""Strike a run at random moments, give the command again, and see whether everything is as though nothing had happened.

Each event: a fresh working directory, `facegan run`, at a random moment one of the strikes below, then the same
command again. After it must hold: the command ends and the second one ends well; every artifact has the sha256 that an
undisturbed run gave; no process is left, no lock held, no unfinished folder; nothing was written outside the working
directory (HOME and TMPDIR are watched folders); no run in Prefect's history is still running.

    python benchmarks/reliability/chaos.py                                # 20 events, about 25 minutes on two cores
    python benchmarks/reliability/chaos.py --events 8 --seed 1 --kinds disk,cancel --minutes 10

Exits with 1 when a check failed, and keeps that event's folder. Needs Linux (/proc); the full disk is a tmpfs where the
user may mount one, and is left out elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from facegan.core import locks as file_locks
from facegan.store.local import WORK

MARK = "FACEGAN_CHAOS"
PATIENCE_S = 180.0  # for a command to end, and for a moment to come
DISK_BYTES = 200_000_000
SETS = ("--set", "seeds=[0]")  # every stage is there, and an event takes no longer than it must
OVER = "it was over"
ALIVE = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")


@dataclass
class Result:
    """What came of an event: `faults` is empty where all held."""

    kind: str
    moment_s: float
    during: str = ""
    ended: str = ""
    seconds: float = 0.0
    resumed: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class World:
    """One event's folders and environment: `work` for the command, `home` and `tmp` to be watched."""

    alive: ClassVar[tuple[str, ...]] = ALIVE  # states that no run may be left in
    top: Path
    recipe: str
    sets: tuple[str, ...] = SETS
    api: dict[str, str] = field(default_factory=dict)  # PREFECT_API_URL and what it takes to be let in
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        for folder in (self.work, self.home, self.tmp):
            folder.mkdir(parents=True, exist_ok=True)  # `work` may be a disk of its own

    @property
    def work(self) -> Path:
        return self.top / "work"

    @property
    def home(self) -> Path:
        return self.top / "home"

    @property
    def tmp(self) -> Path:
        return self.top / "tmp"

    def command(self) -> list[str]:
        """What `facegan` is given."""
        answer = ["--json", str(self.top / "answer.json")]
        return ["run", self.recipe, *self.sets, "--workdir", str(self.work), *answer]

    def start(self) -> subprocess.Popen[bytes]:
        """`facegan`, in a session of its own, as a terminal would start it."""
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "XDG"))}
        own = {"HOME": str(self.home), "TMPDIR": str(self.tmp), MARK: self.mark}
        if self.api:
            own["PREFECT_HOME"] = str(self.top / "client")  # of a server that the project does not start
        with open(self.top / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "facegan", *self.command()],
                env={**keep, **own, **self.api}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def processes(self) -> dict[int, tuple[int, str]]:
        """{process: (its parent, its command)} of all that descends from the command, by the environment."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes():
                    words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    status = (path / "stat").read_text().rpartition(")")[2].split()
                    if status[0] != "Z":
                        found[int(path.name)] = (int(status[1]), words)
        return found

    def end(self) -> None:
        """Kill what is left."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stages(self) -> list[int]:
        """The processes of stages: children of the server that forks them."""
        found = self.processes()
        forking = {pid for pid, (_, words) in found.items() if "multiprocessing.forkserver" in words}
        return [pid for pid, (parent, _) in found.items() if parent in forking]

    def servers(self) -> list[int]:
        """The temporary Prefect server."""
        return [pid for pid, (_, words) in self.processes().items() if "flows.service.server" in words]

    def checkpoints(self) -> list[Path]:
        """Those of unfinished stages, the newest last."""
        found = (self.work / "data" / "store").glob(f"*/*.incomplete/{WORK}/checkpoint-*.pt")
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def at_work(self) -> str:
        """The stages that are at work, for the table."""
        found = (self.work / "data" / "store").glob("*/*.incomplete")
        return ", ".join(sorted({path.parent.name for path in found}))


Strike = Callable[[World, subprocess.Popen[bytes], random.Random], str | None]  # a fault, ''; None: it was over
STRIKES: dict[str, Strike] = {}


def strike(name: str) -> Callable[[Strike], Strike]:
    """Put a strike on the list."""

    def listed(function: Strike) -> Strike:
        STRIKES[name] = function
        return function

    return listed


def until(there: Callable[[], Any], process: subprocess.Popen[bytes] | None = None, seconds: float = PATIENCE_S) -> Any:
    """What `there` gives as soon as it is something; its last answer when the time or the command is over."""
    end = time.monotonic() + seconds
    while not (found := there()) and time.monotonic() < end and (process is None or process.poll() is None):
        time.sleep(0.1)  # looking through /proc takes time too
    return found


def kill_first(there: Callable[[], list[int]], process: subprocess.Popen[bytes]) -> str | None:
    """Kill the first of those processes as soon as there is one."""
    for pid in until(there, process)[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return ""
    return None


@strike("kill -9 of a stage's process")
def kill_stage(world: World, process: subprocess.Popen[bytes], rng: random.Random) -> str | None:
    """The command tries once more by itself."""
    return kill_first(world.stages, process)


@strike("kill -9 of the command")
def kill_command(world: World, process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """Nothing may outlive it."""
    process.kill()
    return ""


@strike("kill -9 of the temporary Prefect server")
def kill_server(world: World, process: subprocess.Popen[bytes], rng: random.Random) -> str | None:
    """The command may end or go on; it may not hang."""
    return kill_first(world.servers, process)


@strike("SIGTERM to the command")
def terminate(world: World, process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """As a service manager stops it."""
    process.terminate()
    return "" if process.wait(PATIENCE_S) in (143, -15, 0) else f"exit status {process.returncode}, not 143"


@strike("Ctrl-C")
def interrupt(world: World, process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """As a terminal does: to the whole group."""
    os.killpg(process.pid, signal.SIGINT)
    return "" if process.wait(PATIENCE_S) in (130, -2, 0) else f"exit status {process.returncode}, not 130"


@strike("cancelled from the Prefect API")
def cancel(world: World, process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """As a button of the UI does."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with get_client(sync_client=True) as client:
        running = lambda: [r for r in client.read_flow_runs() if r.state and r.state.is_running()]  # noqa: E731
        for run in (found := until(running, process)):
            client.set_flow_run_state(run.id, Cancelling())
        process.wait(PATIENCE_S)
        states = [client.read_flow_run(run.id).state_name for run in found]
    return "" if set(states) <= {"Cancelled", "Completed"} else f"the run is {states}, not Cancelled"


@strike("the disk is full")
def fill(world: World, process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """The command says so and ends; there is room again when it is given again."""
    ballast = world.work / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(b"\0" * 65536):
            pass
    process.wait(PATIENCE_S)
    ballast.unlink()
    return ""


@strike("kill -9, and the newest checkpoint torn")
def tear(world: World, process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """Cut short, or with one bit changed."""
    until(world.checkpoints, process)
    process.kill()
    process.wait()
    for path in world.checkpoints()[-1:]:
        data = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    return ""


def outputs(workdir: Path) -> dict[str, Any]:
    """{stage/fingerprint: {file: sha256}} of every record of a store; what is noted is what lies there."""
    from facegan.store.local import verify

    found = {}
    for path in (workdir / "data" / "store").glob("*/*/record.json"):
        record, why = verify(path.parent)
        files = {name: entry["sha256"] for name, entry in record["outputs"].items()} if record else {"broken": why}
        found[f"{path.parent.parent.name}/{path.parent.name}"] = files
    return found


def left_behind(world: World) -> list[str]:
    """What a command that has ended may not leave: processes, held locks, files outside."""
    left = until(lambda: not world.processes(), seconds=10) or world.processes()
    faults = [] if left is True else [f"still alive: {words.strip()[:80]}" for _, words in left.values()]
    data = world.work / "data"
    locks = [
        *data.glob("store/lock"),
        *data.glob("store/*/*.lock"),
        *data.glob("prefect/lock"),
        *data.glob("tmp/*/lock"),
    ]
    faults += [f"still locked: {path.relative_to(world.work)}" for path in locks if not file_locks.free(path)]
    log = world.top / "log"
    faults += ["a traceback instead of words"] if "this is a bug" in log.read_text(errors="replace") else []
    outside = [path for folder in (world.home, world.tmp) for path in folder.rglob("*")]
    return faults + [f"outside the working directory: {path.relative_to(world.top)}" for path in outside]


def differs(world: World, reference: dict[str, Any]) -> list[str]:
    """What is not as an undisturbed run left it."""
    made, faults = outputs(world.work), []
    faults += [f"other bytes: {key[:40]}" for key in reference if made.get(key) != reference[key]]
    faults += [f"more than it should make: {key[:40]}" for key in made.keys() - reference.keys()]
    faults += [f"unfinished: {path.name[:12]}" for path in (world.work / "data" / "store").glob("*/*.incomplete")]
    faults += [f"left over: {path.name}" for path in (world.work / "data" / "tmp").glob("*/")]
    history = world.work / "data" / "prefect" / "prefect.db"
    if history.is_file():
        with contextlib.closing(sqlite3.connect(history)) as database:
            for table in ("flow_run", "task_run"):
                states = [
                    state for (state,) in database.execute(f"select state_type from {table}") if state in world.alive
                ]
                faults += [f"in Prefect's history for ever {states[0]}: {len(states)} of {table}"] if states else []
    return faults


def struck(world: World, kind: str, moment_s: float, rng: random.Random) -> Result:
    """Start the command, strike at the moment, wait for its end and look at what it left."""
    result, started = Result(kind, moment_s), time.monotonic()
    process = world.start()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment_s)
        result.during = world.at_work()
        fault = STRIKES[kind](world, process, rng) if process.poll() is None else None
        if fault is None:
            result.during = OVER
        result.faults += filter(None, [fault])
        code = process.wait(PATIENCE_S)
        result.ended = f"{code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        result.faults += left_behind(world)
    except subprocess.TimeoutExpired:
        result.faults.append(f"still at work after {PATIENCE_S:.0f} s")
    finally:
        world.end()
    result.seconds = time.monotonic() - started
    return result


def finished(world: World, result: Result, reference: dict[str, Any]) -> Result:
    """Give the command again, to the end, and compare; what is amiss goes to `result`."""
    try:
        process = world.start()
        if process.wait(2 * PATIENCE_S) != 0:
            result.faults.append(f"the command that was given again ended with {process.returncode}")
        else:
            answer = json.loads((world.top / "answer.json").read_bytes())
            result.resumed = sum(stage["state"] == "resumed" for stage in answer["stages"])
        result.faults += [*left_behind(world), *differs(world, reference)]
    except subprocess.TimeoutExpired:
        result.faults.append(f"given again, still at work after {2 * PATIENCE_S:.0f} s")
    finally:
        world.end()
    return result


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A tmpfs on `folder`; yields whether there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True)


@contextlib.contextmanager
def server(top: Path, kind: str) -> Iterator[dict[str, str]]:
    """What a command needs to know of a Prefect server of its own, where the strike takes one."""
    if kind != "cancelled from the Prefect API":
        yield {}
        return
    from flows.service.server import prefect_server

    with prefect_server(top):
        yield {name: os.environ[name] for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")}


def undisturbed(top: Path, recipe: str) -> tuple[dict[str, Any], float]:
    """The outputs of a run that nobody strikes, and its seconds."""
    world = World(top, recipe)
    started = time.monotonic()
    if world.start().wait(4 * PATIENCE_S) != 0:
        raise SystemExit(f"an undisturbed run failed:\n{(top / 'log').read_text()[-2000:]}")
    if faults := left_behind(world):
        raise SystemExit(f"an undisturbed run left something: {faults}")
    return outputs(world.work), time.monotonic() - started


def table(results: list[Result]) -> str:
    """The results in markdown."""
    lines = [
        "| # | strike | at | at work | the command ended | stages resumed | all held |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(results, 1):
        held = "yes" if not one.faults else "; ".join(one.faults)
        row = (number, one.kind, f"{one.moment_s:.1f} s", one.during or "-", one.ended, one.resumed, held)
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines)


def strikes(kinds: list[str], count: int, rng: random.Random) -> list[str]:
    """So many strikes, each kind as often as another, in random order."""
    found = [kinds[place % len(kinds)] for place in range(count)]
    rng.shuffle(found)
    return found


def arguments(doc: str | None, events: int, kinds: Collection[str]) -> argparse.ArgumentParser:
    """What both chaos scripts are told."""

    def words(text: str) -> list[str]:
        found = [kind for kind in kinds if any(word in kind for word in text.split(","))]
        if not found:
            raise argparse.ArgumentTypeError(f"no strike has such a word; they are: {'; '.join(kinds)}")
        return found

    parser = argparse.ArgumentParser(description=doc.partition("\n")[0] if doc else None)
    parser.add_argument("--events", type=int, default=events)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="orl-tiny")
    parser.add_argument("--kinds", type=words, default=list(kinds), help="words of the strikes to choose from")
    parser.add_argument("--top", type=Path, help="where to work (default: a temporary folder)")
    return parser


def tell(number: int, result: Result, folder: Path) -> None:
    """Say what came of an event; its folder is kept where a check failed."""
    print(f"{number + 1}: {result}", flush=True)
    if not result.faults:
        shutil.rmtree(folder, ignore_errors=True)


def concluded(results: list[Result], top: Path) -> int:
    """Print the table; the exit status."""
    print(table(results))
    failed = sum(bool(one.faults) for one in results)
    print(f"{len(results) - failed} of {len(results)} events left everything as though nothing had happened")
    if not failed:
        shutil.rmtree(top, ignore_errors=True)
    return int(failed > 0)


def main() -> int:
    """Parse the arguments, strike, print the table."""
    parser = arguments(__doc__, 20, STRIKES)
    parser.add_argument("--minutes", type=float, default=60, help="no event begins after so many")
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started this in the background
    rng, began = random.Random(asked.seed), time.monotonic()
    top = asked.top or Path(tempfile.mkdtemp(prefix="chaos-"))
    reference, seconds = undisturbed(top / "reference", asked.recipe)
    print(f"an undisturbed run: {seconds:.0f} s, {len(reference)} artifacts", flush=True)
    results = []
    for number, kind in enumerate(strikes(asked.kinds, asked.events, rng)):
        if time.monotonic() - began > 60 * asked.minutes:
            print(f"time is up after {number} events")
            break
        moment_s, here = rng.uniform(0, seconds), top / f"{number:02d}"
        with contextlib.ExitStack() as stack:
            if kind == "the disk is full" and not stack.enter_context(small_disk(here / "work")):
                print(f"{kind}: left out, this user may not mount a tmpfs", flush=True)
                continue
            world = World(here, asked.recipe, api=stack.enter_context(server(top / "server", kind)))
            results.append(finished(world, struck(world, kind, moment_s, rng), reference))
        tell(number, results[-1], here)
    return concluded(results, top)


if __name__ == "__main__":
    sys.exit(main())
