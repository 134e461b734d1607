"""Coordinates without a centre of mass, symmetric pairs, and the product of both."""

import math

import pytest
import torch
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant, Masked, Product, UniformDiscrete
from reed_core.testing import check_bound, check_process
from reed_core.testing.process import exact_prediction
from reed_molecule.condition import Condition
from reed_molecule.process import Centred, Pairs, Symmetric, centre, molecule_process
from reed_molecule.vocabulary import BONDS, Vocabulary

SIZES = (5, 3, 4)
VOCABULARY = Vocabulary(("H", "C", "N", "O"), (-1, 0, 1))
KINDS = [UniformDiscrete(BONDS), UniformDiscrete(BONDS, "flat"), Masked(BONDS, BONDS)]


def atoms(sizes: tuple[int, ...] = SIZES) -> torch.Tensor:
    return torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]


def state(sizes: tuple[int, ...] = SIZES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    b, n = len(sizes), max(sizes)
    mask = atoms(sizes)
    upper = torch.randint(0, BONDS, (b, n, n), generator=generator).triu(1)
    return {
        "coords": centre(torch.randn(b, n, 3, generator=generator), mask),
        "types": torch.randint(0, 4, (b, n), generator=generator),
        "charges": torch.randint(0, 3, (b, n), generator=generator),
        "bonds": upper + upper.transpose(1, 2),
    }


def noise(seed: int = 0, count: int = len(SIZES)) -> NoiseSource:
    return NoiseSource(seed, range(count))


@pytest.mark.parametrize(("discrete", "time_weight"), [("uniform", "flat"), ("masked", "elbo")])
def test_the_product_keeps_the_promises_of_a_process(discrete: str, time_weight: str) -> None:
    process = molecule_process(VOCABULARY, discrete, time_weight=time_weight)
    check_process(process, state(), Condition(atoms()).masks(), count=300)


@pytest.mark.parametrize(("path", "prediction"), [("linear", "v"), ("trig", "x0")])
def test_centred_coordinates_alone(path: str, prediction: str) -> None:
    process = Product({"coords": Centred(path=path, prediction=prediction)})  # type: ignore[arg-type]
    check_process(process, {"coords": state()["coords"]}, {"coords": atoms()}, count=300)


@pytest.mark.parametrize("pairs", KINDS)
def test_symmetric_pairs_alone(pairs: UniformDiscrete | Masked) -> None:
    check_process(Symmetric(pairs), state()["bonds"], Condition(atoms()).pairs, count=300)


def test_the_bound_of_the_product() -> None:
    process = molecule_process(VOCABULARY)
    check_bound(process, state(), Condition(atoms()).masks(), exact=lambda at: exact_prediction(process, at))


def test_everything_is_centred_over_real_atoms() -> None:
    process, mask, x_0 = Centred(), atoms(), state()["coords"].double()
    shifted = torch.where(mask[..., None], x_0 + 3.0, 100.0)
    t = torch.tensor([0.2, 0.5, 0.9])
    at = process.corrupt(shifted, t, noise(), mask)
    x_s = process.step(torch.randn_like(x_0), at.x_t, t, 0.5 * t, noise(1), mask)
    for value in (at.x_0, at.x_t, at.target, process.prior(x_0, noise(), mask), x_s):
        assert value.sum(1).abs().max() < 1e-9
        assert not value[~mask].any()
    torch.testing.assert_close(at.x_0, x_0 * mask[..., None])


def test_what_is_said_of_the_centre_of_mass_is_not_used() -> None:
    process, mask, x_0 = Centred(), atoms(), state()["coords"].double()
    at = process.corrupt(x_0, torch.tensor([0.2, 0.5, 0.9]), noise(), mask)
    said = torch.randn_like(x_0)
    for cost in (process.loss, process.nats, process.reconstruction_nats):
        torch.testing.assert_close(cost(said + 5.0, at), cost(said, at))


def test_nats_count_the_dimensions_of_the_subspace() -> None:
    """In an orthonormal basis of the subspace the process is an ordinary interpolant of n - 1 points."""
    n = 4
    basis = torch.linalg.svd(torch.eye(n, dtype=torch.float64) - 1.0 / n)[0][:, : n - 1]
    torch.testing.assert_close(basis.T @ basis, torch.eye(n - 1, dtype=torch.float64))
    whole, free = Centred(t_max=0.9), Interpolant(t_max=0.9)
    x_0 = centre(torch.randn(2, n, 3, dtype=torch.float64))
    t = torch.full((2,), whole.t_min, dtype=torch.float64)
    at = whole.corrupt(x_0, t, noise(count=2))
    other = type(at)(x_0=basis.T @ x_0, x_t=basis.T @ at.x_t, t=t, target=basis.T @ at.target)
    said = torch.randn_like(x_0)
    torch.testing.assert_close(whole.prior_nats(x_0), free.prior_nats(basis.T @ x_0))
    torch.testing.assert_close(whole.nats(said, at), free.nats(basis.T @ said, other))
    torch.testing.assert_close(whole.loss(said, at), free.loss(basis.T @ said, other))
    torch.testing.assert_close(
        whole.reconstruction_nats(said, at), free.reconstruction_nats(basis.T @ said, other), rtol=1e-9, atol=1e-6
    )


def test_noise_has_unit_variance_in_the_subspace() -> None:
    drawn = Centred().prior(torch.zeros(4000, 3, 3), NoiseSource(0, range(4000)))
    total = drawn.square().sum((1, 2))
    assert abs(float(total.mean()) - 6.0) < 5 * math.sqrt(2 * 6 / 4000)


def test_a_single_atom_has_no_freedom() -> None:
    process, one = molecule_process(VOCABULARY), state((1, 1))
    masks = Condition(atoms((1, 1))).masks()
    at = process.corrupt(one, torch.tensor([0.3, 0.6]), noise(count=2), masks)
    assert not at.x_t["coords"].any()
    said = exact_prediction(process, at)
    said = {**said, "coords": torch.ones(2, 1, 3), "bonds": torch.randn(2, 1, 1, BONDS)}
    for cost in (process.loss, process.nats):
        assert torch.allclose(cost(said, at), torch.zeros(2), atol=1e-5)
    assert Centred().prior_nats(one["coords"], masks["coords"]).abs().max() < 1e-6


@pytest.mark.parametrize("pairs", KINDS)
def test_pairs_are_drawn_once_and_the_diagonal_is_left_alone(pairs: UniformDiscrete | Masked) -> None:
    process, bonds, mask = Symmetric(pairs), state()["bonds"], Condition(atoms()).pairs
    marked = bonds + 3 * torch.eye(5, dtype=torch.long)
    t = torch.full((3,), 0.7)
    at = process.corrupt(marked, t, noise(), mask)
    x_s = process.step(torch.randn(3, 5, 5, BONDS), at.x_t, t, 0.5 * t, noise(1), mask)
    for value in (at.x_t, x_s):
        assert torch.equal(value, value.transpose(1, 2))
        assert (value.diagonal(dim1=1, dim2=2) == 3).all()
    assert not process.prior(marked, noise(), mask).diagonal(dim1=1, dim2=2).any()


def test_nats_of_pairs_are_those_of_the_list() -> None:
    """Against a slow reference: a loop over pairs i < j, each an element of the process of one pair."""
    pairs = UniformDiscrete(BONDS)
    process, bonds, mask = Symmetric(pairs), state()["bonds"], Condition(atoms()).pairs
    at = process.corrupt(bonds, torch.tensor([0.3, 0.6, 0.9]), noise(), mask)
    logits = torch.randn(3, 5, 5, BONDS, dtype=torch.float64)
    logits = logits + logits.transpose(1, 2)
    found = process.nats(logits, at)
    for sample, size in enumerate(SIZES):
        total, one = torch.zeros(1, dtype=torch.float64), slice(sample, sample + 1)
        for j in range(size):
            for i in range(j):
                part = type(at)(x_0=at.x_0[one, i, j], x_t=at.x_t[one, i, j], t=at.t[one], target=at.x_0[one, i, j])
                total = total + pairs.nats(logits[one, i, j], part)
        torch.testing.assert_close(found[one], total)


def test_nothing_depends_on_the_order_of_atoms() -> None:
    process, mask = molecule_process(VOCABULARY), Condition(atoms((5, 5, 5))).masks()
    at = process.corrupt(state((5, 5, 5)), torch.tensor([0.3, 0.6, 0.9]), noise(), mask)
    said = {
        "coords": torch.randn(3, 5, 3),
        "types": torch.randn(3, 5, 4),
        "charges": torch.randn(3, 5, 3),
        "bonds": torch.randn(3, 5, 5, BONDS),
    }
    order = torch.randperm(5)

    def turn(fields: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {k: v[:, order][:, :, order] if k == "bonds" else v[:, order] for k, v in fields.items()}

    parts = {}
    for name, part in at.parts.items():
        moved = turn({name: part.x_0})[name], turn({name: part.x_t})[name], turn({name: part.target})[name]
        parts[name] = type(at)(x_0=moved[0], x_t=moved[1], t=part.t, target=moved[2], mask=part.mask)
    again = type(at)(x_0=turn(at.x_0), x_t=turn(at.x_t), t=at.t, target=turn(at.target), mask=mask, parts=parts)
    for cost in (process.loss, process.nats):
        torch.testing.assert_close(cost(turn(said), again), cost(said, at), rtol=1e-4, atol=1e-4)


def test_pairs_of_fewer_atoms_come_first() -> None:
    few, many = (Pairs.of(count, torch.device("cpu")) for count in (4, 7))
    assert torch.equal(many.first[: len(few.first)], few.first)
    assert torch.equal(many.second[: len(few.second)], few.second)
    assert (many.first < many.second).all()
