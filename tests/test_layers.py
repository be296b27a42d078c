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
LIGHT = [
    (("import facegan.cli.main",), {"torch", "prefect", "pandas", "numpy"}),
    (("import facegan.store.local, facegan.store.workdir",), {"torch", "numpy", "s3fs"}),
    (("import facegan.data.manifest",), {"torch", "s3fs"}),
    (
        (
            "import facegan.recipe.load, facegan.recipe.form",
            "import facegan.pipeline.run, facegan.pipeline.plan, facegan.pipeline.workers",
        ),
        {"torch", "prefect"},
    ),
    (
        (
            "import facegan.metrics.verification, facegan.metrics.leakage",
            "import facegan.runtime.processes, facegan.runtime.devices",
            *(f"from {package} import {name}; {name}.load()" for package, name in FAMILIES.items()),
        ),
        {"torch"},
    ),
]


@pytest.mark.parametrize(("statements", "heavy"), LIGHT, ids=[s[0].split()[1].strip(",;") for s, _ in LIGHT])
def test_importing_it_imports_nothing_heavy(statements: tuple[str, ...], heavy: set[str]) -> None:
    """One process imports them in turn and names the first that brings something heavy."""
    told = (f"{statement}\nif {heavy} & set(sys.modules): sys.exit({statement!r})" for statement in statements)
    code = "\n".join(["import sys", *told])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


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
