"""report: arms without synthetic rows, pages without faces, and the same inputs give the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from facegan.data.options import Align, Prepare
from facegan.data.preparation.quarantine import RejectedPhotos, thumbnail
from report_inputs import EVIL, ReportInputs, read


@pytest.fixture(scope="module")
def gained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportInputs, Path]:
    world = ReportInputs(tmp_path_factory.mktemp("gained"), gain=0.35)
    return world, world.report()


def test_one_seed_and_no_synthetic_arm(tmp_path: Path) -> None:
    arms = {"a": {"real": True}, "b": {"real": True}}
    world = ReportInputs(tmp_path, seeds=(3,), arms=arms, comparison={"baseline": "a", "arm": "b"})
    out = world.report()
    assert read(out)["comparison"]["verdict"] == "no gain shown"
    assert "none to show" in (out / "index.html").read_text()
    assert not (out / "figures" / "gan.png").exists()


def test_without_faces_the_pages_hold_figures_alone(gained: tuple[ReportInputs, Path]) -> None:
    """For faces that may not be published: the numbers stay, no photo and no synthetic face is left."""
    world, out = gained
    bare = world.report("bare", show_faces=False)
    names = {path.name for path in (out / "figures").iterdir()}
    assert {path.name for path in (bare / "figures").iterdir()} == names - {
        "faces-existing.png", "faces-first.png", "faces-new.png", "samples.png",
        "audit-closest.png", "audit-people.png", "audit-consistency.png",
    }  # fmt: skip
    pages = [(bare / name).read_text() for name in ("index.html", "report.md")]
    assert all("shows no faces" in text and "report.show_faces" in text for text in pages)
    card, bare_card = (json.loads((folder / "card.json").read_text()) for folder in (out, bare))
    assert card["leakage"]["membership"]["person"]["auc"] == 0.75 and card["leakage"]["outcome"] == "failed"
    assert card["sets"]["existing"]["kid"] == -0.01 and EVIL in card["leakage"]["faults"][0]
    assert EVIL not in json.dumps(bare_card) and bare_card["leakage"]["outcome"] == "failed"
    assert card == {**bare_card, "people": card["people"], "leakage": card["leakage"]} and card["groups"] == []
    n_pictures = pages[0].count("data:image/"), (out / "index.html").read_text().count("data:image/")
    assert n_pictures[0] == len(list((bare / "figures").iterdir())) < n_pictures[1]
    assert "face of" not in pages[0] and "figures/faces" not in pages[1] and "samples.png" not in pages[1]
    assert "figures/audit" not in pages[1] and "near-copies of training photos" in pages[1]
    assert "people who do not exist, made by" in pages[0]  # how many there were is still said
    assert read(bare) == read(out)


def test_no_paths_times_or_hosts(gained: tuple[ReportInputs, Path]) -> None:
    world, out = gained
    for path in (out / "index.html", out / "report.md", out / "results.json"):
        text = path.read_text()
        assert str(world.root) not in text and "a-host-name" not in text and "duration" not in text


def test_a_discriminator_that_has_won_is_told(tmp_path: Path, gained: tuple[ReportInputs, Path]) -> None:
    world = ReportInputs(tmp_path)
    lines = [{"nimg": 32 * n, "d": 0.1, "real_accuracy": 1.0, "gen_accuracy": 0.992} for n in range(1, 100)]
    (world.inputs["train_gan"] / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    won = world.report()
    for name in ("index.html", "report.md"):
        assert "D has won: over the last tenth of the training it was right about 99.2%" in (won / name).read_text()
        assert "D has won" not in (gained[1] / name).read_text()


def test_same_inputs_same_bytes(gained: tuple[ReportInputs, Path]) -> None:
    world, out = gained
    again = world.report("again")
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((out / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_photos_without_a_usable_face_are_counted_and_shown(tmp_path: Path) -> None:
    world = ReportInputs(tmp_path)
    folder = world.inputs["prepare"]
    rejected = RejectedPhotos()
    for number in range(15):
        entry = {"file": f"<i>{number}.jpg", "identity": EVIL, "reason": "no face found"}
        rejected.add(entry, thumbnail(Image.new("RGB", (300, 200), (number, 80, 90))))
    rejected.several = 3
    rejected.write(folder)
    summary = json.loads((folder / "summary.json").read_text())
    options = Prepare(align=Align())
    (folder / "summary.json").write_text(json.dumps({**summary, "faces": rejected.summary(options, 40)}))
    shown, bare = world.report("shown"), world.report("bare", show_faces=False)
    for out in (shown, bare):
        html, text = (out / "index.html").read_text(), (out / "report.md").read_text()
        assert "no face found" in html and "| no face found | 15 |" in text and "| usable | 40 |" in text
        assert "aligned by dlib" in text and "3 of the photos showed several faces" in html
    assert (shown / "index.html").read_text().count(".jpg: no face found") == 12  # not all fifteen
    assert ".jpg: no face found" not in (bare / "index.html").read_text()
    assert "<i>" not in (shown / "index.html").read_text()
