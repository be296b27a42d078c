"""The commit that records name is that of the checkout."""

from __future__ import annotations

import subprocess
from importlib.metadata import version

import pytest

from drawn import ROOT
from facegan.core.versions import commit, package_versions


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_the_commit_is_that_of_the_checkout() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    commit.cache_clear()
    assert commit() == head.stdout.strip()


def test_versions_are_those_that_are_installed() -> None:
    assert package_versions()["torch"] == version("torch")
