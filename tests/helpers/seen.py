"""`facegan up` in a working directory, and its pages in a headless Chromium."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, TimeoutError, expect, sync_playwright

START_S, RUN_S = 180, 420  # on two busy cores
expect.set_options(timeout=30_000)


@contextlib.contextmanager
def up(workdir: Path) -> Iterator[str]:
    """Server, worker and deployments in `workdir`, on a free port of loopback; yields the address of the pages."""
    command = [sys.executable, "-m", "facegan", "up", "--workdir", str(workdir), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    log = workdir / "up.log"
    with open(log, "w") as log_file:
        process = subprocess.Popen(command, stdout=log_file, stderr=log_file, env=environment)
    try:
        deadline = time.monotonic() + START_S
        while "up: " not in (text := log.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.2)
        yield text.partition("up: ")[2].split()[0].rstrip(";")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


@contextlib.contextmanager
def browser(width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A page of Debian's Chromium."""
    sandbox = [] if os.getuid() else ["--no-sandbox"]  # Chromium has none for root
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(90_000)
        try:
            yield page
        finally:
            chromium.close()


def get(url: str) -> Any:
    """JSON from the server."""
    return json.load(urllib.request.urlopen(url, timeout=30))


def post(url: str, body: dict[str, Any]) -> Any:
    """JSON from the server that takes a question; it hands the token for it out to who asks from here."""
    client = url.partition("/api/")[0] + "/api/csrf-token?client=tests"
    headers = {"content-type": "application/json", "Prefect-Csrf-Client": "tests"}
    headers["Prefect-Csrf-Token"] = get(client)["token"]
    return json.load(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)))


def open_form(page: Page, address: str, deployment: str = "recipe") -> None:
    """The run form of a deployment."""
    details = get(f"{address}/api/deployments/name/facegan/{deployment}")
    page.goto(f"{address}/v2/deployments/deployment/{details['id']}/run")
    page.get_by_text("Pick a recipe").wait_for()


def pick(page: Page, label: str, choice: str) -> None:
    """A choice from a list of the form."""
    page.get_by_label(f"Select {label}").first.click()
    page.get_by_role("option", name=choice, exact=True).click()


def option(page: Page, name: str) -> Any:
    """The field of an option (of the first with that name)."""
    return page.get_by_label(f"{name} (Optional)", exact=True).first


def submit(page: Page) -> None:
    """Send the form."""
    page.get_by_role("button", name="Submit").click()


def start(page: Page) -> str:
    """Send the form, and follow the note that a run was created to its page; the run's id.

    The page of Prefect 3.8.8 remembers a refusal: the first Submit after it only forgets that.
    """
    for _ in range(4):
        with contextlib.suppress(TimeoutError):
            with page.expect_request("**/create_flow_run", timeout=5_000):
                submit(page)
            page.get_by_text("View run").click()
            page.wait_for_url("**/runs/flow-run/*")
            return page.url.rpartition("/")[2].partition("?")[0]
    raise AssertionError(f"no run was created: {page.locator('body').inner_text()[-2000:]}")


def tab(page: Page, address: str, run: str, name: str) -> None:
    """A tab of a run's page, fresh."""
    page.goto(f"{address}/v2/runs/flow-run/{run}")
    page.get_by_role("tab", name=name).click()


def open_artifact(page: Page, address: str, run: str, key: str, within_s: float = RUN_S) -> None:
    """The page of an artifact of a run, as soon as it is there."""
    deadline = time.monotonic() + within_s
    query = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": [key]}}}
    page.goto("about:blank")  # drawing what moves on a page takes a core where there is no GPU
    while not (artifacts := post(f"{address}/api/artifacts/filter", query)):
        assert time.monotonic() < deadline, f"no artifact {key}"
        time.sleep(0.5)
    page.goto(f"{address}/v2/artifacts/artifact/{artifacts[0]['id']}")
    page.get_by_text("Flow Run").first.wait_for()


def until_seen(page: Page, pattern: str, within_s: float = 180) -> None:
    """Look at a page again and again until it shows a text."""
    deadline = time.monotonic() + within_s
    while not page.get_by_text(re.compile(pattern)).count():
        assert time.monotonic() < deadline, f"not seen: {pattern}; but {page.locator('body').inner_text()[:2000]}"
        page.wait_for_timeout(1000)
        page.reload()
        page.get_by_text("Flow Run").first.wait_for()


def ended(address: str, run: str, within_s: float = RUN_S) -> dict[str, Any]:
    """The last state of a run, as soon as it is there."""
    deadline = time.monotonic() + within_s
    while (current := state(address, run))["type"] in ("SCHEDULED", "PENDING", "RUNNING"):
        assert time.monotonic() < deadline, current
        time.sleep(0.5)
    return current


def state(address: str, run: str) -> dict[str, Any]:
    """The state of a run."""
    return dict(get(f"{address}/api/flow_runs/{run}")["state"])
