"""The report's pages: escaping, one file that stands alone, the audit, the small picture."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from facegan.reporting import page
from report_inputs import EVIL, ReportInputs


@pytest.fixture(scope="module")
def gained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportInputs, Path]:
    world = ReportInputs(tmp_path_factory.mktemp("gained"), gain=0.35)
    return world, world.report()


def test_the_audit_is_shown(gained: tuple[ReportInputs, Path]) -> None:
    html, markdown = ((gained[1] / name).read_text() for name in ("index.html", "report.md"))
    for text in (html, markdown):
        assert "a judge of its own" in text and "0.612 (1500 comparisons)" in text and "0.123" in text
        assert "Leakage gate: failed, and not enforced" in text
        assert "none at a similarity of 0.960 or more" in text and "mirrored 96" in text
        assert "1 of 12" in text and "similarity 0.912" in text
        assert "0.987" in text and "0.456" in text and "0.167" in text  # AUC, spread, the probe
        assert "75\u00a0% of the proposed new people and 95\u00a0% of their images" in text  # 12 of 16, 38 of 40
    for name in ("closest", "people", "consistency"):
        assert (gained[1] / "figures" / f"audit-{name}.png").is_file() and f"audit-{name}.png" in markdown


def test_new_people_are_shown_by_their_number(gained: tuple[ReportInputs, Path]) -> None:
    """On the first screen, in a grid of one image of each, and below their parents: the first, none chosen."""
    html, markdown = ((gained[1] / name).read_text() for name in ("index.html", "report.md"))
    glance = html[html.index("A glance at the faces") : html.index('aria-label="Contents"')]
    assert "the first by their number" in glance and glance.count("a new person") == 8
    first = [html.index(f"synthetic/new-{number:05d}") for number in range(3)]
    assert (
        first == sorted(first)
        and "synthetic/new-00011" not in html[html.index('id="faces"') : html.index('id="synthetic-set"')]
    )
    assert Image.open(gained[1] / "figures" / "faces-first.png").height < 3 * 80  # twelve people, ten a row
    assert "The first 12 people who do not exist" in markdown


def test_little_picture_keeps_its_marks_inside(gained: tuple[ReportInputs, Path]) -> None:
    world, _ = gained
    findings = world.numbers()
    strip = page.strip(findings.measures[0], findings.comparison)
    assert strip is not None and strip["better_left"]
    marks = strip["x"]
    assert 0 < marks["low"] < marks["delta"] < marks["high"] < marks["zero"] < strip["width"]
    assert marks["zero"] + 45 < strip["width"] - 60  # half of "no difference", the whole of "worse"


class Links(HTMLParser):
    """Collects tags and whatever they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_html_stands_alone_and_escapes(gained: tuple[ReportInputs, Path]) -> None:
    out = gained[1]
    text = (out / "index.html").read_text()
    page = Links(text)
    assert page.links and all(link.startswith(("data:image/", "#")) for link in page.links)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert EVIL not in text and "x/&lt;script&gt;" in text
    outside = re.sub(r"data:image/[^\"]*", "", text)
    assert "http://" not in outside and "https://" not in outside and "url(" not in outside
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert all(f'id="{anchor}"' in text for anchor in anchors)


def test_a_private_training_is_told_beside_its_arm(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path)
    facts = {"epsilon": 8.0, "delta": 0.005, "noise": 2.0, "clip": 1.0, "sample_rate": 0.16, "steps": 600}
    facts |= {"photos": 200, "unit": "photo", "accountant": "rdp", "keyed": False, "opacus": "1.6.0"}
    for name, folder in world.inputs.items():
        if name.startswith("train_recognizer:real:"):
            (folder / "embedder.json").write_text(json.dumps({"privacy": facts}))
    out = world.report()
    for text in ((out / name).read_text() for name in ("index.html", "report.md")):
        assert text.count("Differentially private with epsilon 8 and delta 0.005 for each photo") == 1
        assert "The 3 seeds are 3 releases" in text


def test_markdown_escapes_and_its_figures_are_there(gained: tuple[ReportInputs, Path]) -> None:
    text = (gained[1] / "report.md").read_text()
    body = text.split("## Config")[0]
    assert "<script>" not in body and "&lt;script&gt;" in body
    figures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert "figures/arms.png" in figures and "figures/faces-new.png" in figures
    assert all((gained[1] / name).is_file() for name in figures)
