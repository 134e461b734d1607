"""Each check of `reed_core.testing` passes what is right, and names what is wrong in a broken twin of it."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from reed_core.head import Categorical, Gaussian, VonMisesFisher
from reed_core.inject import AdaLN, Injected
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant, Masked, Power, Product, UniformDiscrete
from reed_core.process.base import Corrupted, HybridNats
from reed_core.representation import ModuleEncoder
from reed_core.reveal import PointMass
from reed_core.sample import integrate
from reed_core.sample.ancestral import ancestral
from reed_core.testing import (
    check_denoiser,
    check_encoder,
    check_latent,
    check_no_leak,
    check_process,
    check_sampler,
)
from reed_core.testing.measure import LEVEL, critical, ks
from reed_core.train.data import Batch
from torch import Tensor, nn

LENGTHS = (5, 1, 3, 4)
MASK = torch.arange(5)[None] < torch.tensor(LENGTHS)[:, None]


def data_for(process: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if hasattr(process, "num_tokens"):
        return torch.randint(process.num_tokens, (4, 5), generator=generator)
    return 1.5 * torch.randn(4, 5, 3, generator=generator)


def fails(said: str, check: Callable[..., None], *args: Any, **more: Any) -> None:
    with pytest.raises(AssertionError, match=said) as raised:
        check(*args, **more)
    assert "\n" not in str(raised.value)
    assert ": measured " in str(raised.value)
    assert ", expected " in str(raised.value)


# Processes

RIGHT = [Interpolant(), Interpolant("trig", "x0"), Masked(4, 5, "flat"), UniformDiscrete(4)]


@pytest.mark.parametrize("process", RIGHT, ids=str)
def test_a_process_that_keeps_its_promises_passes(process: Any) -> None:
    check_process(process, data_for(process), MASK)


def test_a_process_without_padding_passes() -> None:
    check_process(Interpolant(), data_for(Interpolant())[:, 0])


def test_a_product_passes_with_a_mask_for_each_field() -> None:
    """The edges of a graph have a mask of two axes."""
    process = Product({"node": Interpolant(), "edge": Masked(4, 5)}, {"edge": Power(2.0)})
    edges = torch.randint(4, (4, 5, 5), generator=torch.Generator().manual_seed(0))
    x_0 = {"node": data_for(Interpolant()), "edge": edges}
    check_process(process, x_0, {"node": MASK, "edge": MASK[:, :, None] & MASK[:, None]}, count=1000)


class EarlyTimes(Interpolant):
    def sample_time(self, noise: NoiseSource) -> Tensor:
        return self.t_min + (self.t_max - self.t_min) * noise.times() ** 2


class TimesOfTheBatch(Interpolant):
    def sample_time(self, noise: NoiseSource) -> Tensor:
        return self.t_min + (self.t_max - self.t_min) * torch.linspace(0, 0.999, len(noise))


class TimesBeyond(Interpolant):
    def sample_time(self, noise: NoiseSource) -> Tensor:
        return noise.times()


class NoiseOfTheBatch(Interpolant):
    def corrupt(self, x_0: Tensor, t: Tensor, noise: NoiseSource, mask: Any = None) -> Corrupted:
        return super().corrupt(x_0, t, NoiseSource(noise.seed, range(len(noise))), mask)


class Reversed(Interpolant):
    def corrupt(self, x_0: Tensor, t: Tensor, noise: NoiseSource, mask: Any = None) -> Corrupted:
        return replace(super().corrupt(x_0, 1 - t, noise, mask), t=t)


class NeverNoise(Interpolant):
    def corrupt(self, x_0: Tensor, t: Tensor, noise: NoiseSource, mask: Any = None) -> Corrupted:
        return replace(super().corrupt(x_0, 0.6 * t, noise, mask), t=t)


class Overwrites(Interpolant):
    def corrupt(self, x_0: Tensor, t: Tensor, noise: NoiseSource, mask: Any = None) -> Corrupted:
        corrupted = super().corrupt(x_0, t, noise, mask)
        x_0 += 1
        return corrupted


class Widens(Interpolant):
    def corrupt(self, x_0: Tensor, t: Tensor, noise: NoiseSource, mask: Any = None) -> Corrupted:
        corrupted = super().corrupt(x_0, t, noise, mask)
        return replace(corrupted, x_t=corrupted.x_t.double())


class CountsPadding(Interpolant):
    """Averages over a length that includes padding."""

    def loss(self, prediction: Tensor, corrupted: Corrupted) -> Tensor:
        error = (prediction - corrupted.target).square()
        if corrupted.mask is not None:
            error = torch.where(corrupted.mask[..., None], error, 0.0)
        return error.flatten(1).mean(1)


class SeesPadding(Interpolant):
    def loss(self, prediction: Tensor, corrupted: Corrupted) -> Tensor:
        return (prediction - corrupted.target).square().flatten(1).mean(1)


class OneLoss(Interpolant):
    def loss(self, prediction: Tensor, corrupted: Corrupted) -> Tensor:
        return super().loss(prediction, corrupted).mean().expand(len(prediction))


class OtherTarget(Interpolant):
    def loss(self, prediction: Tensor, corrupted: Corrupted) -> Tensor:
        return super().loss(1.1 * prediction, corrupted)


class NoGradient(Interpolant):
    def loss(self, prediction: Tensor, corrupted: Corrupted) -> Tensor:
        return super().loss(prediction.detach(), corrupted)


class WidePrior(Interpolant):
    def prior(self, like: Tensor, noise: NoiseSource, mask: Any = None) -> Tensor:
        return 1.5 * super().prior(like, noise, mask)


class PriorOfData(Interpolant):
    def prior(self, like: Tensor, noise: NoiseSource, mask: Any = None) -> Tensor:
        return super().prior(like, noise, mask) + 1e-3 * like


class StandsStill(Interpolant):
    def step(self, prediction: Tensor, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseSource, mask: Any = None) -> Any:
        return x_t


class StepsOnTheMean(Interpolant):
    def step(self, prediction: Tensor, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseSource, mask: Any = None) -> Any:
        s, t = s[:, None, None], t[:, None, None]
        clean = self.predict_x0(prediction, x_t, t[:, 0, 0])
        shrink = (s / t) ** 2 * (1 - t) / (1 - s)
        return shrink * x_t + ((1 - s) - shrink * (1 - t)) * clean


class SharedSteps(Interpolant):
    def step(self, prediction: Tensor, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseSource, mask: Any = None) -> Any:
        return super().step(prediction, x_t, t, s, NoiseSource(noise.seed, range(len(noise))), mask)


class MeanNats(Interpolant):
    def nats(self, prediction: Tensor, corrupted: Corrupted) -> Tensor:
        return self.elbo_weight(corrupted.t) * self.loss(prediction, corrupted)


class NoNormaliser(Interpolant):
    def hybrid_nats(self, unconditional: Tensor, conditional: Tensor, A: Tensor, corrupted: Corrupted) -> HybridNats:
        found = super().hybrid_nats(unconditional, conditional, A, corrupted)
        return HybridNats(found.denoising, torch.zeros_like(found.log_normaliser))


class TurnedHybrid(Interpolant):
    def hybrid_nats(self, unconditional: Tensor, conditional: Tensor, A: Tensor, corrupted: Corrupted) -> HybridNats:
        return super().hybrid_nats(conditional, unconditional, A, corrupted)


class BadDecoder(Interpolant):
    def reconstruction_nats(self, prediction: Tensor, corrupted: Corrupted) -> Tensor:
        return -super().reconstruction_nats(prediction, corrupted)


class SlowReveal(Masked):
    """Reveals with probability t - s, the rate of the joint chain, where (t - s) / t is asked."""

    def step(self, prediction: Tensor, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseSource, mask: Any = None) -> Any:
        return super().step(prediction, x_t, t, torch.where(s == 0, s, t - t * (t - s)), noise, mask)


class ScoresPadding(Masked):
    def corrupt(self, x_0: Tensor, t: Tensor, noise: NoiseSource, mask: Any = None) -> Corrupted:
        return replace(super().corrupt(x_0, t, noise, None), mask=mask)


class ChangesTokens(Masked):
    """Draws revealed tokens anew."""

    def step(self, prediction: Tensor, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseSource, mask: Any = None) -> Any:
        moved = super().step(prediction, x_t, t, s, noise, mask)
        return torch.where(moved == self.mask_token, moved, (moved + 1) % self.num_tokens)


BROKEN_PROCESSES: list[tuple[Any, str]] = [
    (EarlyTimes(), "sample_time, law"),
    (TimesOfTheBatch(), "sample_time of the same samples in another batch"),
    (TimesBeyond(t_min=0.1), "sample_time, range"),
    (NoiseOfTheBatch(), "corrupt, x_t of sample . alone and in a padded batch"),
    (Reversed(), "corrupt at t_min .* t = 0 is data"),
    (NeverNoise(), "corrupt at t_max .* t = 1 is noise"),
    (Overwrites(), "x_0 left as it was"),
    (Widens(), "corrupt, x_t, shape, dtype and device.*float64.*float32"),
    (CountsPadding(), "averaged over the sample's own elements"),
    (SeesPadding(), "loss, its gradient in the padding|padding never enters"),
    (OneLoss(), "loss of sample 0 when others change"),
    (OtherTarget(), "the exact one is best"),
    (NoGradient(), "loss, its gradient: measured none"),
    (WidePrior(), "against draws of prior"),
    (PriorOfData(), "prior for other values"),
    (StandsStill(), "step .* against corrupt at s"),
    (StepsOnTheMean(), "step .* against corrupt at s"),
    (SharedSteps(), "step, x_s of sample . alone"),
    (MeanNats(), "nats with an error in half of the elements"),
    (NoNormaliser(), "denoising - log Z at A = 0.25"),
    (TurnedHybrid(), "denoising - log Z at A = 0:"),
    (BadDecoder(), "reconstruction_nats of the exact prediction"),
    (SlowReveal(4, 5), "step .* against corrupt at s"),
    (ScoresPadding(4, 5), "in the padding"),
    (ChangesTokens(4, 5), "step from t_min to 0"),
]


@pytest.mark.parametrize(("process", "said"), BROKEN_PROCESSES, ids=lambda value: type(value).__name__)
def test_a_broken_process_is_named(process: Any, said: str) -> None:
    fails(said, check_process, process, data_for(process), MASK, count=1000)


def test_one_sample_is_not_enough() -> None:
    fails("needs a batch", check_process, Interpolant(), torch.zeros(1, 2))


# Latents


@pytest.mark.parametrize("dim", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "head", [VonMisesFisher(0.0), VonMisesFisher(1.0), VonMisesFisher(20.0), Gaussian(0.3), Categorical()], ids=str
)
def test_a_head_that_is_a_likelihood_passes(head: Any, dim: int) -> None:
    check_latent(Latent("z", None, 0, dim, head, reveal=PointMass(1.0)), count=2000)


class Unnormalised(Gaussian):
    def log_normaliser(self, dim: int) -> float:
        return 2 * super().log_normaliser(dim)


class AveragesOverWidth(Gaussian):
    def energy(self, predicted: Tensor, z: Tensor) -> Tensor:
        return super().energy(predicted, z) / predicted.shape[-1]


class DrawsWide(Gaussian):
    def sample(self, predicted: Tensor, noise: NoiseSource) -> Tensor:
        return predicted + 1.5 * self.sigma * noise.normal(predicted.shape[1:]).to(predicted)


class DrawsShifted(Gaussian):
    def sample(self, predicted: Tensor, noise: NoiseSource) -> Tensor:
        return super().sample(predicted, noise) + 0.2 * self.sigma


class DrawsForTheBatch(Gaussian):
    def sample(self, predicted: Tensor, noise: NoiseSource) -> Tensor:
        drawn = torch.randn(predicted.shape, generator=torch.Generator().manual_seed(noise.seed))
        return predicted + self.sigma * drawn.to(predicted)


class OneEnergy(Gaussian):
    def energy(self, predicted: Tensor, z: Tensor) -> Tensor:
        return super().energy(predicted, z).mean(0, keepdim=True)


class Detached(Gaussian):
    def energy(self, predicted: Tensor, z: Tensor) -> Tensor:
        return super().energy(predicted + predicted.detach(), 2 * z)


class FarMode(Gaussian):
    def mode(self, predicted: Tensor) -> Tensor:
        return -predicted


class OtherKappa(VonMisesFisher):
    def sample(self, predicted: Tensor, noise: NoiseSource) -> Tensor:
        return VonMisesFisher(3 * self.kappa).sample(predicted, noise)


class DrawsTheMode(Categorical):
    def sample(self, predicted: Tensor, noise: NoiseSource) -> Tensor:
        return predicted.argmax(-1)


class Half(Categorical):
    def energy(self, predicted: Tensor, z: Tensor) -> Tensor:
        return super().energy(predicted, z).to(predicted.dtype)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (Unnormalised(0.5), r"integral of exp\(-energy - log_normaliser\)"),
        (AveragesOverWidth(0.5), "integral of|energy of the mode"),
        (DrawsWide(0.5), "sample draws from what energy scores"),
        (DrawsShifted(0.5), "sample draws from what energy scores"),
        (DrawsForTheBatch(0.5), "sample, number . alone"),
        (OneEnergy(0.5), "energy, shape"),
        (Detached(0.5), "gradient of energy along axis"),
        (FarMode(0.5), "energy of the mode"),
        (OtherKappa(2.0), "sample draws from what energy scores"),
        (DrawsTheMode(), "sample with another seed|sample draws from"),
        (Half(), "float32 or wider"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_broken_head_is_named(head: Any, said: str) -> None:
    fails(said, check_latent, head, 3, count=2000)


# Encoders


@dataclass(frozen=True)
class Chains:
    """Items of 5, 1, 3 and 4 elements."""

    fingerprint: str = "chains"

    def __len__(self) -> int:
        return len(LENGTHS)

    def batch(self, items: Sequence[int]) -> Batch:
        lengths = torch.tensor([LENGTHS[item] for item in items])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        places = torch.arange(mask.shape[1])[None, :, None] + 10 * torch.tensor(items)[:, None, None]
        return Batch(torch.where(mask[..., None], torch.sin(places * torch.tensor([1.0, 0.7])), 0.0), mask=mask)


class Mixes(nn.Module):
    """An attention encoder that knows its mask."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.up = nn.Linear(2, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.layer(self.up(x), src_key_padding_mask=None if mask is None else ~mask)


def encoder_of(level: Any = "token", dim: int = 8, blind: bool = False) -> ModuleEncoder:
    torch.manual_seed(0)
    return ModuleEncoder("mixes", Mixes(), dim, level, inputs=lambda x, c, mask: (x, None if blind else mask))


@pytest.mark.parametrize("level", ["token", "global"])
def test_an_encoder_of_each_sample_passes(level: str) -> None:
    check_encoder(encoder_of(level), Chains())
    check_encoder(encoder_of(level), Chains(), [2, 1])


class Wrapped:
    """An encoder with one thing changed."""

    def __init__(self, change: Callable[..., Representation] | None = None, **said: Any) -> None:
        self.inner, self.change = encoder_of(), change
        self.name, self.dim, self.level, self.fingerprint = "wrapped", 8, "token", "1"
        for name, value in said.items():
            setattr(self, name, value)

    def __call__(self, x_0: Tensor, c: Any = None, mask: Tensor | None = None) -> Representation:
        found = self.inner(x_0, c, mask)
        return found if self.change is None else self.change(found, x_0, mask)


class Forgetful(ModuleEncoder):
    @property
    def fingerprint(self) -> str:
        return "always"


def noisy(found: Representation, x_0: Tensor, mask: Tensor) -> Representation:
    return Representation(found.z + 0.01 * torch.randn_like(found.z), found.mask)


def pooled_over_padding(found: Representation, x_0: Tensor, mask: Tensor) -> Representation:
    return Representation(torch.tanh(x_0).mean(1) @ torch.ones(2, 8))


def of_the_batch(found: Representation, x_0: Tensor, mask: Tensor) -> Representation:
    shift = torch.where(mask[..., None], found.z, 0.0).amax()
    return Representation(found.z - shift, found.mask)


def knows_padding(found: Representation, x_0: Tensor, mask: Tensor) -> Representation:
    return Representation(found.z, torch.ones_like(mask))


def trained(found: Representation, x_0: Tensor, mask: Tensor) -> Representation:
    return Representation(found.z * torch.ones(8, requires_grad=True), found.mask)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (encoder_of(blind=True), "encoded with junk in the padding"),
        (Wrapped(noisy), "the same batch encoded twice"),
        (Wrapped(pooled_over_padding, level="global"), "encoded with junk in the padding|alone and in a batch"),
        (Wrapped(of_the_batch), "z of item . alone"),
        (Wrapped(knows_padding), "mask of z: measured 7 padded elements known"),
        (Wrapped(trained), "z, its gradient"),
        (Wrapped(dim=5), "width of z: measured 8, expected dim = 5"),
        (Wrapped(level="pair"), "axes of z of level pair: measured 3, expected 4"),
        (Wrapped(fingerprint=""), "fingerprint"),
        (Forgetful("mixes", Mixes(), 8, inputs=lambda x, c, mask: (x, mask)), "fingerprint after a change of"),
    ],
)
def test_a_broken_encoder_is_named(encoder: Any, said: str) -> None:
    fails(said, check_encoder, encoder, Chains())


# Samplers


def with_integrate(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
    return integrate(Interpolant(), denoiser, x, 20, mask=mask)


def with_ancestral(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
    return ancestral(Interpolant(), denoiser, x, 40, noise, mask=mask)


LIKE = torch.zeros(4, 5, 2)


@pytest.mark.parametrize("sampler", [with_integrate, with_ancestral])
@pytest.mark.parametrize("mask", [MASK, None], ids=["padded", "whole"])
def test_a_sampler_of_the_data_passes(sampler: Any, mask: Tensor | None) -> None:
    check_sampler(sampler, Interpolant(), LIKE, mask, slack=0.1)


CHANCES = torch.tensor([0.5, 0.3, 0.2])


def of_chances(x: Tensor, t: Tensor, c: Any = None) -> Tensor:
    return CHANCES.log().expand(*x.shape, -1)


def test_a_sampler_of_tokens_is_compared_with_data() -> None:
    process = Masked(3, 7)
    data = torch.multinomial(CHANCES, 20_000, True, generator=torch.Generator().manual_seed(0)).view(4000, 5)
    like = torch.zeros(4, 5, dtype=torch.long)

    def sampler(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
        return ancestral(process, denoiser, x, 10, noise, mask=mask)

    check_sampler(sampler, process, like, MASK, denoiser=of_chances, data=data)
    check_sampler(sampler, process, like, MASK, denoiser=of_chances)
    fails("against data", check_sampler, sampler, process, like, denoiser=of_chances, data=(data + 1) % 3)
    fails("check_sampler: measured Masked", check_sampler, sampler, process, like)


def adds_shared_noise(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
    shared = torch.randn(x.shape, generator=torch.Generator().manual_seed(noise.seed))
    return with_integrate(denoiser, x, noise, mask) + 1e-2 * shared


def adds_global_noise(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
    return with_integrate(denoiser, x, noise, mask) + 1e-2 * torch.randn(x.shape)


def centres_the_batch(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
    found = with_integrate(denoiser, x, noise, mask)
    return found - 0.1 * found.mean(0)


def centres_with_padding(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
    found = with_integrate(denoiser, x, noise, mask)
    return found - 0.1 * found.mean(1, keepdim=True)


def stops_early(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
    return integrate(Interpolant(t_min=0.6), lambda x, t, c: denoiser(x, t, c) * 0.8, x, 10, mask=mask)


def too_few_steps(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
    return ancestral(Interpolant(), denoiser, x, 2, noise, mask=mask)


def breaks_down(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
    return with_integrate(denoiser, x, noise, mask) / 0.0


def ignores_its_start(denoiser: Any, x: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
    return torch.full_like(x, 0.7)


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (adds_shared_noise, "sample . alone and in a padded batch"),
        (adds_global_noise, "the same samples drawn twice"),
        (centres_the_batch, "sample . alone and in a padded batch"),
        (centres_with_padding, "sample . alone and in a padded batch"),
        (stops_early, "samples of the exact denoiser .* (mean|spread)"),
        (too_few_steps, "samples of the exact denoiser .* spread"),
        (breaks_down, "not finite"),
        (ignores_its_start, "samples with another seed"),
    ],
)
def test_a_broken_sampler_is_named(sampler: Any, said: str) -> None:
    fails(said, check_sampler, sampler, Interpolant(), LIKE, MASK)


# Denoisers


class Network(nn.Module):
    """An attention network with one explicit latent, added after the first block; c is the mask."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.up, self.out = nn.Linear(3, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(2)
        )
        self.told, self.null = nn.Linear(4, 8), nn.Parameter(torch.randn(8))
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None, z: Any = None) -> Tensor:
        missing = None if c is None or self.kind == "blind" else ~c
        h = self.up(x_t) + t[:, None, None]
        h = self.blocks[0](h, src_key_padding_mask=missing)
        if self.kind == "centred":
            h = h - h.mean((0, 1))
        if self.kind == "normed":
            h = self.norm(h.transpose(1, 2)).transpose(1, 2)
        h = h + self.tell(z, len(x_t))[:, None]
        out = self.out(self.blocks[1](h, src_key_padding_mask=missing))
        if self.kind == "noisy":
            out = out + torch.randn_like(out)
        return {"narrow": out[..., :2], "wide": out.double()}.get(self.kind, out)

    def tell(self, z: Any, count: int) -> Tensor:
        null = self.null.expand(count, 8)
        if z is None or "z" not in z:
            return 0 * null if self.kind == "two nulls" else null
        said = self.told(z["z"].z)
        shown = torch.ones(count, dtype=torch.bool) if z["z"].shown is None else z["z"].shown
        if self.kind == "all or none":
            return said if bool(shown.any()) else null
        if self.kind == "peeks":
            return torch.where(shown[:, None], said, null) + 0.1 * said
        return torch.where(shown[:, None], said, null)


X_T = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(3))
TIMES = torch.tensor([0.1, 0.4, 0.6, 0.9])
Z = {"z": Representation(torch.randn(4, 4, generator=torch.Generator().manual_seed(4)))}


def test_a_denoiser_of_each_sample_passes() -> None:
    network = Network().eval()
    check_denoiser(network, X_T, TIMES, MASK, MASK)
    check_denoiser(network, X_T, TIMES, MASK, MASK, z=Z)
    check_denoiser(network, X_T, TIMES)
    check_denoiser(lambda x, t, c: of_chances(x, t), torch.zeros(3, 2).long(), TIMES[:3], outputs=3)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("blind", "junk in the padding of x_t"),
        ("centred", "alone and in a batch|junk"),
        ("normed", "alone and in a batch|junk"),
        ("noisy", "one batch twice"),
        ("narrow", "prediction, shape"),
        ("wide", "prediction, dtype"),
        ("two nulls", "with no z shown and with z left out"),
        ("all or none", "whose z is not shown, in a mixed batch"),
        ("peeks", "with no z shown|of a z that is not shown"),
    ],
)
def test_a_broken_denoiser_is_named(kind: str, said: str) -> None:
    network = Network(kind).train(kind == "normed")
    fails(said, check_denoiser, network, X_T, TIMES, MASK, MASK, z=Z)


def test_classes_of_tokens_are_counted() -> None:
    tokens = torch.zeros(3, 2).long()
    fails(
        "classes: measured 3, expected 4",
        check_denoiser,
        lambda x, t, c: of_chances(x, t),
        tokens,
        TIMES[:3],
        outputs=4,
    )


def objective_of(tap: str, **more: Any) -> Objective:
    latent = Latent("z", tap, 8, 4, Gaussian(), "global", hidden=8, layers=2, injection="explicit")
    return Objective(Interpolant(), [latent], **more)


def test_a_head_upstream_of_the_injection_sees_nothing() -> None:
    check_no_leak(objective_of("blocks.0"), Network(), X_T, Z, MASK, MASK)
    check_no_leak(objective_of("blocks.1", head_pass="null"), Network(), X_T, Z, MASK, MASK)


@pytest.mark.parametrize("tap", ["blocks.1", "blocks.1.linear1", "out"])
@pytest.mark.parametrize("asleep", [False, True], ids=["", "adapter at zero"])
def test_a_head_behind_the_injection_is_named(tap: str, asleep: bool) -> None:
    network = Network()
    if asleep:
        nn.init.zeros_(network.told.weight)
        nn.init.zeros_(network.told.bias)
    width = network.get_submodule(tap).out_features if tap != "blocks.1" else 8
    latent = replace(objective_of(tap).latents[0], tap_dim=width)
    before = copy.deepcopy(network.state_dict())
    said = f"alignment loss of 'z' when the denoiser is told another z: .*'{tap}'.*head_pass='null'"
    fails(said, check_no_leak, Objective(Interpolant(), [latent]), network, X_T, Z, MASK, MASK)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_network_of_adapters_says_itself_where_z_entered() -> None:
    network = Injected(Network(), [AdaLN("z", 4, "blocks.0", 8)])
    check_no_leak(objective_of("blocks.0"), network, X_T, Z, MASK, MASK)
    check_denoiser(network.eval(), X_T, TIMES, MASK, MASK, z=Z)
    fails("measured a refusal .*tap upstream", check_no_leak, objective_of("blocks.1"), network, X_T, Z, MASK, MASK)


def test_without_an_explicit_latent_there_is_nothing_to_leak() -> None:
    implicit = replace(objective_of("blocks.0").latents[0], injection="implicit")
    fails("no explicit latent", check_no_leak, Objective(Interpolant(), [implicit]), Network(), X_T, Z, MASK, MASK)


def test_the_level_of_a_statistical_check_is_what_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.rand(200, 1, generator=generator) for _ in range(400)]
    most = critical(200, 200, 1)
    assert all(ks(one, other) < most for one, other in zip(drawn[::2], drawn[1::2], strict=True))
    assert ks(drawn[0], drawn[1] + 2 * most) > most
    assert 2 * math.exp(-2 * most**2 * 100) == pytest.approx(LEVEL)
    slow = max(float((drawn[0] <= x).double().mean() - (drawn[1] <= x).double().mean()) for x in torch.cat(drawn[:2]))
    assert ks(drawn[0], drawn[1]) >= slow
