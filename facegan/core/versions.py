"""Versions of the packages that run, and the commit of a checkout."""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path

PACKAGES = (
    *("facegan", "torch", "timm", "albumentations", "numpy", "pillow", "pyarrow"),
    *("opencv-python-headless", "dlib", "dlib-bin"),
)


@cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that decide the bytes of outputs."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


@cache
def commit() -> str | None:
    """The git commit of a checkout that facegan runs from, read without git; None elsewhere."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        shared = git
        if git.is_file():  # a worktree: its HEAD lies here, the branches where the others are
            git = Path(git.read_text().removeprefix("gitdir: ").strip())
            shared = git / (git / "commondir").read_text().strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        ref = shared / head[5:]
        if ref.is_file():
            return ref.read_text().strip()
        packed = (shared / "packed-refs").read_text().splitlines()
        return next(line.split()[0] for line in packed if line.endswith(f" {head[5:]}"))
    except (OSError, StopIteration):
        return None
