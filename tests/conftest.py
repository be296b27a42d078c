"""What the tests share: quiet libraries, one thread, small drawn faces and a laboratory to run stages in."""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

# Each test's working directory is new: Prefect's database is not migrated for each.
os.environ.setdefault("FACEGAN_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "facegan"))

import pytest
import torch

from drawn import Lab, draw_folder, tiny
from facegan.recipe.recipe import Recipe

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 8 drawn people with 5 images each. Read only: copy it to change it."""
    return draw_folder(tmp_path_factory.mktemp("faces") / "root")


@pytest.fixture(scope="session")
def recipe(faces: Path) -> Recipe:
    """The tiny recipe over `faces`."""
    return tiny(faces)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A laboratory whose artifacts many tests read: change nothing in its store."""
    return Lab(tmp_path_factory.mktemp("shared") / "store")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A laboratory for one test."""
    return Lab(tmp_path / "store")
