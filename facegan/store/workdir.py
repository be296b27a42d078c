"""The store of a working directory."""

from __future__ import annotations

from pathlib import Path

from facegan.core.files import disk_error
from facegan.runtime.options import Runtime
from facegan.store.local import Store


def store_at(workdir: Path, runtime: Runtime) -> Store:
    """The store of a run in a working directory: there, or on object storage where `runtime.store` says so."""
    if runtime.store is None:
        return Store(workdir / "data" / "store")
    from facegan.store.object_storage import RemoteStore

    return RemoteStore(workdir, runtime.store, round(runtime.cache_gb * 1e9))


HERE = Runtime()  # stages stay in the working directory


def store_of(workdir: Path) -> Store:
    """The local store of a working directory; makes nothing."""
    return Store(workdir / "data" / "store")


def open_store(workdir: Path, runtime: Runtime = HERE) -> Store:
    """The store of a run; makes its folder if needed, for its owner alone, since it holds faces."""
    store = store_at(workdir, runtime)
    try:
        store.root.parent.mkdir(parents=True, exist_ok=True)
        store.root.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise disk_error(store.root.parent, error) from error
    return store
