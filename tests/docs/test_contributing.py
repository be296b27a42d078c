"""The steps of CONTRIBUTING.md, followed in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from drawn import ROOT

GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
MORE = (ROOT / "docs" / "develop" / "add-a-member.md").read_text()


def files_in(page: str) -> dict[str, str]:
    """{path: text} of the whole files that a page shows, each of which begins with its path."""
    blocks = re.findall(r"^```python\n(# (\S+\.py)\n.*?)^```", page, re.M | re.S)
    return {path: text for text, path in blocks}


def in_copy(copy: Path, *arguments: str) -> str:
    """What a command of the copy prints."""
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=copy, env=environment, capture_output=True, text=True, timeout=230
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the files that both pages show."""
    folder = tmp_path_factory.mktemp("copy") / "facegan"
    ignore = shutil.ignore_patterns("__pycache__", "integration")
    for name in ("facegan", "flows", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path, text in {**files_in(GUIDE), **files_in(MORE)}.items():
        assert not (folder / path).exists()
        (folder / path).write_text(text)
    return folder


@pytest.mark.slow
def test_a_head_is_added_by_one_file(copy: Path) -> None:
    (path,) = files_in(GUIDE)
    name = Path(path).stem
    assert re.search(rf"\b{name}\b", in_copy(copy, "facegan", "list", "heads"))
    family = re.search(r"\.venv/bin/pytest (tests/recognition/heads/\S+\.py)` tries every head", GUIDE)
    assert family is not None
    said = in_copy(copy, "pytest", "-p", "no:cacheprovider", family[1], "-k", name, "-v")
    assert int(re.findall(r"(\d+) passed", said)[-1]) >= 5


@pytest.mark.slow
def test_other_members_are_added_by_one_file_each(copy: Path) -> None:
    listed = in_copy(copy, "facegan", "list")
    for path in files_in(MORE):
        if "/networks/" not in path:
            assert re.search(rf"^\s*{Path(path).stem}\b", listed, re.M), path


def test_the_order_of_packages_is_the_one_that_is_checked() -> None:
    shown = re.search(r"^    (cli > .*?)\n\n", GUIDE, re.M | re.S)
    assert shown is not None
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    checked = " > ".join(layer.replace("facegan.", "") for layer in layers)
    assert " ".join(shown[1].split()) == checked
