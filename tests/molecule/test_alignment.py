"""Noise aligned to molecules: optimal, proper, local to each molecule, and the same prior; training and the flow."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from molecule.molecule_sets import make_set
from pydantic import ValidationError
from reed_core.bound.evaluate import evaluate_bound
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Product
from reed_core.sample import ancestral
from reed_core.train import Batch
from reed_molecule.alignment import Aligned, Alignment, aligned, aligned_noise, aligned_points, rotation
from reed_molecule.condition import Condition
from reed_molecule.flow import Flowing, Sampler, sampled_by, sampler_for
from reed_molecule.model import MoleculeModel
from reed_molecule.network import NetworkConfig
from reed_molecule.process import Centred, centre, molecule_process
from reed_molecule.recipe import Recipe
from reed_molecule.sample import sample
from reed_molecule.training import run_recipe, train, training_data
from reed_molecule.vocabulary import QM9
from scipy.spatial.transform import Rotation

TINY = NetworkConfig(width=16, vectors=4, pairs=8, blocks=2, heads=2, radial=6)
SAMPLING: tuple[Sampler | None, ...] = (None, "flow", "ancestral")
ALIGNED: tuple[Alignment, ...] = ("rotation", "transport")


def points(seed: int, n: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((n, 3))
    return drawn - drawn.mean(0)


def line(n: int) -> np.ndarray:
    return np.outer(np.arange(n) - (n - 1) / 2, [1.0, 2.0, -1.0])


def cost(noise: np.ndarray, data: np.ndarray) -> float:
    return float(np.square(noise - data).sum())


MADE = {
    "one": np.zeros((1, 3)),
    "two": line(2),
    "line": line(5),
    "flat": points(1, 6) * [1, 1, 0],
    "seven": points(2, 7),
}


@pytest.mark.parametrize("data", MADE.values(), ids=MADE)
@pytest.mark.parametrize("alignment", ALIGNED)
def test_alignment_never_moves_away_and_only_moves(data: np.ndarray, alignment: Alignment) -> None:
    for seed in range(20):
        noise = points(seed, len(data))
        for start in (noise, data.copy(), -data, np.zeros_like(data)):
            found = aligned_points(start, data, alignment)
            assert cost(found, data) <= cost(start, data) * (1 + 1e-12) + 1e-12
            again = aligned_points(start, data, alignment, repeats=3)
            assert cost(again, data) <= cost(found, data) * (1 + 1e-12) + 1e-12
            apart = [np.sort(np.linalg.norm(one[:, None] - one[None], axis=-1), axis=None) for one in (start, found)]
            np.testing.assert_allclose(apart[1], apart[0], atol=1e-12)
            np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
    assert aligned_points(noise, data, "none") is noise


@pytest.mark.parametrize("data", MADE.values(), ids=MADE)
@pytest.mark.filterwarnings("ignore:Optimal rotation is not uniquely")  # of a line, many are the best
def test_rotations_are_proper_and_the_best(data: np.ndarray) -> None:
    for seed in range(20):
        for noise in (points(seed, len(data)), -data):  # -data lies nearest by a reflection
            turn = rotation(noise, data)
            np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
            assert np.linalg.det(turn) == pytest.approx(1.0)
            if len(data) > 2:
                best = Rotation.align_vectors(data, noise)[0].apply(noise)
                assert cost(noise @ turn.T, data) == pytest.approx(cost(best, data), rel=1e-6, abs=1e-6)
    two = line(2)
    turned = points(3, 2) @ rotation(points(3, 2), two).T  # two points can lie on the line of the data
    np.testing.assert_allclose(np.cross(turned[0], two[0]), 0, atol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_transport_is_the_best_of_all_orders_and_then_of_all_turns(n: int) -> None:
    for seed in range(8):
        data, noise = points(seed, n), points(seed + 50, n)
        best = min((noise[list(order)] for order in permutations(range(n))), key=lambda one: cost(one, data))
        expected = cost(aligned_points(best, data, "rotation"), data)
        assert cost(aligned_points(noise, data, "transport"), data) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("data", MADE.values(), ids=MADE)
@pytest.mark.parametrize("alignment", ALIGNED)
def test_alignment_turns_and_reorders_with_the_molecule(data: np.ndarray, alignment: Alignment) -> None:
    noise, turn = points(9, len(data)), Rotation.random(random_state=4).as_matrix()
    found = aligned_points(noise, data, alignment)
    np.testing.assert_allclose(aligned_points(noise @ turn.T, data @ turn.T, alignment), found @ turn.T, atol=1e-9)
    order = np.random.default_rng(0).permutation(len(data))
    np.testing.assert_allclose(aligned_points(noise[order], data[order], alignment), found[order], atol=1e-9)
    if alignment == "transport":  # the order of the noise does not matter
        np.testing.assert_allclose(aligned_points(noise[order], data, alignment), found, atol=1e-9)


@pytest.mark.parametrize("alignment", ALIGNED)
def test_the_marginal_of_aligned_noise_is_the_prior(alignment: Alignment) -> None:
    """Over turns and orders of one molecule: the moments of N(0, P), three points about their centre."""
    b, random = 2500, np.random.default_rng(0)
    data = np.array([[1.0, 0.0, 0.0], [-0.5, 1.0, 0.0], [-0.5, -1.0, 0.0]])
    turns = Rotation.random(b, random_state=1).as_matrix()
    shown = np.stack([data[random.permutation(3)] @ turn.T for turn in turns])
    noise = centre(NoiseSource(0, range(b)).normal((3, 3)).double())
    found = aligned_noise(noise, torch.from_numpy(shown), None, alignment).flatten(1)
    expected = torch.kron(torch.eye(3, dtype=torch.float64) - 1 / 3, torch.eye(3, dtype=torch.float64))
    assert found.mean(0).abs().max() < 5 * (1 / b) ** 0.5
    assert (found.T @ found / b - expected).abs().max() < 5 * (2 / b) ** 0.5
    assert (found.pow(4).mean(0) / 3 - (2 / 3) ** 2).abs().max() < 5 * (96 / 9 / b) ** 0.5 * (2 / 3) ** 2
    assert (noise.flatten(1) - found).square().mean() > 0.1


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Molecules of 1, 2, 5 (on a line) and 7 atoms, padded."""
    chosen = [MADE["one"], MADE["two"], MADE["line"], MADE["seven"]]
    n = max(map(len, chosen))
    mask = torch.tensor([[place < len(one) for place in range(n)] for one in chosen])
    coords = torch.zeros(4, n, 3, dtype=torch.float64)
    for row, one in enumerate(chosen):
        coords[row, : len(one)] = torch.from_numpy(one)
    whole = torch.ones(4, n, dtype=torch.long)
    return {"coords": coords, "types": whole, "charges": whole, "bonds": torch.zeros(4, n, n, dtype=torch.long)}, mask


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
def test_corruption_keeps_its_path_and_touches_no_other_field(prediction: str) -> None:
    x_0, mask = batch()
    masks, t = Condition(mask).masks(), torch.tensor([0.1, 0.4, 0.7, 0.9])
    plain = molecule_process(QM9)
    plain = replace(plain, fields={**plain.fields, "coords": Centred(prediction=prediction)})  # type: ignore[arg-type]
    process = aligned(plain, "transport")
    coords = process.fields["coords"]
    assert isinstance(coords, Aligned)
    before, after = (one.corrupt(x_0, t, NoiseSource(3, range(4)), masks) for one in (plain, process))
    for name in ("types", "charges", "bonds"):
        assert torch.equal(before.x_t[name], after.x_t[name])
    part, free = after.parts["coords"], before.parts["coords"]
    eps, old = (coords.predict_eps(one.target, one.x_t, t.double()) for one in (part, free))
    torch.testing.assert_close(coords.predict_x0(part.target, part.x_t, t.double()), part.x_0)
    assert part.x_t.sum(1).abs().max() < 1e-9
    assert not part.x_t[~mask].any()
    apart = [(one - x_0["coords"]).square().sum((1, 2)) for one in (eps, old)]
    assert (apart[0] <= apart[1] + 1e-6).all()
    assert (apart[0] < apart[1] - 1e-2)[1:].all()
    assert aligned(plain, "none") is plain


@pytest.mark.parametrize("alignment", ALIGNED)
def test_noise_is_aligned_alone_as_in_any_batch(alignment: Alignment) -> None:
    x_0, mask = batch()
    process, t = aligned(molecule_process(QM9), alignment), torch.tensor([0.1, 0.4, 0.7, 0.9])
    x_0["coords"] = x_0["coords"].float()
    whole = process.corrupt(x_0, t, NoiseSource(3, range(4)), Condition(mask).masks()).x_t["coords"]
    for row in range(4):
        n = int(mask[row].sum())
        own = {name: value[row : row + 1, :n, :n] if name == "bonds" else value[row : row + 1, :n]
               for name, value in x_0.items()}  # fmt: skip
        told = Condition(mask[row : row + 1, :n]).masks()
        alone = process.corrupt(own, t[row : row + 1], NoiseSource(3, [row]), told).x_t["coords"]
        torch.testing.assert_close(whole[row, :n], alone[0], rtol=1e-3, atol=1e-3)


def test_the_bound_of_aligned_noise_is_refused() -> None:
    x_0, mask = batch()
    x_0["coords"] = x_0["coords"].float()
    one = Batch(x_0=x_0, c=Condition(mask), mask=Condition(mask).masks())

    def silent(x_t: dict, t: torch.Tensor, c: object = None) -> dict[str, torch.Tensor]:
        sizes = {"types": 5, "charges": 3, "bonds": 5}
        return {name: torch.zeros(*x_t[name].shape, size) for name, size in sizes.items()} | {
            "coords": 0 * x_t["coords"]
        }

    process = molecule_process(QM9)
    assert torch.isfinite(evaluate_bound(silent, Objective(process), [one], repeats=2, times=1).totals).all()
    with pytest.raises(InputError, match="independent noise"):
        evaluate_bound(silent, Objective(aligned(process, "rotation")), [one], repeats=2, times=1)
    coords = Aligned()
    part = coords.corrupt(x_0["coords"], torch.full((4,), 0.5), NoiseSource(0, range(4)), mask)
    for asked in (coords.nats, coords.reconstruction_nats):
        with pytest.raises(InputError, match="independent noise"):
            asked(part.target, part)
    with pytest.raises(InputError, match="independent noise"):
        coords.hybrid_nats(part.target, part.target, torch.ones(4), part)
    with pytest.raises(ValidationError, match="elbo"):
        Recipe.model_validate({"data": "a", "train": {"samples": 1}, "alignment": "rotation", "time_weight": "elbo"})


@pytest.mark.parametrize("path", ["linear", "trig"])
def test_the_flow_takes_euler_steps_and_draws_nothing(path: str) -> None:
    field, mask = Flowing(path=path), batch()[1]  # type: ignore[arg-type]
    x_t, said = (centre(torch.randn(4, 7, 3, dtype=torch.float64), mask) for _ in range(2))
    t, s = torch.full((4,), 0.8, dtype=torch.float64), torch.full((4,), 0.7, dtype=torch.float64)
    for seed in (0, 1):
        found = field.step(said, x_t, t, s, NoiseSource(seed, range(4)), mask)
        torch.testing.assert_close(found, x_t - 0.1 * said)
    last = field.step(said, x_t, t, 0 * s, NoiseSource(0, range(4)), mask)
    torch.testing.assert_close(last, field.predict_x0(said, x_t, t))


def test_the_flow_of_the_exact_velocity_reaches_the_data_spread() -> None:
    """Data N(0, 4 P): the velocity is linear in x, and the flow carries the prior to it."""
    b, steps = 3000, 60
    process = sampled_by(Product({"coords": Centred()}), "flow")
    told = Condition(torch.ones(b, 3, dtype=torch.bool))

    def exact(x_t: dict, t: torch.Tensor, c: object = None) -> dict[str, torch.Tensor]:
        signal, noise = (1 - t)[:, None, None], t[:, None, None]
        return {"coords": (noise - 4 * signal) / (noise**2 + 4 * signal**2) * x_t["coords"]}

    like = {"coords": torch.zeros(b, 3, 3, dtype=torch.float64)}
    x = process.prior(like, NoiseSource(0, range(b)), {"coords": told.mask})
    ends = ancestral(process, exact, x, steps, NoiseSource(1, range(b)), None, {"coords": told.mask})["coords"]
    assert float(ends.square().sum((1, 2)).mean() / 6) == pytest.approx(4.0, rel=0.06)
    torch.testing.assert_close(ends / ends.norm(), x["coords"] / x["coords"].norm())  # each goes straight


@pytest.mark.parametrize("alignment", ["none", *ALIGNED])
def test_models_train_and_are_sampled_as_they_were_trained(tmp_path: Path, alignment: Alignment) -> None:
    molecules, samples = make_set(tmp_path), 3 if alignment == "none" else 70  # some 30 steps
    settings = {
        "data": str(tmp_path / "set.reed"), "network": TINY.model_dump(), "batch_pairs": 200, "alignment": alignment,
        "train": {"samples": samples, "checkpoint_every": 10**6},
    }  # fmt: skip
    made = Recipe.model_validate(settings)
    model: MoleculeModel = run_recipe(made, tmp_path / "run", progress=False)
    assert model.config.alignment == alignment
    assert sampler_for(alignment) == ("ancestral" if alignment == "none" else "flow")
    assert isinstance(model.process.fields["coords"], Centred)
    assert not isinstance(model.process.fields["coords"], Aligned)
    default, flow, kernel = (
        sample(model, sizes=[5], steps=3, sampler=sampler)[0].state["coords"] for sampler in SAMPLING
    )
    assert torch.equal(default, kernel if alignment == "none" else flow)
    assert (flow - kernel).abs().max() > 1e-3
    if alignment != "none":
        data = training_data(made, molecules, 1.0, ())
        plain = made.model_copy(update={"alignment": "none"})
        with pytest.raises(InputError, match="not those of the recipe"):
            train(plain, model.config, data, data, tmp_path / "no")
