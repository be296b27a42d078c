"""The Dask engine without a cluster: its options, and its errors. With one: tests/integration/test_engine.py."""

from __future__ import annotations

import sys

import pytest

from facegan.core.errors import UserError
from facegan.runtime.engines.dask import Dask


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("facegan.runtime.engines.dask.CONNECT_S", 1.0)
    message = r"no Dask scheduler answers at tcp://127\.0\.0\.1:9: "
    with pytest.raises(UserError, match=message) as error, Dask(address="tcp://127.0.0.1:9").open(print):
        pass
    assert "dask scheduler" in error.value.fix


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="needs the package distributed") as error, Dask().open(print):
        pass
    assert "facegan[dask]" in error.value.fix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tls_ca": "ca.pem"}, "go together"),
        ({"address": "tls://host:1"}, "needs tls_ca"),
        ({"tls_ca": "a", "tls_cert": "b", "tls_key": "c"}, "needs tls_ca"),
        ({"address": "host:1"}, "pattern"),
    ],
)
def test_options_of_a_cluster(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dask.model_validate(options)
    assert Dask(address="tls://h:1", tls_ca="a", tls_cert="b", tls_key="c").timeout_s == 900
