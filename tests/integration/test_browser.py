"""A run started from the form and watched in the pages of a real Prefect server, in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")

import seen  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
KIMG = 4  # so that the GAN trains for some tens of seconds


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all is written."""
    return tmp_path_factory.mktemp("up")


@pytest.fixture(scope="module")
def address(workdir: Path) -> Iterator[str]:
    """The pages of `facegan up`."""
    with seen.up(workdir) as address:
        yield address


def test_the_form_refuses_a_bad_value_and_a_changed_one_takes_effect(address: str, workdir: Path) -> None:
    with seen.browser() as page:
        seen.open_form(page, address)
        seen.pick(page, "by name", "orl-tiny")
        seen.option(page, "kimg").fill("-3")
        seen.submit(page)
        playwright.expect(page.get_by_text("-3 is less than or equal to the minimum of 0").first).to_be_visible()
        seen.option(page, "kimg").fill(str(KIMG))
        run = seen.start(page)
        watch(page, address, run)
    assert seen.ended(address, run)["type"] == "COMPLETED"
    made = [json.loads(path.read_bytes()) for path in (workdir / "data" / "store" / "train_gan").glob("*/record.json")]
    assert [record["config"]["kimg"] for record in made] == [KIMG]
    assert made[0]["config"]["gan"]["channels"] == 8, "what was left empty is as in orl-tiny"
    told = seen.get(f"{address}/api/flow_runs/{run}")
    assert told["name"] == "orl-tiny" and told["parameters"]["recipe"]["train_gan"] == {"kimg": KIMG}


def watch(page: playwright.Page, address: str, run: str) -> None:
    """Progress, the grid and the stages while it runs; the verdict in the end."""
    expect = playwright.expect
    seen.open_artifact(page, address, run, "train-gan-progress")
    seen.until_seen(page, r"train_gan: \S+ of 4 kimg, \S+ kimg/s, .* left")
    seen.open_artifact(page, address, run, "train-gan-samples")
    grid = page.locator("img[src^='data:image/jpeg']")
    expect(grid).to_be_visible()
    assert grid.evaluate("img => img.naturalWidth") > 100
    assert seen.state(address, run)["type"] == "RUNNING", "all this is to be seen while it runs"
    seen.open_artifact(page, address, run, "orl-tiny-stages")
    seen.until_seen(page, r"\d+ of 34 stages done.* stages/min, .* left")
    seen.tab(page, address, run, "Task Runs")
    expect(page.get_by_text(re.compile("· real.* · seed [012]")).first).to_be_visible()
    page.get_by_role("tab", name="Artifacts").click()
    expect(page.get_by_text("train-gan-samples", exact=True)).to_be_visible()
    seen.open_artifact(page, address, run, "orl-tiny-verdict")
    expect(
        page.locator("strong", has_text=re.compile(r"equal error rate from .* to .*: (gain|loss|no gain shown)"))
    ).to_be_visible()
    expect(page.get_by_role("cell", name="rank-1", exact=True)).to_be_visible()
    expect(page.locator("img[src^='data:image/jpeg']")).to_be_visible()
    report = Path(page.locator("pre", has_text="index.html").inner_text().strip())
    assert report.is_file() and report.parent.parent.name == "orl-tiny"
    seen.open_artifact(page, address, run, "synthesize-what-the-filters-removed")
    expect(page.get_by_text("near-copies of a train photo").first).to_be_visible()


def test_what_only_the_run_can_see_fails_within_seconds(address: str, workdir: Path) -> None:
    with seen.browser() as page:
        seen.open_form(page, address)
        page.get_by_role("tab", name="from a file").click()
        seen.option(page, "extends").or_(page.locator("textarea").first).first.fill("nowhere.yaml")
        before = time.monotonic()
        run = seen.start(page)
        state = seen.ended(address, run)
        assert state["type"] == "FAILED" and time.monotonic() - before < 120
        assert "there is no recipe file 'nowhere.yaml'" in state["message"]
        seen.tab(page, address, run, "Details")
        playwright.expect(page.get_by_text("there is no recipe file 'nowhere.yaml'").first).to_be_visible()


def test_all_that_a_run_shows_is_small(address: str) -> None:
    found = seen.post(f"{address}/api/artifacts/filter", {})
    assert len(found) > 5
    assert max(len(json.dumps(one["data"])) for one in found) < 200_000
    assert sum(len(json.dumps(one["data"])) for one in found) < 1_000_000
