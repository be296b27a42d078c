"""Atomic writes: the old bytes or the new, and what a full disk leaves."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from facegan.core import files
from facegan.core.files import write_atomic


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_size_limit_leaves_the_file_before(tmp_path: Path) -> None:
    """Where nothing may be mounted: EFBIG takes the same way as ENOSPC."""
    code = """
import resource, signal, sys
from pathlib import Path
from facegan.core.errors import UserError
from facegan.core.files import write_atomic
path = Path(sys.argv[1]) / "file"
write_atomic(path, b"before")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(path, b"after" * 1000)
except UserError as error:
    print(error)
"""
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "cannot write" in process.stdout and "too large" in process.stdout
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"before"


def test_a_write_is_the_old_bytes_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"before")

    def power_cut(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", power_cut)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"after")
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_nobody_is_advised_to_free_space_for_a_permission(code: int, tmp_path: Path) -> None:
    error = files.disk_error(tmp_path / "x.json", OSError(code, os.strerror(code), "x.json"))
    assert "x.json" in str(error) and os.strerror(code) in str(error)
    assert ("free some space" in error.fix) == (code not in files.FORBIDDEN)


def test_a_name_that_begins_as_a_home_does_is_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert files.user_path("~/a") == Path("/home/me/a")
    assert files.user_path("~nobody-is-called-so/a") == Path("~nobody-is-called-so/a")
