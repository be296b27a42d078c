"""Groups: a planted blurred group is found, formulas against hand-worked values, and what is said of bad tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facegan.core.errors import UserError
from facegan.evaluation.embedded_faces import EmbeddedFaces, embed_faces
from facegan.evaluation.protocols import ProtocolResult
from facegan.evaluation.protocols.groups import Groups
from facegan.metrics import groups as metric
from facegan.metrics.intervals import person_weights
from facegan.metrics.verification import pair_scores


def blurred(photo: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(photo, (0, 0), sigma)


def faces(n_people: int = 40, each: int = 5, blur: float = 0.0) -> EmbeddedFaces:
    """Pixels as embeddings: noise pictures of people with noise on each photo; odd people's are blurred first."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(n_people), each)
    photo = rng.normal(size=(n_people, 24, 24))[person] + 2.5 * rng.normal(size=(len(person), 24, 24))
    photo = np.stack([blurred(p, blur) if blur and code % 2 else p for p, code in zip(photo, person, strict=True)])
    names = np.asarray([f"d/p{code:02d}" for code in person], dtype=object)
    return replace(embed_faces(photo.reshape(len(person), -1).astype(np.float32), names), thresholds={0.01: 0.09})


def table(tmp_path: Path, values: list[str], names: list[str] | None = None) -> str:
    path = tmp_path / "people.csv"
    names = names or [f"p{n:02d}" for n in range(len(values))]
    path.write_text("identity,site\n" + "".join(f"{n},{v}\n" for n, v in zip(names, values, strict=True)))
    return str(path)


def value(result: ProtocolResult, name: str) -> float | None:
    return next(m.value for m in result.metrics if m.name == name)


def interval(config: Groups, judged: EmbeddedFaces, name: str) -> tuple[float, float]:
    replicates = config.replicates(judged, person_weights(40, 400, 0))[name]
    return float(np.quantile(replicates, 0.025)), float(np.quantile(replicates, 0.975))


def test_a_blurred_group_is_found(tmp_path: Path) -> None:
    config = Groups(by="site", file=table(tmp_path, ["a", "b"] * 20))
    plain, planted = faces(), faces(blur=1.5)
    assert interval(config, planted, "groups/fmr:b")[0] > interval(config, planted, "groups/fmr:a")[1]
    for judged, found in ((plain, False), (planted, True)):
        assert (value(config.run(judged), "groups/garbe") > 0.3) == found
    before, after = (config.run(judged) for judged in (plain, planted))
    assert value(before, "groups/fmr:a") == value(after, "groups/fmr:a")


def test_rates_are_those_of_all_pairs_of_a_group(tmp_path: Path) -> None:
    judged, config = faces(), Groups(by="site", file=table(tmp_path, ["a", "b"] * 20))
    codes = judged.person
    for group, rest in (("a", 0), ("b", 1)):
        rows = codes % 2 == rest
        pairs = pair_scores(judged.embedding[rows], codes[rows])
        fmr, fnmr = (pairs.score[~pairs.genuine] >= 0.09).mean(), (pairs.score[pairs.genuine] < 0.09).mean()
        result = config.run(judged)
        assert value(result, f"groups/fmr:{group}") == pytest.approx(fmr) and fmr > 0
        assert value(result, f"groups/fnmr:{group}") == pytest.approx(fnmr) and fnmr > 0
    ones = config.replicates(judged, np.ones((2, 40)))
    points = {m.name: m.value for m in config.run(judged).metrics}
    assert ones and all(np.allclose(values, points[name]) for name, values in ones.items())


def test_a_weight_is_a_repeated_person() -> None:
    judged = faces(4)
    weights = np.asarray([[2, 0, 1, 1]])
    counted = metric.count_errors(judged.embedding, judged.person, 4, 0.09).rates(weights)
    pairs = pair_scores(judged.embedding, judged.person)
    same = pairs.first == pairs.second
    weight = weights[0][pairs.first] * np.where(same, 1, weights[0][pairs.second])
    accepted = pairs.score >= 0.09
    assert counted[0][0] == pytest.approx(np.average(accepted[~same], weights=weight[~same]))
    assert counted[1][0] == pytest.approx(np.average(~accepted[same], weights=weight[same]))


def test_the_formulas_by_hand() -> None:
    fmr, fnmr = np.asarray([0.01, 0.04]), np.asarray([0.2, 0.3])
    assert metric.worst_ratio(fmr) == pytest.approx(2)  # 0.04 / sqrt(0.0004)
    assert metric.fdr(fmr, fnmr) == pytest.approx(1 - 0.5 * 0.03 - 0.5 * 0.1)
    assert metric.gini(fmr) == pytest.approx(0.6)  # 2 / 1 * 2 * 0.03 / (2 * 4 * 0.025)
    assert metric.garbe(fmr, fnmr) == pytest.approx(0.5 * 0.6 + 0.5 * 0.2)
    assert metric.gini(np.asarray([0, 0, 1.0])) == pytest.approx(1) and metric.gini(np.full(3, 0.2)) == 0
    assert np.isnan(metric.worst_ratio(np.asarray([0, 0.1])))
    assert metric.rule_of_three(100) == 0.03 and metric.rule_of_three(2) == 1


def test_light_makes_parts_of_equal_size() -> None:
    judged = faces()
    light = np.linspace(0, 1, len(judged.person))[np.random.default_rng(1).permutation(len(judged.person))]
    result = Groups(by="light").run(replace(judged, measured={"light": light}))
    names = [m.name for m in result.metrics]
    assert names[:3] == ["groups/fmr:dark", "groups/fmr:middle", "groups/fmr:bright"]
    rows = light > np.quantile(light, 2 / 3)
    assert result.metrics[2].n_genuine == pair_scores(judged.embedding[rows], judged.person[rows]).n_genuine


def test_too_few_people_are_too_few_to_tell(tmp_path: Path) -> None:
    config = Groups(by="site", file=table(tmp_path, ["a"] * 5 + ["b"] * 35))
    metrics = {m.name: m for m in config.run(faces()).metrics}
    few = metrics["groups/fmr:a"]
    assert few.value is None and few.note == "too few to tell: 5 people, at least 10 are needed"
    assert metrics["groups/fmr:b"].value is not None and metrics["groups/garbe"].value is None
    assert metrics["groups/garbe"].note.startswith("too few to tell: 1 of 2 groups")


def test_without_an_error_the_rule_of_three_bounds_it(tmp_path: Path) -> None:
    config = Groups(by="site", file=table(tmp_path, ["a", "b"] * 20), threshold=0.9)
    metrics = {m.name: m for m in config.run(faces()).metrics}
    assert metrics["groups/fmr:a"].value == 0
    assert "below 0.3 by the rule of three over 10 couples" in metrics["groups/fmr:a"].note
    assert metrics["groups/fmr-ratio"].value is None
    assert "has 0 errors, at least 10" in metrics["groups/fmr-ratio"].note


def test_bad_tables_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'age'; it has: identity, site"):
        Groups(by="age", file=table(tmp_path, ["a", "b"])).fingerprint()
    with pytest.raises(UserError, match="is not there"):
        Groups(by="age", file=str(tmp_path / "none.csv")).fingerprint()
    with pytest.raises(UserError, match="two values of 'site': 'a' and 'b'"):
        Groups(by="site", file=table(tmp_path, ["a", "b"], ["p01", "p01"])).fingerprint()
    with pytest.raises(UserError, match="names none of the 40 test people, such as 'd/p00'"):
        Groups(by="site", file=table(tmp_path, ["a", "b"], ["x", "y"])).run(faces())
    with pytest.raises(UserError, match="groups by 'site', which is none of light, sharpness, group, dataset"):
        Groups(by="site").fingerprint()


def test_what_cannot_be_told_is_null_with_the_reason(tmp_path: Path) -> None:
    one = Groups(by="site", file=table(tmp_path, ["a"] * 40))
    assert one.replicates(faces(), np.ones((2, 40))) == {}
    for config, judged, reason in (
        (one, faces(), "'site' has the one value 'a' among the test photos"),
        (Groups(), replace(faces(), thresholds={}), "no val people set the threshold of FMR 0.01"),
        (Groups(), faces(), "light is measured in a run"),
    ):
        metrics = config.run(judged).metrics
        assert [m.name for m in metrics] == config.names()
        assert all(m.value is None and m.note.startswith(reason) for m in metrics)


def test_the_report_reads_the_table_that_was_used(tmp_path: Path) -> None:
    config = Groups(by="site", file=table(tmp_path, ["a", "b"] * 20))
    config.save_files(tmp_path)
    Path(config.file).unlink()
    kept = config.reading_from(tmp_path)
    assert value(kept.run(faces()), "groups/fmr:a") is not None


def test_people_with_one_image_do_not_count_for_fnmr(tmp_path: Path) -> None:
    """Twelve people in a group, of whom one has two photos: their one genuine pair is too few to tell."""
    judged = faces()
    rows = np.flatnonzero((judged.person % 2 == 0) | (np.arange(200) % 5 == 0) | (judged.person == 1))
    judged = judged.only(rows)
    metrics = {m.name: m for m in Groups(by="site", file=table(tmp_path, ["a", "b"] * 20)).run(judged).metrics}
    few = metrics["groups/fnmr:b"]
    assert few.value is None and few.note == "too few to tell: 1 people with two images, at least 10 are needed"
    assert metrics["groups/fmr:b"].value is not None and metrics["groups/fdr"].value is None


def test_photos_of_which_none_was_measured_make_no_parts() -> None:
    judged = replace(faces(), measured={"light": np.full(200, np.nan)})
    for figure in Groups(by="light").run(judged).metrics:
        assert figure.value is None
        assert figure.note.startswith("'light' has no value among the test photos")


def test_a_template_without_an_image_is_not_measured() -> None:
    """Its measure is no number and not zero, which would be the darkest."""
    judged = faces(4)
    acquired = judged.person != 0
    light = np.where(acquired, 100.0 + np.arange(20), np.nan)
    judged = replace(judged, acquired=acquired, group=np.asarray(["t"] * 20, object), measured={"light": light})
    pooled = judged.pooled()
    assert np.isnan(pooled.measured["light"][0])
    assert pooled.measured["light"][1:].tolist() == [107, 112, 117]
