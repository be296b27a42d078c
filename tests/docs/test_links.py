"""Every link, file and module that docs name is there."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from drawn import ROOT

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
PAGES = [
    path
    for path in TRACKED
    if path.endswith(".md") and (path.startswith("docs/") or "/" not in path) and (ROOT / path).is_file()
]
PARENTS = {str(parent) for path in TRACKED for parent in Path(path).parents} | set(TRACKED)
HISTORY = ("CHANGELOG.md", "docs/experiments/")  # speak also of what is gone
DEPLOYMENTS = ("facegan/nightly", "facegan/retrain", "facegan/study")  # as Prefect's page names them
CODE = r"(?<![\w/.])((?:facegan|flows|tests|benchmarks|docs|reports/published)/[\w./*-]*[\w*])"


def slug(heading: str) -> str:
    """The anchor of a heading, as git hosts make it."""
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"[`*]", "", heading.strip().lower()))
    return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")


@cache
def anchors(path: Path) -> set[str]:
    without_code = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", without_code, re.M)}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        assert not anchor or file.suffix != ".md" or anchor in anchors(file), f"{page} links to {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith(HISTORY)])
def test_files_and_modules_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    for path in re.findall(CODE, text):
        there = path.rstrip("/") in PARENTS or "*" in path or "NAME" in path or path in DEPLOYMENTS
        assert there or f"# {path}" in text, f"{page} names {path}"  # or shows it, as a file to be written
    for name in re.findall(r"`((?:facegan|flows)(?:\.\w+)+)`", text):
        parent, _, last = name.rpartition(".")
        assert spec_of(name) or (spec_of(parent) and hasattr(importlib.import_module(parent), last)), f"{page}: {name}"


@cache
def spec_of(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_docs_are_short() -> None:
    """So much that somebody reads it: 20,000 words, but for the log of experiments."""
    pages = [page for page in PAGES if page.startswith("docs/") and not page.startswith("docs/experiments/")]
    words = sum(len((ROOT / page).read_text().split()) for page in pages)
    assert words <= 20_000
