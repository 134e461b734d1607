"""Gradients of the parts of a loss against backward passes of their own."""

import copy

import pytest
import torch
from reed_core.curriculum import Curriculum, Schedule
from reed_core.diagnose import GradientTable, gradient_table
from reed_core.errors import InputError
from reed_core.head import Gaussian
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from reed_core.reveal import PointMass
from reed_core.train import Batch
from torch import Tensor, nn

BLOCKS = ("blocks.0", "blocks.1", "blocks.2", "out")


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inlet = nn.Linear(2, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.5)) for _ in range(3))
        self.out = nn.Linear(8, 2)

    def forward(self, x_t: Tensor, t: Tensor, c: object = None) -> Tensor:
        h = self.inlet(x_t) + t[:, None, None]
        for block in self.blocks:
            h = h + block(h)
        return self.out(h)


@pytest.fixture
def setting() -> tuple[Objective, Network, list[Batch]]:
    torch.manual_seed(0)
    latents = [
        Latent("low", "blocks.0", 8, 3, weight=0.7, hidden=6),
        Latent("high", "blocks.1", 8, 2, Gaussian(), "global", weight=0.4, hidden=6, reveal=PointMass(0.6)),
    ]
    curriculum = Curriculum(alignment=Schedule(decay="linear", end=100.0), denoising=Schedule(warmup=100.0))
    batches = [
        Batch(
            torch.randn(5, 4, 2),
            mask=torch.arange(4) < torch.randint(1, 5, (5, 1)),
            z={"low": Representation(torch.randn(5, 4, 3)), "high": Representation(torch.randn(5, 2))},
            weight=torch.rand(5),
        )
        for _ in range(3)
    ]
    return Objective(Interpolant(), latents, curriculum), Network(), batches


def slow(objective: Objective, net: Network, batches: list[Batch], n: float) -> dict[str, list[dict[str, Tensor]]]:
    """For each part and batch: all gradients by name, from a backward pass on a fresh copy."""
    found: dict[str, list[dict[str, Tensor]]] = {}
    for part in ("", "low", "high"):
        for number, batch in enumerate(batches):
            own = copy.deepcopy(net).eval()
            noise = NoiseSource(3, range(5 * number, 5 * number + 5))
            loss = objective(own, batch.x_0, noise, z=batch.z, mask=batch.mask, weight=batch.weight, n=n)
            values = loss.denoising if part == "" else loss.alignment[part]
            scale = 0.25 if part == "" else 0.75 * objective.latent(part).weight
            (scale * (values * batch.weight).sum() / batch.weight.sum()).backward()
            gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in own.named_parameters()}
            found.setdefault(part, []).append(gradients)
    return found


def flat(gradients: dict[str, Tensor], block: str) -> Tensor:
    return torch.cat([g.flatten() for name, g in gradients.items() if name.startswith(block)]).double()


def test_against_backward_passes(setting: tuple[Objective, Network, list[Batch]]) -> None:
    objective, net, batches = setting
    table = gradient_table(objective, net, BLOCKS, batches, seed=3, n=25.0)
    expected = slow(objective, net, batches, 25.0)
    reached = {"low": ("inlet", "blocks.0"), "high": ("inlet", "blocks.0", "blocks.1")}
    for row, name in enumerate(table.latents):
        for column, block in enumerate((*BLOCKS, reached[name])):
            d = [flat(g, block) for g in expected[""]]
            a = [flat(g, block) for g in expected[name]]
            at = table.at if column < len(BLOCKS) else table.reached
            where = (row, column) if column < len(BLOCKS) else (row,)
            norms = torch.stack([torch.stack([x.norm(), y.norm()]) for x, y in zip(d, a, strict=True)])
            torch.testing.assert_close(at.denoising[where], norms[:, 0].mean())
            torch.testing.assert_close(at.alignment[where], norms[:, 1].mean())
            torch.testing.assert_close(at.alignment_spread[where], norms[:, 1].std())
            torch.testing.assert_close(at.share[where], (norms[:, 1] / norms.sum(1)).mean())
            cosines = torch.stack([x @ y / (x.norm() * y.norm()) for x, y in zip(d, a, strict=True)])
            torch.testing.assert_close(at.cosine[where], cosines.mean(), equal_nan=True, atol=1e-6, rtol=1e-5)
            x, y = sum(d), sum(a)
            torch.testing.assert_close(
                at.summed_cosine[where], x @ y / (x.norm() * y.norm()), equal_nan=True, atol=1e-6, rtol=1e-5
            )


def test_alignment_does_not_reach_above_its_depth(setting: tuple[Objective, Network, list[Batch]]) -> None:
    objective, net, batches = setting
    at = gradient_table(objective, net, BLOCKS, batches, n=25.0).at
    assert at.alignment[0].tolist()[1:] == [0.0, 0.0, 0.0]
    assert at.alignment[1].tolist()[2:] == [0.0, 0.0]
    assert at.share[0].tolist()[1:] == [0.0, 0.0, 0.0]
    assert at.alignment[0, 0] > 0
    assert bool((at.alignment[1, :2] > 0).all())
    assert bool(at.cosine[0, 1:].isnan().all())


def test_nothing_is_changed(setting: tuple[Objective, Network, list[Batch]]) -> None:
    objective, net, batches = setting
    net.blocks[1].eval()
    marked = torch.full_like(net.out.weight, 7.0)
    net.out.weight.grad = marked.clone()
    weights = [p.clone() for p in [*net.parameters(), *objective.parameters()]]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    gradient_table(objective, net, BLOCKS, batches)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(net.out.weight.grad, marked)
    assert all(p.grad is None for p in [*net.blocks.parameters(), *objective.parameters()])
    assert all(torch.equal(p, w) for p, w in zip([*net.parameters(), *objective.parameters()], weights, strict=True))
    assert [block.training for block in net.blocks] == [True, False, True]


def test_frozen_and_finished_parts_have_no_gradient(setting: tuple[Objective, Network, list[Batch]]) -> None:
    objective, net, batches = setting
    finished = gradient_table(objective, net, BLOCKS, batches, n=100.0)
    assert finished.at.alignment.abs().max() == 0
    assert bool((finished.at.denoising > 0).all())
    assert finished.reached.cosine.isnan().all()
    net.blocks[0].requires_grad_(False)
    net.inlet.requires_grad_(False)
    table: GradientTable = gradient_table(objective, net, BLOCKS[1:], batches[:1])
    assert table.at.alignment[0].tolist() == [0.0, 0.0, 0.0]
    assert table.batches == 1
    with pytest.raises(InputError, match="no trained parameters"):
        gradient_table(objective, net, BLOCKS, batches)


def test_what_cannot_be_asked(setting: tuple[Objective, Network, list[Batch]]) -> None:
    objective, net, batches = setting
    with pytest.raises(InputError, match=r"no submodule blocks\.9"):
        gradient_table(objective, net, ["blocks.9"], batches)
    with pytest.raises(InputError, match="no batches"):
        gradient_table(objective, net, BLOCKS, [])
    with pytest.raises(InputError, match="no latents"):
        gradient_table(Objective(Interpolant()), net, BLOCKS, batches)
