"""What may be imported without torch and other slow packages: help, plans and listings must answer at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from drawn import ROOT

FAMILIES = {
    "facegan.data.sources": "SOURCES",
    "facegan.data.detectors": "DETECTORS",
    "facegan.data.conditions": "CONDITIONS",
    "facegan.generation.gans": "GANS",
    "facegan.generation.augmenters": "AUGMENTERS",
    "facegan.generation.controls": "CONTROLS",
    "facegan.generation.identities": "IDENTITIES",
    "facegan.recognition.heads": "HEADS",
    "facegan.recognition.starts": "STARTS",
    "facegan.recognition.fitted": "FITTED",
    "facegan.evaluation.judges": "JUDGES",
    "facegan.evaluation.protocols": "PROTOCOLS",
    "facegan.runtime.engines": "ENGINES",
}
LIGHT = {
    **{f"from {package} import {name}; {name}.load()": {"torch"} for package, name in FAMILIES.items()},
    "import facegan.cli.main": {"torch", "prefect", "pandas", "numpy"},
    "import facegan.recipe.load, facegan.recipe.form": {"torch", "prefect"},
    "import facegan.pipeline.run, facegan.pipeline.plan, facegan.pipeline.workers": {"torch", "prefect"},
    "import facegan.metrics.verification, facegan.metrics.leakage": {"torch"},
    "import facegan.runtime.processes, facegan.runtime.devices": {"torch"},
    "import facegan.store.local, facegan.store.workdir": {"torch", "numpy", "s3fs"},
    "import facegan.data.manifest": {"torch", "s3fs"},
}


@pytest.mark.parametrize(("statement", "heavy"), LIGHT.items(), ids=[s.split()[1].strip(",;") for s in LIGHT])
def test_importing_it_imports_nothing_heavy(statement: str, heavy: set[str]) -> None:
    code = f"{statement}\nimport sys; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_every_family_is_in_the_table() -> None:
    families = subprocess.run(
        ["git", "grep", "-lE", r"^[A-Z]+ = Registry\(", "--", "facegan"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    packages = {path.removesuffix("/__init__.py").replace("/", ".") for path in families.stdout.split()}
    assert packages == set(FAMILIES)
