"""Regularisers against their formulas, pair by pair and element by element."""

import math
from typing import Any

import pytest
import torch
from reed_core.curriculum import Curriculum, Schedule
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from reed_core.process.base import Corrupted
from reed_core.regulariser import Dispersive, LayerSync, Perceptual, Regulariser
from reed_core.reveal import Beta, PointMass
from torch import Tensor, nn


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
        self.out = nn.Linear(6, 2)

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        return self.out(self.layers(x_t + t.reshape(-1, *[1] * (x_t.ndim - 1))))


def corrupted(count: int, mask: Tensor | None = None) -> Corrupted:
    x_0 = torch.randn(count, 3, 2)
    return Interpolant().corrupt(x_0, torch.rand(count), NoiseSource(0, range(count)), mask)


def test_dispersion_is_the_log_mean_over_pairs() -> None:
    state = torch.randn(5, 3, 4, dtype=torch.float64)
    terms = [math.exp(-float((state[i] - state[j]).square().sum()) / (12 * 0.7)) for i in range(5) for j in range(5)]
    energy = Dispersive("h", temperature=0.7).energy({"h": state}, None, Corrupted(None, None, torch.rand(5), None))
    torch.testing.assert_close(energy, torch.full((5,), math.log(sum(terms) / 25), dtype=torch.float64))


def test_dispersion_ignores_padding_and_order_and_is_largest_when_collapsed() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    at = Corrupted(None, None, torch.rand(3), None, mask)
    state = torch.randn(3, 3, 4)
    other = torch.where(mask[..., None], state, 99.0)
    one = Dispersive("h")
    torch.testing.assert_close(one.energy({"h": state}, None, at), one.energy({"h": other}, None, at))
    assert float(one.energy({"h": torch.ones(3, 3, 4)}, None, at)[0]) == pytest.approx(0.0, abs=1e-6)
    assert float(one.energy({"h": state}, None, at)[0]) < 0


def test_layer_sync_moves_the_early_layer_alone() -> None:
    network = Network()
    objective = Objective(Interpolant(), regularisers=[LayerSync("layers.0", "layers.2")])
    x_0 = torch.randn(4, 3, 2)
    loss = objective(network, x_0, NoiseSource(0, range(4)))
    loss.regularisation["layer_sync"].sum().backward()
    assert network.layers[0].weight.grad is not None
    assert network.layers[2].weight.grad is None


def test_layer_sync_is_minus_the_mean_cosine_over_existing_elements() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    early, deep = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    at = Corrupted(None, None, torch.rand(2), None, mask)
    energy = LayerSync("a", "b").energy({"a": early, "b": deep}, None, at)
    for i in range(2):
        cosines = [
            float(early[i, j] @ deep[i, j] / early[i, j].norm() / deep[i, j].norm()) for j in range(3) if mask[i, j]
        ]
        assert float(energy[i]) == pytest.approx(-sum(cosines) / len(cosines), abs=1e-6)
    with pytest.raises(InputError, match="differ; choose two modules of one shape"):
        LayerSync("a", "b").energy({"a": early, "b": deep[..., :2]}, None, at)


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
def test_perceptual_is_zero_for_the_truth_and_a_gaussian_energy_elsewhere(prediction: Any) -> None:
    process = Interpolant(prediction=prediction)
    encoder = nn.Linear(2, 3).double().requires_grad_(False)
    x_0 = torch.randn(5, 4, 2, dtype=torch.float64)
    at = process.corrupt(x_0, torch.rand(5, dtype=torch.float64) * 0.9 + 0.05, NoiseSource(0, range(5)))
    one = Perceptual(encoder, process, sigma=0.5)
    assert float(one.energy({}, at.target, at).max()) < 1e-20
    wrong = at.target + 0.3
    guess = process.predict_x0(wrong, at.x_t, at.t)
    expected = [(encoder(guess[i]) - encoder(x_0[i])).square().mean() / (2 * 0.25) for i in range(5)]
    torch.testing.assert_close(one.energy({}, wrong, at), torch.stack(expected))


def test_a_perceptual_loss_reaches_the_prediction_but_not_the_encoder() -> None:
    process, network, encoder = Interpolant(), Network(), nn.Linear(2, 3).requires_grad_(False)
    objective = Objective(process, regularisers=[Perceptual(encoder, process)])
    objective(network, torch.randn(4, 3, 2), NoiseSource(0, range(4))).regularisation["perceptual"].sum().backward()
    assert network.out.weight.grad is not None
    assert encoder.weight.grad is None
    assert list(objective.parameters()) == []


EVERY: list[Regulariser] = [
    Dispersive("layers.1", reveal=Beta(2.0, 2.0)),
    LayerSync("layers.1", "layers.3"),
    Perceptual(nn.Linear(2, 3).requires_grad_(False), Interpolant()),
]


@pytest.mark.parametrize("regulariser", EVERY, ids=lambda one: one.name)
def test_the_curriculum_and_the_reveal_density_weigh_a_regulariser(regulariser: Regulariser) -> None:
    network, x_0 = Network(), torch.randn(6, 3, 2)
    curriculum = Curriculum(alignment=Schedule(decay="linear", end=10))
    objective = Objective(Interpolant(), curriculum=curriculum, regularisers=[regulariser])
    for n in (0, 4):
        loss = objective(network, x_0, NoiseSource(0, range(6)), n=n)
        value = loss.regularisation[regulariser.name]
        torch.testing.assert_close(loss.total, loss.denoising.mean() + (1 - n / 10) * regulariser.weight * value.mean())
    assert loss.t is not None
    states = {path: torch.zeros(6, 3, 6) for path in regulariser.taps}
    assert regulariser.energy(states, torch.zeros(6, 3, 2), corrupted(6)).shape == (6,)
    hooks = sum(len(module._forward_hooks) for module in network.modules())
    off = objective(network, x_0, NoiseSource(0, range(6)), n=10)
    assert off.regularisation == {}
    assert torch.equal(off.total, off.denoising.mean())
    assert hooks == 0


def test_a_regulariser_with_an_atom_is_refused() -> None:
    with pytest.raises(InputError, match="without an atom"):
        Objective(Interpolant(), regularisers=[Dispersive("layers.1", reveal=PointMass(0.5))])
    for wrong in (lambda: Dispersive("h", temperature=0.0), lambda: Perceptual(nn.Identity(), Interpolant(), sigma=0)):
        with pytest.raises(InputError, match="positive"):
            wrong()
