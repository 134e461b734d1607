"""Samples: sizes, streams, form, and what is asked of the caller."""

from collections import Counter

import pytest
import torch
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_molecule.condition import Condition
from reed_molecule.inpaint import tempered
from reed_molecule.model import ModelConfig, MoleculeModel, Remembering, new_config
from reed_molecule.network import NetworkConfig
from reed_molecule.process import BONDS
from reed_molecule.sample import MOST_PADDED, MOST_PAIRS, MOST_SAMPLES, Drawn, sample
from reed_molecule.vocabulary import QM9

TINY = NetworkConfig(width=16, vectors=4, pairs=8, blocks=2, heads=2, radial=6)


def model(discrete: str = "uniform", counts: tuple[int, ...] = (3, 3, 3, 5)) -> MoleculeModel:
    torch.manual_seed(0)
    made = new_config(QM9, 1.7, counts, TINY, discrete)  # type: ignore[arg-type]
    assert isinstance(made, ModelConfig)
    return MoleculeModel(made).double().eval()


def alone(batches: list[Drawn], number: int) -> dict[str, torch.Tensor]:
    """One sample without its padding."""
    for batch in batches:
        if number in batch.numbers:
            row = batch.numbers.index(number)
            n = int(batch.mask["types"][row].sum())
            return {k: v[row, :n, :n] if k == "bonds" else v[row, :n] for k, v in batch.state.items()}
    raise AssertionError(f"no sample {number}")


@pytest.mark.parametrize("discrete", ["uniform", "masked"])
def test_samples_are_states(discrete: str) -> None:
    seen: list[int] = []
    drawn = sample(model(discrete), 12, steps=4, seed=2, progress=seen.append)
    assert sum(seen) == 12
    assert sorted(number for batch in drawn for number in batch.numbers) == list(range(12))
    for batch in drawn:
        assert set(batch.mask["types"].sum(1).tolist()) <= {3, 5}
        assert batch.state["coords"].sum(1).abs().max() < 1e-9
        assert batch.state["types"].max() < 5
        assert batch.state["charges"].max() < 3
        assert batch.state["bonds"].max() < BONDS
        assert torch.equal(batch.state["bonds"], batch.state["bonds"].transpose(1, 2))
        for name, mask in batch.mask.items():
            assert not batch.state[name][~mask].any()


def test_a_sample_is_the_same_in_any_batch() -> None:
    net, sizes = model(), [9, 10, 1, 9]
    together = sample(net, sizes=sizes, steps=5, seed=3)
    assert [batch.numbers for batch in together] == [(2,), (0, 3, 1)]
    for number, size in enumerate(sizes):
        single = alone(sample(net, sizes=[size], steps=5, seed=3, first=number), number)
        for name, value in alone(together, number).items():
            torch.testing.assert_close(single[name], value)


def test_seeds_and_numbers_differ() -> None:
    net = model()
    one, two = (alone(sample(net, sizes=[4], steps=3, seed=seed), 0)["coords"] for seed in (0, 1))
    other = alone(sample(net, sizes=[4], steps=3, seed=0, first=1), 1)["coords"]
    assert (one - two).abs().max() > 1e-3
    assert (one - other).abs().max() > 1e-3


def test_sizes_follow_the_histogram() -> None:
    net = model(counts=(2,) * 7 + (6,) * 3)
    counts = Counter(net.draw_sizes(range(4000), 0))
    assert set(counts) == {2, 6}
    assert abs(counts[6] / 4000 - 0.3) < 5 * (0.21 / 4000) ** 0.5
    assert net.draw_sizes([7, 8], 0) == net.draw_sizes(range(10), 0)[7:9]
    assert net.draw_sizes([], 0) == []


def test_batches_are_bounded() -> None:
    net = model()
    drawn = sample(net, sizes=[2] * (MOST_SAMPLES + 5) + [4, 5, 6] + [120] * 6, steps=1)
    for batch in drawn:
        b, n = batch.mask["types"].shape
        assert b <= MOST_SAMPLES
        assert b == 1 or b * n * n <= MOST_PAIRS
        assert n * n <= MOST_PADDED * int(batch.mask["types"].sum(1).min()) ** 2


@pytest.mark.parametrize("wrong", [{}, {"count": 2, "sizes": [3]}, {"count": -1}, {"sizes": [0]}])
def test_requests_are_checked(wrong: dict) -> None:
    with pytest.raises(InputError, match=r"number|atoms"):
        sample(model(), **wrong)


def test_nothing_can_be_drawn() -> None:
    assert sample(model(), 0) == []


def test_a_temperature_is_of_the_discrete_fields() -> None:
    net = model()
    told, whole = Condition(torch.ones(2, 4, dtype=torch.bool)), torch.zeros(2, 4, dtype=torch.long)
    like = {"coords": torch.zeros(2, 4, 3, dtype=torch.float64), "types": whole, "charges": whole}
    like["bonds"] = torch.zeros(2, 4, 4, dtype=torch.long)
    x = net.process.prior(like, NoiseSource(0, range(2)), told.masks())
    with torch.no_grad():
        said = net(x, torch.full((2,), 0.5, dtype=torch.float64), told)
    cold = tempered(net.process, said, 0.5)
    assert torch.equal(cold["coords"], said["coords"])
    for name in ("types", "charges", "bonds"):
        squared = said[name].softmax(-1) ** 2
        torch.testing.assert_close(cold[name].softmax(-1), squared / squared.sum(-1, keepdim=True))
    sizes = [4, 4]
    warm, same, other = (sample(net, sizes=sizes, steps=4, temperature=value)[0].state for value in (1.0, 1.0, 0.05))
    assert torch.equal(warm["coords"], same["coords"])
    assert not torch.equal(warm["coords"], other["coords"])
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="temperature"):
            sample(net, sizes=sizes, steps=4, temperature=wrong)


def test_what_is_remembered_is_the_clean_molecule() -> None:
    """The guess is the velocity from the state at hand to the clean molecule of the last prediction."""
    told, seen = Condition(torch.ones(1, 3, dtype=torch.bool)), []

    def forward(x_t: dict, t: torch.Tensor, c: Condition | None, guess: dict | None) -> dict:
        seen.append(guess)
        return {"coords": torch.ones(1, 3, 3), "types": torch.zeros(1, 3, 5)}

    net = model()
    net.forward = forward  # type: ignore[method-assign]
    remembering = Remembering(net)
    first, second = torch.randn(1, 3, 3), torch.randn(1, 3, 3)
    remembering({"coords": first}, torch.tensor([0.8]), told)
    remembering({"coords": second}, torch.tensor([0.5]), told)
    assert seen[0] is None
    clean = first - first.mean(1, keepdim=True) - 0.8
    torch.testing.assert_close(second - second.mean(1, keepdim=True) - 0.5 * seen[1]["coords"], clean)
