"""Which heavy packages a command imports, and which modules a stage's process has."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys


def imported_by(*arguments: object) -> set[str]:
    """The heavy packages that a command imports, in a process of its own."""
    code = (
        "import sys; from facegan.cli.main import main\n"
        "try: main(sys.argv[1:], standalone_mode=False)\n"
        "finally: print('IMPORTED', *({'torch', 'prefect', 'timm', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    lines = [line for line in done.stdout.splitlines() if line.startswith("IMPORTED")]
    assert lines, done.stderr
    return set(lines[0].split()[1:])


def modules_with(name: str, _: object) -> set[str]:
    """The modules of this process once it has imported `name`; called in a process of a stage."""
    importlib.import_module(name)
    return set(sys.modules)
