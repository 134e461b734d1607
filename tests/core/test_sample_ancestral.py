"""Ancestral chains of every process, and of one that reed-core does not know."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from core.sample_models import (
    MASK,
    MEAN,
    STD,
    Counted,
    ExactStep,
    PairTable,
    all_masked,
    chi_square,
    critical,
    exact_denoiser,
    one_latent,
    random_joint,
    worst_moment,
)
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Corrupted, Interpolant, Masked
from reed_core.process.discrete import UniformDiscrete
from reed_core.process.product import Product
from reed_core.sample import LogSNRTimes, ancestral, cosine_times
from torch import Tensor

BATCH, ELEMENTS = 40, 400
P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)


def test_an_exact_step_gives_the_moments_of_the_data_in_few_steps() -> None:
    model, noise = one_latent(ExactStep(t_max=1.0)), NoiseSource(0, range(BATCH))
    x = model.process.prior(torch.zeros(BATCH, ELEMENTS, dtype=torch.float64), noise)
    samples = ancestral(model.process, model, x, 3, noise)
    assert worst_moment(samples.flatten()[:, None], model.mean[:1], model.covariance[:1, :1]) < 4.5


@pytest.mark.parametrize("process", [Interpolant(), Interpolant("trig", "eps")], ids=str)
def test_an_interpolant_approaches_the_moments_of_the_data(process: Interpolant) -> None:
    noise = NoiseSource(1, range(BATCH))
    x = process.prior(torch.zeros(BATCH, ELEMENTS, 2, dtype=torch.float64), noise)
    off = []
    for steps in (10, 60):
        samples = ancestral(process, exact_denoiser(process), x, steps, noise, grid=LogSNRTimes(process))
        off.append(worst_moment(samples.flatten(0, 1), MEAN, torch.diag(STD**2)))
    assert off[1] < 0.5 * off[0], off


def test_masked_pairs_have_their_joint_distribution() -> None:
    table, noise = PairTable(random_joint((3, 3, 1))), NoiseSource(2, range(BATCH))
    for grid in (cosine_times, None):
        more = {} if grid is None else {"grid": grid}
        samples = ancestral(Masked(3, MASK), table, all_masked(BATCH, 200), 80, noise, **more)
        rows = table.rows(samples, torch.zeros(BATCH, 100, dtype=torch.long))
        assert chi_square(rows, table.joint) < critical(8)
    once = ancestral(Masked(3, MASK), table, all_masked(BATCH, 200), 1, noise)
    assert chi_square(table.rows(once, torch.zeros(BATCH, 100, dtype=torch.long)), table.joint) > 2 * critical(8)


def of_uniform(x: Tensor, t: Tensor, c: Any = None) -> Tensor:
    """The exact log p(x_0 | x_t) of independent tokens with the distribution P."""
    kept = (torch.arange(4) == x[..., None]).double() * (1 - t.double())[:, None, None]
    return P.log() + (kept + t.double()[:, None, None] / 4).log()


def test_uniform_diffusion_gives_its_tokens() -> None:
    process, noise = UniformDiscrete(4), NoiseSource(3, range(BATCH))
    x = process.prior(torch.zeros(BATCH, ELEMENTS, dtype=torch.long), noise)
    samples = ancestral(process, of_uniform, x, 12, noise)
    assert chi_square(samples.flatten()[:, None], P) < critical(3)


@dataclass(frozen=True)
class Fields:
    """A denoiser of two independent fields."""

    process: Interpolant

    def __call__(self, x: Mapping[str, Tensor], t: Tensor, c: Any = None) -> dict[str, Tensor]:
        return {"place": exact_denoiser(self.process)(x["place"], t), "kind": P.log().expand(*x["kind"].shape, 4)}


def test_fields_are_sampled_together_and_alone_as_in_a_padded_batch() -> None:
    inner = Interpolant()
    process, noise = Product({"place": inner, "kind": Masked(4, MASK)}), NoiseSource(4, range(BATCH))
    like = {
        "place": torch.zeros(BATCH, 200, 2, dtype=torch.float64),
        "kind": torch.zeros(BATCH, 200, dtype=torch.long),
    }
    mask = torch.ones(BATCH, 200, dtype=torch.bool)
    mask[3, 7:] = False
    x = process.prior(like, noise)
    denoiser = Counted(Fields(inner))
    samples = ancestral(process, denoiser, x, 40, noise, mask=mask)
    assert len(denoiser.seen) == 40
    assert worst_moment(samples["place"][mask], MEAN, torch.diag(STD**2)) < 12  # a step of an interpolant is not exact
    assert chi_square(samples["kind"][mask][:, None], P) < critical(3)
    assert not samples["place"][~mask].any()
    noise = NoiseSource(4, [3])
    alone = ancestral(process, Fields(inner), process.prior({k: v[3:4, :7] for k, v in like.items()}, noise), 40, noise)
    torch.testing.assert_close(alone["place"][0], samples["place"][3, :7])
    assert torch.equal(alone["kind"][0], samples["kind"][3, :7])


@dataclass(frozen=True)
class Circle:
    """An outsider's process: angles; told the score of q(x_t), a step is Langevin-like. t_min is far from 0."""

    t_min: float = 0.05
    t_max: float = 1.0

    def sample_time(self, noise: NoiseSource) -> Tensor:
        return self.t_min + (self.t_max - self.t_min) * noise.times()

    def corrupt(self, x_0: Tensor, t: Tensor, noise: NoiseSource, mask: Any = None) -> Corrupted:
        moved = 3.0 * t[:, None] * noise.normal(x_0.shape[1:])
        return Corrupted(x_0, (x_0 + moved) % (2 * math.pi), t, -moved / (9.0 * t[:, None] ** 2))

    def loss(self, prediction: Tensor, corrupted: Corrupted) -> Tensor:
        return (prediction - corrupted.target).square().mean(1)

    def prior(self, like: Tensor, noise: NoiseSource, mask: Any = None) -> Tensor:
        return 2 * math.pi * noise.uniform(like.shape[1:])

    def step(
        self, prediction: Tensor, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseSource, mask: Any = None
    ) -> Tensor:
        gone = 9.0 * (t**2 - s**2)[:, None]
        fresh = torch.where(s > 0, gone.sqrt()[:, 0], 0.0)[:, None] * noise.normal(x_t.shape[1:])
        return (x_t + gone * prediction + fresh) % (2 * math.pi)


def test_a_process_of_the_user_runs_and_no_time_below_its_t_min_is_asked() -> None:
    """x_0 is the angle 2: the score is that of a wrapped normal."""

    def score(x: Tensor, t: Tensor, c: Any = None) -> Tensor:
        variance = 9.0 * t[:, None, None] ** 2
        away = 2.0 + 2 * math.pi * torch.arange(-6, 7) - x[..., None]
        return (torch.softmax(-(away**2) / (2 * variance), -1) * away / variance).sum(-1)

    noise, denoiser = NoiseSource(5, range(6)), Counted(score)
    x = Circle().prior(torch.zeros(6, 20), noise).float()
    samples = ancestral(Circle(), denoiser, x, 40, noise)
    torch.testing.assert_close(samples, torch.full_like(samples, 2.0), atol=1e-3, rtol=0)
    times = [float(t[0]) for _, t, _ in denoiser.seen]
    assert len(times) == 40
    assert min(times) == pytest.approx(0.05)


def test_a_sample_of_a_chain_is_its_own() -> None:
    process, lengths = Interpolant(), (3, 1, 2)
    mask = torch.arange(3)[None] < torch.tensor(lengths)[:, None]

    def denoise(x: Tensor, t: Tensor, c: Any = None) -> Tensor:
        return torch.tanh(x + x.sum(1, keepdim=True))

    noise = NoiseSource(6, range(5, 8))
    batch = ancestral(process, denoise, process.prior(torch.zeros(3, 3, 2), noise), 6, noise, mask=mask)
    for i, length in enumerate(lengths):
        noise = NoiseSource(6, [5 + i])
        alone = ancestral(process, denoise, process.prior(torch.zeros(1, length, 2), noise), 6, noise)
        torch.testing.assert_close(alone[0], batch[i, :length])
    with pytest.raises(InputError, match="one stream per sample"):
        ancestral(process, denoise, torch.zeros(3, 2), 6, NoiseSource(0, [0]))
