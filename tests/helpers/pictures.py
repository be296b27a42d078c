"""The pictures of docs/use/ui.md, made again: python tests/helpers/pictures.py [WORKDIR]

Runs orl-tiny with a longer training on the ORL faces, in the real pages of `facegan up`. Minutes on two cores.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

import seen

IMAGES = Path(__file__).parents[2] / "docs" / "images"
KIMG = 12
BYTES = 200_000


def shoot(page: Page, name: str, settle_ms: int = 1500) -> None:
    """What the page shows now, to docs/images: at most 64 colours, so that it stays small."""
    page.wait_for_timeout(settle_ms)  # graphs and pictures are drawn a moment after the page is there
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < BYTES, f"{path} is too large"
    print(path, path.stat().st_size)


def run(workdir: Path) -> None:
    """Form, running pages, verdict."""
    with seen.up(workdir) as address, seen.browser(1200, 860) as page:
        seen.open_form(page, address)
        seen.pick(page, "by name", "orl-tiny")
        shoot(page, "form")
        seen.option(page, "kimg").fill("-3")
        seen.submit(page)
        page.get_by_text("is less than or equal").first.wait_for()
        seen.option(page, "kimg").scroll_into_view_if_needed()
        shoot(page, "form-refuses", 6000)  # until the note at the bottom is gone
        seen.option(page, "kimg").fill(str(KIMG))
        run = seen.start(page)
        seen.open_artifact(page, address, run, "train-gan-samples")  # by then some stages are over
        seen.open_artifact(page, address, run, "orl-tiny-stages")
        seen.until_seen(page, r"stages/min, .* left")
        shoot(page, "progress")
        seen.open_artifact(page, address, run, "train-gan-samples")
        shoot(page, "samples")
        seen.tab(page, address, run, "Task Runs")
        page.get_by_text(re.compile("· seed")).first.wait_for()
        shoot(page, "run", 4000)
        seen.open_artifact(page, address, run, "orl-tiny-verdict")
        shoot(page, "verdict")
        seen.open_artifact(page, address, run, "synthesize-what-the-filters-removed")
        shoot(page, "filters")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    if len(sys.argv) > 1:
        run(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder))
