"""The part-based morphable model: no pixel is a sum of faces, and who lends which part is the nearest who may."""

from __future__ import annotations

import pytest
import torch

from facegan.generation.gans.morphable import Morphable
from facegan.generation.gans.networks.part_based import PartBasedGenerator, part_masks
from facegan.generation.gans.networks.registration import GRID
from facegan.generation.gans.part_based import PartBased

PEOPLE, SHOTS, SIDE = 7, 3, 64


def state(people: int = PEOPLE) -> dict[str, torch.Tensor]:
    """Photos of fine noise, each its own, in the common frame; nothing is displaced."""
    rng = torch.Generator().manual_seed(0)
    count = people * SHOTS
    texture = torch.randint(60, 196, (count, 1, SIDE, SIDE), generator=rng, dtype=torch.uint8)
    controls, light = torch.zeros(count, 2, GRID, GRID), torch.zeros(0, SIDE**2)
    return {
        "texture": texture,
        "controls": controls,
        "light": light,
        "person": torch.arange(people).repeat_interleave(SHOTS),
    }


def loaded(people: int = PEOPLE) -> PartBasedGenerator:
    G = PartBased(sharpen=False).build_generator(people, 1, SIDE)
    G.load_state_dict(state(people))
    assert isinstance(G, PartBasedGenerator)
    return G


def of_photo(G: PartBasedGenerator, *photos: int) -> torch.Tensor:
    """Variation codes of photos: shape and texture."""
    z = torch.zeros(len(photos), 3, len(G.person))
    z[torch.arange(len(photos)), :2, list(photos)] = 1
    return z.flatten(1)


def test_parts_share_out_the_face() -> None:
    for side in (16, 64, 112):
        masks = part_masks(side)
        assert masks.shape == (4, 1, side, side)
        assert (masks.sum(dim=0) == 1).all() and (masks.flatten(1).sum(dim=1) > 0).all()


def test_one_person_alone_is_the_photo_as_morphable_draws_it() -> None:
    G, whole = loaded(), Morphable().build_generator(PEOPLE, 1, SIDE)
    whole.load_state_dict(G.state_dict())
    photos = [0, 4, 20]
    w, z = G.codes()[G.person[photos]], of_photo(G, *photos)
    torch.testing.assert_close(G(w, z), whole(w, z), rtol=0, atol=1e-4)


def test_each_part_is_of_one_photo_and_all_are_of_different_people() -> None:
    G = loaded()
    w = torch.tensor([[0.0, 0.4, 0.0, 0.2, 0.15, 0.15, 0.1]])
    z = of_photo(G, 4)
    (photos,) = G.photos(w, z.chunk(3, dim=1)[1])
    assert photos[0] == 4
    people = G.person[photos].tolist()
    assert len(set(people)) == 4 and set(people) <= {1, 3, 4, 5, 6}
    img = G(w, z)[0, 0]
    texture = G.texture[:, 0].float().div(127.5).sub(1)
    for mask, photo in zip(part_masks(SIDE)[:, 0], photos, strict=True):
        inside = torch.nn.functional.avg_pool2d(mask[None], 7, 1, 3)[0] == 1  # three px from the seam
        alike = torch.stack([torch.corrcoef(torch.stack([img[inside], other[inside]]))[0, 1] for other in texture])
        assert alike.argmax() == photo and alike[photo] > 0.9
        assert alike[torch.arange(len(alike)) != photo].abs().max() < 0.4  # of a sum of two: 0.7


def test_who_lends_a_part_fits_best_to_all_parts_before_it() -> None:
    """Written out: of those with a weight and not taken, the one with the least sum, over the parts before, of the mean
    square distance from the photos of whose part that is; of this one's photos the nearest to the photos before."""
    G = loaded()
    compared, _ = G._comparisons()
    w = torch.tensor([[0.3, 0.0, 0.2, 0.2, 0.1, 0.1, 0.1]])
    (photos,) = G.photos(w, of_photo(G, 2).chunk(3, dim=1)[1])
    rim, eyes, nose, lower = range(4)
    people, taken = {rim: 0}, {rim: 2}
    for part in (eyes, lower, nose):

        def square(one: int, photo: int, other: int, part: int = part) -> float:
            values = compared[min(one, part), max(one, part)]
            return float((values[photo] - values[other]).square().sum())

        def own(person: int) -> range:
            return range(SHOTS * person, SHOTS * (person + 1))

        def misfit(person: int) -> float:
            nearest = (
                [min(square(one, a, b) for b in own(person)) for a in own(other)] for one, other in people.items()
            )
            return sum(sum(values) / SHOTS for values in nearest)

        free = [person for person in (2, 3, 4, 5, 6) if person not in people.values()]
        person = min(free, key=misfit)
        photo = min(own(person), key=lambda b: sum(square(one, a, b) for one, a in taken.items()))
        assert photos[part] == photo
        people[part], taken[part] = person, photo


def test_parts_are_compared_at_their_seam_alone() -> None:
    """A photo with another chin is as far as none from itself, but for the tone of the lower face, of rim and lower."""
    G = loaded()
    values = state()
    values["texture"][1] = values["texture"][0]
    values["texture"][1, 0, 61:63, 30:34] += 60
    G.load_state_dict(values)
    compared, _ = G._comparisons()
    apart = {pair: float((rows[0] - rows[1]).norm()) for pair, rows in compared.items()}
    assert apart.pop((0, 3)) > 0.01
    assert max(apart.values()) < 0.01
    assert all(float((compared[pair][0] - compared[pair][4]).norm()) > 1 for pair in ((0, 1), (1, 2), (1, 3), (2, 3)))


@pytest.mark.parametrize("people", [1, 2, 3])
def test_fewer_people_than_parts_lend_again(people: int) -> None:
    G = loaded(people)
    w = torch.full((1, people), 1 / people)
    (photos,) = G.photos(w, of_photo(G, 0).chunk(3, dim=1)[1])
    assert set(G.person[photos].tolist()) == set(range(people))
    assert G(w, of_photo(G, 0)).isfinite().all()


def test_a_person_of_whom_no_photo_was_kept_lends_nothing_and_stops_nothing() -> None:
    """Of more photos than `max_photos` some people have none left."""
    kept = state()
    rows = kept["person"] != 3
    G = PartBased(sharpen=False).build_generator(PEOPLE, 1, SIDE)
    G.load_state_dict({name: value if name == "light" else value[rows] for name, value in kept.items()})
    mixed, alone = torch.full((1, PEOPLE), 1 / PEOPLE), torch.eye(PEOPLE)[3:4]
    own = of_photo(G, 0).chunk(3, dim=1)[1]
    assert 3 not in G.person[G.photos(mixed, own)[0]].tolist()
    assert G.photos(alone, own).shape == (1, 4)


def test_the_first_of_a_batch_have_the_bits_of_the_whole() -> None:
    G = loaded()
    rng = torch.Generator().manual_seed(0)
    w, z = (torch.randn(12, size, generator=rng) * 0.3 for size in (G.code_dim, G.z_dim))
    whole = G(w, z)
    for count in (1, 5, 11):
        assert torch.equal(G.leading(w, z, count), whole[:count])
