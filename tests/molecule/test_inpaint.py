"""The chain with a given part: what is given stays, the frame is right, and the forward kernel composes."""

import pytest
import torch
from generation_cases import tiny
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.sample import ancestral
from reed_molecule.condition import Condition
from reed_molecule.inpaint import Given, chain, renoised
from reed_molecule.model import Remembering
from reed_molecule.part import placed
from reed_molecule.process import centre, molecule_process
from reed_molecule.sample import sample
from reed_molecule.vocabulary import QM9


def state(mask: torch.Tensor) -> dict[str, torch.Tensor]:
    b, n = mask.shape
    whole = torch.zeros(b, n, dtype=torch.long)
    bonds = torch.zeros(b, n, n, dtype=torch.long)
    return {"coords": torch.zeros(b, n, 3), "types": whole, "charges": whole, "bonds": bonds}


def some_given() -> Given:
    bonds = torch.tensor([[0, 1, 0], [1, 0, 2], [0, 2, 0]])
    return Given(
        types=torch.tensor([1, 1, 3]),
        coords=torch.tensor([[0.0, 0, 0], [1.0, 0.2, 0], [1.4, 1.1, 0.3]]),
        charges=torch.tensor([1, 2, 0]),
        bonds=bonds,
        closed=torch.tensor([False, True, True]),
    )


def test_without_a_given_part_it_is_ancestral_sampling() -> None:
    model = tiny()
    told = Condition(torch.tensor([[True] * 5, [True] * 4 + [False]]))
    like, masks, process = state(told.mask), told.masks(), model.process
    x = process.prior(like, NoiseSource(0, range(2)), masks)
    with torch.no_grad():
        one = chain(process, Remembering(model), x, 6, NoiseSource(1, range(2)), told)
        two = ancestral(process, Remembering(model), x, 6, NoiseSource(1, range(2)), told, masks)
    for name, value in two.items():
        assert torch.equal(one[name], value)


@pytest.mark.parametrize("discrete", ["uniform", "masked"])
@pytest.mark.parametrize("resample", [1, 2])
@pytest.mark.parametrize("parts", [False, True])
def test_what_is_given_stays(discrete: str, resample: int, parts: bool) -> None:
    model, given = tiny(discrete=discrete, parts=parts), some_given()
    seen: list[float] = []

    def watch(numbers: tuple[int, ...], time: float, x: dict) -> None:
        seen.append(time)
        centred = x["coords"].sum(1).abs().max()
        assert centred < 1e-4

    drawn = sample(model, sizes=[6, 7, 9], steps=5, given=given, resample=resample, watch=watch)
    assert sorted(number for batch in drawn for number in batch.numbers) == [0, 1, 2]
    assert len(seen) == len(drawn) * (4 * resample + 1)
    for batch in drawn:
        x = batch.state
        assert (x["types"][:, :3] == given.types).all()
        assert (x["charges"][:, :3] == given.charges).all()
        assert (x["bonds"][:, :3, :3] == given.bonds).all()
        assert not x["bonds"][:, 1:3, 3:].any()
        assert not x["bonds"][:, 3:, 1:3].any()
        inner = centre(x["coords"][:, :3])
        assert torch.allclose(inner, centre(given.coords[None]).expand_as(inner), atol=1e-5)
        assert x["coords"].sum(1).abs().max() < 1e-4


def test_a_sample_with_a_given_part_is_the_same_in_any_batch() -> None:
    model, given = tiny().double(), some_given()
    together = sample(model, sizes=[8, 9, 8], steps=4, seed=5, given=given, resample=2)
    for number, size in enumerate([8, 9, 8]):
        alone = sample(model, sizes=[size], steps=4, seed=5, given=given, resample=2, first=number)[0]
        batch = next(batch for batch in together if number in batch.numbers)
        row = batch.numbers.index(number)
        torch.testing.assert_close(batch.state["coords"][row, :size], alone.state["coords"][0])
        assert torch.equal(batch.state["bonds"][row, :size, :size], alone.state["bonds"][0])


def test_types_alone_can_be_given() -> None:
    given = Given(torch.tensor([0, 0, 1, 2, 3]))
    for batch in sample(tiny(), sizes=[5, 5], steps=4, given=given):
        assert (batch.state["types"] == given.types).all()
    with pytest.raises(InputError, match="5 atoms are given"):
        sample(tiny(), sizes=[4], steps=2, given=given)


def test_placing_moves_nothing_else() -> None:
    torch.manual_seed(0)
    known = torch.tensor([[True, True, False, False]])
    free, wanted = centre(torch.randn(1, 4, 3)), torch.randn(1, 4, 3)
    out = placed(free, wanted, known)
    assert torch.equal(out[:, 2:], free[:, 2:])
    assert torch.allclose(out.sum(1), free.sum(1), atol=1e-6)
    assert torch.allclose(out[:, 0] - out[:, 1], wanted[:, 0] - wanted[:, 1], atol=1e-6)
    assert torch.equal(placed(free, wanted, torch.zeros_like(known)), free)


@pytest.mark.parametrize("discrete", ["uniform", "masked"])
def test_the_forward_kernel_composes(discrete: str) -> None:
    """q(x_s | x_0) followed by q(x_t | x_s) is q(x_t | x_0), in mean, spread and token frequencies."""
    b, s, t = 3000, 0.3, 0.7
    process = molecule_process(QM9, discrete)
    told = Condition(torch.ones(b, 2, dtype=torch.bool))
    x_0 = state(told.mask)
    x_0["coords"][:, 0, 0], x_0["coords"][:, 1, 0] = 1.0, -1.0
    masks = told.masks()
    x_s = process.corrupt(x_0, torch.full((b,), s), NoiseSource(0, range(b)), masks).x_t
    through = renoised(process, x_s, s, t, NoiseSource(1, range(b)), masks)
    direct = process.corrupt(x_0, torch.full((b,), t), NoiseSource(2, range(b)), masks).x_t
    first, second = (x["coords"][:, 0] for x in (through, direct))
    assert first.mean(0) == pytest.approx(second.mean(0), abs=0.06)
    assert first.std(0) == pytest.approx(second.std(0), abs=0.05)
    for name in ("types", "bonds"):
        kept = [(x[name].flatten(1)[:, 1] == 0).float().mean().item() for x in (through, direct)]
        assert kept[0] == pytest.approx(kept[1], abs=0.05)
    assert torch.equal(through["bonds"], through["bonds"].transpose(1, 2))


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="resample"):
        sample(tiny(), sizes=[4], steps=2, resample=0)
