"""Atomic writes of files and folders, files for their owner alone, and links that are replaced atomically."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from facegan.core.errors import UserError

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""The errors of what this user may not read or write."""


def user_path(path: str | Path) -> Path:
    """A path as a user gives it: `~` is their home, `~NAME` another user's or, where nobody is called so, a name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def write_private(path: Path, data: bytes) -> None:
    """Write a file atomically, readable by its owner alone."""
    previous = os.umask(0o077)
    try:
        write_atomic(path, data)
    finally:
        os.umask(previous)


TEMPORARY = ".{}.tmp"  # a file that is being written


def write_atomic(path: Path, data: bytes) -> None:
    """Write through a temporary file, fsync and os.replace: a reader sees the old bytes or the new.

    Raises UserError when the disk is full; the file that was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(TEMPORARY.format(path.name))
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise disk_error(path, error) from error


def evict(paths: Iterable[Path], most_bytes: int, keep: Path) -> None:
    """Delete those of `paths`, but `keep`, that were used longest ago until `most_bytes` or less are left; who reads
    one has it open."""
    files = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    total_bytes = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total_bytes <= most_bytes:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total_bytes -= size


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, for its owner alone: renamed to `out` at the end, removed after an error.

    Raises UserError when `out` is there and holds something, or the disk is full.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' is already there", fix="give another --out, or delete it first")
    unfinished = out.with_name(f".{out.name}.incomplete")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True, mode=0o700)
        yield unfinished
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    except OSError as error:
        raise disk_error(out, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def disk_error(path: Path, error: OSError) -> UserError:
    """The message for a write that failed: the path, the reason, the free space."""
    try:
        free = f"{shutil.disk_usage(path.parent).free / 1e6:.0f} MB free there"
    except OSError:
        free = "its folder cannot be read"
    if error.errno in FORBIDDEN:
        fix = "let this user write there, or give another --workdir"
        return UserError(f"cannot write {path}: {error.strerror}", fix=fix)
    return UserError(
        f"cannot write {path}: {error.strerror or error} ({free})",
        fix="free some space or give another --workdir; the same command goes on from the last checkpoint",
    )


def replace_link(link: Path, name: str) -> None:
    """Let a relative link point to `name`, atomically: a reader finds the old target or the new."""
    if link.is_symlink() and os.readlink(link) == name:
        return
    new_link = link.with_name(f".{link.name}-{os.getpid()}")
    new_link.unlink(missing_ok=True)
    new_link.symlink_to(name, target_is_directory=True)
    os.replace(new_link, link)
    fsync(link.parent)


def fsync(path: Path) -> None:
    """Flush a file's or a folder's changes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
