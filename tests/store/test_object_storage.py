"""Object storage without a server: the option, imports, and the error where s3fs is missing."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from drawn import pick, tiny
from facegan.core.errors import UserError
from facegan.pipeline import graph
from facegan.runtime.options import Runtime
from facegan.store import manifest_parts
from facegan.store.bucket import Bucket, Unreachable
from facegan.store.local import Store
from facegan.store.object_storage import RemoteStore, remotes, store_of_cached
from facegan.store.workdir import store_at


@pytest.mark.parametrize("url", ["s3://faces", "s3://faces/a", "s3://my.faces-1/team/a_b=c.d"])
def test_a_store_is_named_by_its_url_and_changes_no_fingerprint(url: str, faces: Path, tmp_path: Path) -> None:
    plain, remote = tiny(faces), tiny(faces, runtime={"store": url})
    assert [n.key for n in graph.build(plain)] == [n.key for n in graph.build(remote)]
    assert type(store_at(tmp_path, plain.runtime)) is Store
    store = store_at(tmp_path, remote.runtime)
    assert isinstance(store, RemoteStore) and store.place == url and not list(tmp_path.iterdir())
    assert (
        store.bucket.path("a/b") == f"{url}/a/b" and f"s3://{store.bucket.bucket}/{store.bucket.key('x')}" == f"{url}/x"
    )


@pytest.mark.parametrize(
    "url", ["", "faces", "s3:/faces", "s3://key:secret@faces/a", "s3://faces/a?x=1", "s3://faces/../a", "gs://faces"]
)
def test_a_url_that_is_none_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"runtime\.|store"):
        Runtime(store=url)


def test_the_local_path_imports_nothing_of_it(faces: Path, tmp_path: Path) -> None:
    code = (
        "import sys, facegan.data.manifest, facegan.pipeline.graph, facegan.pipeline.workers\n"
        "import facegan.pipeline.publish, facegan.pipeline.plan\n"
        "print([m for m in ('s3fs', 'botocore', 'aiohttp') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert process.stdout == "[]\n"


def test_without_s3fs_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"pip install 'facegan\[s3\]'"):
        Bucket("s3://faces/a").read("x")


def test_a_local_store_points_nowhere(faces: Path, shared: object, tmp_path: Path) -> None:
    recipe = tiny(faces)
    folder = shared.make(pick(graph.build(recipe), "prepare")).path  # type: ignore[attr-defined]
    assert manifest_parts.remote_parts(folder) == [] and store_of_cached(folder) is None and remotes(tmp_path) == {}


def test_a_full_disk_is_no_fault_of_the_network(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"cannot write .*x\.parquet: no room") as error,
        manifest_parts._replacing(tmp_path / "x.parquet"),
        Bucket("s3://faces/a")._translated_errors("x"),
    ):
        raise OSError(errno.ENOSPC, "no room")
    assert not isinstance(error.value, Unreachable) and not list(tmp_path.iterdir())
    with pytest.raises(Unreachable), Bucket("s3://faces/a")._translated_errors("x"):
        raise OSError(errno.ECONNRESET, "reset")
