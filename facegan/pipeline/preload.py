"""Imports all that is slow to import: loaded only by the process that worker processes are forked from."""

import atexit
import contextlib
import importlib
import os
import sys
import threading
import warnings

from facegan.stages import STAGES

LATE = ["pandas"]  # what others import in the midst of a stage: pyarrow, when it first makes an array


def _exit_with_parent(parent: int, done: threading.Event) -> None:
    """Exit when the command has ended while imports are under way; afterwards the fork server does so itself."""
    while not done.wait(0.2):
        if os.getppid() != parent:
            os._exit(1)


def _load() -> None:
    done = threading.Event()
    watcher = threading.Thread(target=_exit_with_parent, args=(os.getppid(), done))
    watcher.start()
    for name in [*(f"facegan.stages.{stage}" for stage in STAGES), "timm", *LATE]:
        with contextlib.suppress(Exception):  # the stage that needs it will say what is wrong
            importlib.import_module(name)
    with contextlib.suppress(Exception):
        sys.modules["PIL.Image"].init()  # imports a module for each format, at the first photo otherwise
    done.set()
    watcher.join()  # no thread may run when children are forked


if not sys.warnoptions:
    warnings.simplefilter("ignore")
_load()
atexit.register(os._exit, 0)  # nothing to tidy up, and taking torch apart takes a second
