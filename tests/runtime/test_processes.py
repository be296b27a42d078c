"""Child processes: what they send to their parent, and that none outlives it."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from process_groups import group, wait_until_gone

JOBS = """
import os, sys, time
from facegan.core.errors import UserError

class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(a)

def double(number, on_event):
    print("chatter")
    on_event(f"doubling {number}")
    return 2 * number

def pid_then_sleep(on_event):
    on_event(os.getpid())
    time.sleep(60)

def spin(on_event):
    on_event(os.getpid())
    while True:
        sum(range(1000))

def user_error(on_event):
    raise UserError("what", fix="do this")

def bug(on_event):
    return 1 / 0

def odd(on_event):
    raise Odd(1, 2)

def leave(on_event):
    os._exit(7)

def memory(on_event):
    raise MemoryError

def kept(on_event):  # bytes that stay with the process of 64 MB that it had and freed
    def held():
        return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
    before = held()
    b'x' * 2**26
    return held() - before
"""

START = """
import json, os, signal, sys, threading, time
import jobs
from facegan.runtime import processes
from facegan.runtime.options import Runtime

processes.PRELOAD.clear()  # nothing here needs torch

def failure(function):
    try:
        return repr(pool.call("stage x", function, (), print))
    except Exception as error:
        return [type(error).__name__, str(error), getattr(error, "fix", ""), str(error.__cause__)]

"""


def script(folder: Path, body: str) -> subprocess.Popen[str]:
    (folder / "jobs.py").write_text(JOBS)
    (folder / "script.py").write_text(START + textwrap.dedent(body))
    command = [sys.executable, str(folder / "script.py")]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def output_of(folder: Path, body: str) -> Any:
    """What a script prints, as JSON: the prints of its workers must not be in it."""
    out, err = script(folder, body).communicate(timeout=60)
    assert out, err
    return json.loads(out)


def test_results_and_events_come_back_and_standard_output_stays_clean(tmp_path: Path) -> None:
    output = output_of(
        tmp_path,
        """
        events = []
        with processes.ChildProcesses(Runtime()) as pool:
            result = pool.call("x", jobs.double, (21,), events.append)
        print(json.dumps([result, events, "torch" in sys.modules, sys.modules["__main__"].__file__[-9:]]))
        """,
    )
    assert output == [42, ["doubling 21"], False, "script.py"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only its malloc can be told")
def test_a_worker_keeps_the_memory_that_it_frees(tmp_path: Path) -> None:
    kept = output_of(
        tmp_path,
        """
        with processes.ChildProcesses(Runtime()) as pool:
            print(json.dumps(pool.call("x", jobs.kept, (), print)))
        """,
    )
    assert kept > 2**25


def test_errors_cross_the_border(tmp_path: Path) -> None:
    output = output_of(
        tmp_path,
        """
        names = ["user_error", "bug", "odd", "leave", "memory"]
        with processes.ChildProcesses(Runtime()) as pool:
            print(json.dumps({name: failure(getattr(jobs, name)) for name in names}))
        """,
    )
    assert output["user_error"] == ["UserError", "what\n  -> do this", "do this", "None"]
    assert output["bug"][0] == "ZeroDivisionError"
    assert "jobs.py" in output["bug"][3]
    assert output["odd"][:2] == ["RuntimeError", "Odd: 1"]
    assert output["leave"][0] == "WorkerKilled"
    assert "ended by itself (exit code 7)" in output["leave"][1]
    assert output["memory"][0] == "UserError"
    assert "out of memory" in output["memory"][1]


def test_a_killed_worker_is_reported_and_the_next_one_works(tmp_path: Path) -> None:
    output = output_of(
        tmp_path,
        """
        kill = lambda pid: os.kill(pid, signal.SIGKILL)
        with processes.ChildProcesses(Runtime()) as pool:
            try:
                pool.call("stage x", jobs.pid_then_sleep, (), kill)
            except processes.WorkerKilled as error:
                print(json.dumps([str(error), pool.call("x", jobs.double, (2,), lambda e: None)]))
        """,
    )
    assert output[0].startswith("the process of stage x was killed (signal 9), perhaps because memory")
    assert "run the same command again" in output[0]
    assert output[1] == 4


def test_stop_ends_all_who_work(tmp_path: Path) -> None:
    output = output_of(
        tmp_path,
        """
        errors, started = [], threading.Semaphore(0)
        def work():
            try:
                pool.call("x", jobs.pid_then_sleep, (), lambda pid: started.release())
            except processes.Stopped as error:
                errors.append(type(error).__name__)
        with processes.ChildProcesses(Runtime()) as pool:
            threads = [threading.Thread(target=work) for _ in range(2)]
            for thread in threads: thread.start()
            for thread in threads: started.acquire()
            pool.stop()
            for thread in threads: thread.join()
        print(json.dumps(errors))
        """,
    )
    assert output == ["Stopped", "Stopped"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("job", ["pid_then_sleep", "spin"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: signal.Signals, job: str) -> None:
    process = script(
        tmp_path,
        f"""
        with processes.ChildProcesses(Runtime()) as pool:
            pool.call("x", jobs.{job}, (), lambda pid: print(pid, flush=True))
        """,
    )
    assert process.stdout
    worker = int(process.stdout.readline())
    assert worker in group(process.pid)
    process.send_signal(how)
    process.wait(timeout=5)
    wait_until_gone(process.pid, 3)
