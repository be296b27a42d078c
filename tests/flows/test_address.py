"""Proxies of the environment: this machine is reached without them, whatever they are."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import httpx
import pytest

from facegan.core.errors import UserError
from flows.service import address
from flows.service.server import prefect_server


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*address.PROXIES, "no_proxy", "NO_PROXY", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", address.PROXIES)
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "http"])
def test_a_client_of_this_machine_starts_under_any_proxy(
    name: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """httpx builds every proxy that is named, used or not, and raises for one that it cannot use."""
    monkeypatch.setenv(name, f"{scheme}://127.0.0.1:9")
    without_socks = importlib.util.find_spec("socksio") is None
    if scheme == "socks4" or (without_socks and scheme.startswith("socks")):
        with pytest.raises((ImportError, ValueError)):
            httpx.Client()
    for variable, value in address.no_proxy().items():
        monkeypatch.setenv(variable, value)
    with httpx.Client() as client:
        assert client.is_closed is False


def test_a_server_elsewhere_behind_socks_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:9")
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
    said = re.escape("ALL_PROXY=socks4://127.0.0.1:9 cannot be used")
    with pytest.raises(UserError, match=said) as error, prefect_server(tmp_path):
        pass
    assert "httpx[socks]" in error.value.fix
