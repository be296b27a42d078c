"""Translation: its terms against written-out ones, the two domains, what it learns, kill -9, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from drawn import RUNTIME, draw_face
from facegan.core.errors import UserError
from facegan.generation.augmenters import AUGMENTERS
from facegan.generation.augmenters._translate import TranslateConfig
from facegan.generation.train_photos import TrainPhotos
from facegan.generation.translation import training
from facegan.generation.translation.domains import split
from facegan.generation.translation.network import Translator, load_translator
from facegan.generation.translation.ties import Cycle, PatchNCE, patch_nce
from facegan.runtime.context import Context
from facegan.training.checkpoints import Checkpoints
from kills import kill, kills_itself

SIDE = 32
KINDS = ["cut", "cyclegan"]
SMALL: dict[str, Any] = {"channels": 4, "kimg": 0.032, "batch_size": 4, "checkpoint_kimg": 0.008, "least_photos": 4}


def translate(kind: str, **options: Any) -> TranslateConfig:
    member: TranslateConfig = AUGMENTERS.get(kind)(**{**SMALL, **options})
    return member


def photos(people: int = 4, shots: int = 4, channels: int = 1, first: int = 0, group: Any = None) -> TrainPhotos:
    """Drawn faces: every second photo of a person has half the light."""
    who = range(first, first + people)
    grey = np.stack([draw_face(person, shot, SIDE, SIDE) for person in who for shot in range(shots)])
    light = np.where(np.arange(len(grey)) % 2, 0.5, 1)[:, None, None, None]
    tint = np.asarray([1, 0.8, 0.6])[:channels]
    person, names = np.repeat(np.arange(people), shots), [f"d{n % 2}/p{n}" for n in range(people)]
    given = None if group is None else np.asarray(group, object)
    return TrainPhotos((grey[..., None] * light * tint).astype(np.uint8), person, names, given)


def trained(member: TranslateConfig, which: TrainPhotos, out: Path) -> TranslateConfig:
    (out / "work").mkdir(parents=True, exist_ok=True)
    member.train(which, None, ["x"], out, Context(RUNTIME))
    read: TranslateConfig = member.reading_from(out)
    return read


def moving(channels: int = 3) -> tuple[Translator, list[torch.Tensor]]:
    """Networks that change photos, which they do not at first, and a batch of each domain."""
    torch.manual_seed(0)
    nets = Translator(channels, SIDE, channels=4)
    for domain in (0, 1):
        torch.nn.init.normal_(nets.into(domain).change.end.weight, 0, 0.1)
    return nets, [torch.rand(2, channels, SIDE, SIDE) * 2 - 1 for _ in range(2)]


# The terms.


def test_patch_nce_is_the_formula_written_out() -> None:
    """Park et al. 2020, equations 2 and 3: a loop over photos, places and the other places."""
    rng = np.random.default_rng(0)
    v, k = (x / np.linalg.norm(x, axis=2, keepdims=True) for x in rng.normal(size=(2, 3, 5, 4)))
    losses = []
    for photo in range(3):
        for s in range(5):
            own = np.exp(v[photo, s] @ k[photo, s] / 0.07)
            others = sum(np.exp(v[photo, s] @ k[photo, n] / 0.07) for n in range(5) if n != s)
            losses.append(-np.log(own / (own + others)))
    queries, keys = (torch.tensor(x, requires_grad=True) for x in (v, k))
    loss = patch_nce(queries, keys)
    assert float(loss.detach()) == pytest.approx(np.mean(losses), rel=1e-5)
    loss.backward()
    assert queries.grad is not None and queries.grad.abs().sum() > 0 and keys.grad is None


def test_the_patch_term_is_that_of_each_map_of_the_way_down() -> None:
    """All places are taken, so that no order matters; the maps are caught on their way through the whole U-net."""
    nets, real = moving()
    tie = PatchNCE(nets.into(0).change.widths, nce=2.0, identity=0.5, patches=SIDE**2, dim=8)
    for weight in tie.parameters():
        torch.nn.init.normal_(weight)
    terms = {name: float(term.detach()) for name, term in tie(nets, real, nets(real)).items()}

    @torch.no_grad()
    def written_out(domain: int, made: torch.Tensor, given: torch.Tensor) -> float:
        unet, caught = nets.into(domain).change, []
        hooks = [m.register_forward_hook(lambda m, i, o: caught.append(o)) for m in (unet.begin, *unet.inner)]
        unet(made), unet(given)
        for hook in hooks:
            hook.remove()
        losses = []
        for level, (asked, held) in enumerate(zip(caught[:4], caught[4:], strict=True)):
            first, _, last = tie.heads[2 * level + domain]
            for a, h in zip(asked, held, strict=True):
                q, k = (
                    (torch.relu(x.reshape(len(x), -1).T @ first.weight.T + first.bias) @ last.weight.T + last.bias)
                    for x in (a, h)
                )
                q, k = (x / x.norm(dim=1, keepdim=True) for x in (q, k))
                e = torch.exp((q @ k.T).double() / 0.07)
                losses.append(float(-torch.log(e.diagonal() / e.sum(dim=1)).mean()))
        return float(np.mean(losses))

    made = nets(real)
    assert terms["nce"] == pytest.approx(2 * sum(written_out(d, made[d], real[1 - d]) for d in (0, 1)), rel=1e-4)
    stayed = sum(written_out(d, nets.into(d)(real[d]), real[d]) for d in (0, 1))
    assert terms["identity"] == pytest.approx(0.5 * stayed, rel=1e-4)
    assert abs(terms["nce"] / 2 - stayed) > 0.001 * stayed, "the two could be told apart"
    assert list(PatchNCE([4], nce=1, identity=0, patches=2, dim=2).state_dict()), "what it learns is in checkpoints"


def test_the_cycle_is_the_formula_written_out() -> None:
    """Zhu et al. 2017, equation 2, and section 5.2: |F(G(x)) - x| + |G(F(y)) - y| and |G(y) - y| + |F(x) - x|."""
    nets, (x, y) = moving()
    F, G = nets.into(0), nets.into(1)
    terms = Cycle(10.0, 5.0)(nets, [x, y], nets([x, y]))

    def l1(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(np.abs(a.detach().numpy() - b.numpy()).mean())

    assert float(terms["cycle"].detach()) == pytest.approx(10 * (l1(F(G(x)), x) + l1(G(F(y)), y)), rel=1e-4)
    assert float(terms["identity"].detach()) == pytest.approx(5 * (l1(G(y), y) + l1(F(x), x)), rel=1e-4)
    assert l1(F(G(x)), x) > 0.01 and Cycle(1.0, 0.0)(nets, [x, y], nets([x, y])).keys() == {"cycle"}


# The domains.


def test_ends_of_a_measure() -> None:
    given = photos()
    halves, ends = (split(translate("cut", part=part, least_photos=2), given) for part in (0.5, 0.25))
    grey = given.pixels[:, 4:28, 4:28, 0].mean(axis=(1, 2))  # the inner three quarters
    assert halves.names == ("dark", "bright") and np.bincount(halves.of).tolist() == [8, 8]
    assert grey[halves.rows(0)].max() < grey[halves.rows(1)].min()
    assert np.bincount(ends.of + 1).tolist() == [8, 4, 4]
    assert set(ends.rows(0)) == set(np.argsort(grey)[:4]) and set(ends.rows(1)) == set(np.argsort(grey)[-4:])


def test_grey_and_colour() -> None:
    pixels = photos(channels=3).pixels.copy()
    pixels[:6] = pixels[:6, :, :, :1]
    some = TrainPhotos(pixels, np.zeros(16, int), ["d/p"])
    found = split(translate("cyclegan", by="colour"), some)
    assert found.names == ("grey", "colour") and found.of.tolist() == [0] * 6 + [1] * 10
    with pytest.raises(UserError, match="each of the 16 train photos is grey"):
        split(translate("cut", by="colour"), photos())
    with pytest.raises(UserError, match="each of the 16 train photos is colour"):
        split(translate("cut", by="colour"), photos(channels=3))


def test_values_of_a_column() -> None:
    group = ["nir"] * 5 + [""] * 4 + ["visible"] * 7
    found = split(translate("cut", by="group"), photos(group=group))
    assert found.names == ("nir", "visible") and found.of.tolist() == [0] * 5 + [-1] * 4 + [1] * 7
    other = split(translate("cut", by="group", domains=("visible", "nir")), photos(group=group))
    assert other.names == ("visible", "nir") and other.of.tolist() == [1] * 5 + [-1] * 4 + [0] * 7
    assert split(translate("cut", by="dataset"), photos()).of.tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("options", "group", "words"),
    [
        ({"by": "group"}, None, "between two values of `group`, and the train photos have 0: none"),
        ({"by": "group"}, ["a"] * 16, r"have 1: 'a' \(16 photos\)"),
        ({"by": "group"}, ["a", "b", "c", "d"] * 4, r"have 4: 'a' \(4 photos\), 'b'"),
        ({"by": "group", "domains": ("a", "x")}, ["a", "b"] * 8, "no train photo has the value 'x'"),
        ({"by": "group"}, ["a"] * 13 + ["b"] * 3, r"'a' \(13 photos\) and 'b' \(3\): each takes 4, and .* 16 train"),
        ({"least_photos": 9}, None, r"'dark' \(8 photos\) and 'bright' \(8\): each takes 9"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_pair_of_domains_is_refused_before_anything_is_trained(
    kind: str, options: dict[str, Any], group: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        translate(kind, **options).train(photos(group=group), None, [], tmp_path, Context(RUNTIME))
    assert not list(tmp_path.iterdir())


def test_photos_that_are_all_alike_and_odd_options_are_refused(tmp_path: Path) -> None:
    same = TrainPhotos(np.repeat(photos().pixels[:1], 9, axis=0), np.zeros(9, int), ["d/p"])
    with pytest.raises(UserError, match="each of the 9 train photos has one light"):
        split(translate("cut"), same)
    with pytest.raises(ValidationError, match="`by` is light, which has none"):
        translate("cut", domains=("a", "b"))
    with pytest.raises(ValidationError, match="'a' is one domain"):
        translate("cut", by="group", domains=("a", "a"))
    with pytest.raises(ValidationError, match="per_photo"):
        translate("cut", per_photo=2)
    odd = TrainPhotos(photos().pixels[:, :28, :28], np.zeros(16, int), ["d/p"])
    with pytest.raises(UserError, match="photos of 28 px cannot be halved"):
        trained(translate("cut"), odd, tmp_path)
    with pytest.raises(UserError, match="no translator in"):
        load_translator(tmp_path / "nothing")


# The training.


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), [("cut", {"kimg": 0.6}), ("cyclegan", {"kimg": 0.4})])
def test_new_people_in_other_light_are_drawn_as_they_are(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Dark photos have a quarter of the light that they lacked, bright ones lost as much; each is still itself."""
    member = translate(kind, identity=0, channels=8, batch_size=8, checkpoint_kimg=2, **options)
    trained(member, photos(12, 4), tmp_path)
    nets, others = load_translator(tmp_path), photos(8, 2, first=50)
    bright, dark = others.pixels[::2].astype(float), others.pixels[1::2].astype(float)
    drawn = np.stack([nets.into(1).changed(photo) for photo in others.pixels[1::2]]).astype(float)
    back = np.stack([nets.into(0).changed(photo) for photo in others.pixels[::2]]).astype(float)
    gap = bright.mean() - dark.mean()
    assert drawn.mean() - dark.mean() > gap / 4 and bright.mean() - back.mean() > gap / 4

    def alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        rows = [(x - x.mean(axis=0)).reshape(len(x), -1) for x in (one, other)]
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows)
        return np.asarray(a @ b.T)

    for made, given in ((drawn, dark), (back, bright)):
        assert (alike(made, given).argmax(axis=1) == np.arange(8)).mean() > 0.8
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert {"d_0", "d_1", "r1_0", "adversarial_1"} <= curve[0].keys()


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_a_step_it_ends_with_the_same_bytes(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    member, whole, cut = translate(kind), tmp_path / "whole", tmp_path / "cut"
    trained(member, photos(), whole)
    done, step = 0, training.update_ema

    def at_the_fifth(*args: Any, **kwargs: Any) -> None:
        nonlocal done
        done += 1
        if done == 5:
            kill()
        step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training, "update_ema", at_the_fifth)
        kills_itself(lambda: trained(member, photos(), cut))
    assert not (cut / "translator.safetensors").exists() and Checkpoints(cut / "work").load_latest()[0] == 16  # type: ignore[index]
    trained(member, photos(), cut)
    for name in ("translator.safetensors", "translator.json", "curve.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_photos_as_of_the_other_domain(kind: str, tmp_path: Path) -> None:
    given = photos(group=["a"] * 6 + [""] * 4 + ["b"] * 6)
    member = trained(translate(kind, by="group"), given, tmp_path)
    made = list(member.images(given, range(16)))
    assert [image.change is None for image in made] == [False] * 6 + [True] * 4 + [False] * 6
    nets, again = load_translator(tmp_path), list(member.images(given, [12, 2]))
    for image, domain in zip(again, (0, 1), strict=True):
        wanted = nets.into(domain).changed(given.pixels[image.photo])
        for row in (image, made[image.photo]):
            assert row.change is not None and np.array_equal(row.change.pixels, wanted)
    assert not np.array_equal(wanted, given.pixels[2])
    assert json.loads((tmp_path / "translator.json").read_text())["domains"] == ["a", "b"]
    with pytest.raises(ValueError, match="has not been trained"):
        next(iter(translate(kind, by="group").images(given, [0])))
