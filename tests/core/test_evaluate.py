"""The bound of a model against -log q(x_0, z), where that is known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from reed_core.bound.estimate import BoundEstimate, Estimate, describe_process
from reed_core.bound.evaluate import evaluate_bound
from reed_core.bound.monte_carlo import TimeDensity
from reed_core.coupling import Coupling, Independent, Nested, Sampled
from reed_core.errors import InputError
from reed_core.generator import Flow
from reed_core.head import Categorical, Gaussian, VonMisesFisher
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant, Masked, Product, UniformDiscrete
from reed_core.regulariser import Dispersive
from reed_core.reveal import Cutoff, PointMass, RevealDensity, Uniform
from reed_core.train.data import Batch
from torch import Tensor, nn

REVEALS = {"uniform": Uniform(), "first": PointMass(1.0), "late": PointMass(0.2), "cutoff": Cutoff(0.1, 0.3)}


def batches(x_0: Tensor, z: Mapping[str, Tensor], sizes: Sequence[int]) -> list[Batch]:
    parts = zip(x_0.split(list(sizes)), *(value.split(list(sizes)) for value in z.values()), strict=True)
    return [Batch(x, z={name: Representation(v) for name, v in zip(z, values, strict=True)}) for x, *values in parts]


def agree(found: Estimate, truth: float, within: float = 4.0) -> bool:
    return abs(found.mean - truth) < within * found.draw_error + 1e-3


# Linear-Gaussian: x_0 ~ N(MEAN, VARIANCE) in two dimensions, z = x_0[0] + R e.
MEAN, VARIANCE, R = torch.tensor([0.3, -0.5]).double(), torch.tensor([0.7, 1.6]).double(), 0.5
PROCESS = Interpolant(t_min=0.1, t_max=0.995)


@dataclass(frozen=True)
class SpreadGaussian:
    """A Gaussian head whose standard deviation follows x_t: exact for linear-Gaussian data at every t."""

    def energy(self, predicted: Tensor, z: Tensor) -> Tensor:
        mean, log_variance = predicted[..., 0], predicted[..., 1]
        return 0.5 * ((z[..., 0] - mean).square() / log_variance.exp() + log_variance + math.log(2 * math.pi))

    def log_normaliser(self, dim: int) -> float:
        return 0.0

    def sample(self, predicted: Tensor, noise: NoiseSource) -> Tensor:
        raise NotImplementedError

    def mode(self, predicted: Tensor) -> Tensor:
        raise NotImplementedError


class Same(nn.Module):
    """A projector that does nothing, with a parameter for its dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        return self.one * features


class LinearDenoiser(nn.Module):
    """E[v | x_t] or E[v | x_t, z], and what x_t alone says of z."""

    def __init__(self, process: Interpolant = PROCESS, error: float = 0.0) -> None:
        super().__init__()
        self.process, self.error = process, error
        self.head = nn.Identity()

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None, z: Any = None) -> Tensor:
        at = self.process.coefficients(t.double()[:, None])
        precision = 1 / VARIANCE + (at.signal / at.noise).square()
        weighted = MEAN / VARIANCE + at.signal * x_t / at.noise.square()
        self.head(torch.stack([(weighted / precision)[:, 0], (1 / precision[:, 0] + R**2).log()], -1))
        if z:
            told = z["z"].shown.double() / R**2
            precision = precision + torch.stack([told, 0 * told], -1)
            weighted = weighted + torch.stack([told * z["z"].z[:, 0], 0 * told], -1)
        x_0 = weighted / precision + self.error
        return (x_t - at.signal * x_0) / at.noise - x_0


def linear_objective(reveal: RevealDensity, injection: Any, head: Any = None, weight: float = 0.5) -> Objective:
    head = head or SpreadGaussian()
    dim = 2 if isinstance(head, SpreadGaussian) else 1
    latent = Latent(
        "z", "head", 2, dim, head=head, level="global", reveal=reveal, injection=injection, weight=weight, layers=1
    )
    objective = Objective(PROCESS, [latent])
    if isinstance(head, SpreadGaussian):
        objective.readouts["z"].projector = Same()
    return objective


def linear_data(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    x_0 = MEAN + VARIANCE.sqrt() * eps[:, :2]
    return x_0, x_0[:, :1] + R * eps[:, 2:]


def linear_surprise(x_0: Tensor, z: Tensor | None) -> Tensor:
    """-log q(x_0, z), or of x_0 alone."""
    cost = 0.5 * ((x_0 - MEAN).square() / VARIANCE + VARIANCE.log() + math.log(2 * math.pi)).sum(1)
    return cost if z is None else cost + 0.5 * ((z - x_0[:, :1]).square() / R**2 + math.log(2 * math.pi * R**2))[:, 0]


def tau_grid(reveal: RevealDensity, process: Any, count: int = 1000) -> Tensor:
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return reveal.quantile(u).clamp(process.t_min, process.t_max)


def linear_alignment(x_0: Tensor, z: Tensor, reveal: RevealDensity) -> Tensor:
    """E[-log q(z | x_tau)] given x_0, by quadrature over tau: the mean of z is linear in x_tau."""
    at = PROCESS.coefficients(tau_grid(reveal, PROCESS))
    precision = 1 / VARIANCE[0] + (at.signal / at.noise).square()
    slope = at.signal / at.noise.square() / precision
    gap = z - MEAN[0] / VARIANCE[0] / precision - slope * at.signal * x_0[:, :1]
    variance = 1 / precision + R**2
    square = gap.square() + (slope * at.noise).square()
    return (0.5 * (square / variance + (2 * math.pi * variance).log())).mean(1)


@pytest.mark.parametrize("injection", ["implicit", "explicit"])
@pytest.mark.parametrize("reveal", REVEALS.values(), ids=REVEALS)
def test_exact_heads_on_gaussian_data_give_the_surprise(reveal: RevealDensity, injection: str) -> None:
    """When the denoiser is told z (D4); when not, it pays for x_0 alone and the head for z seen from x_tau (D8)."""
    x_0, z = linear_data(200)
    found = evaluate_bound(
        LinearDenoiser(), linear_objective(reveal, injection), batches(x_0, {"z": z}, [200]), times=8
    )
    alignment, truth = linear_alignment(x_0, z, reveal), linear_surprise(x_0, z)
    if injection == "implicit":
        truth = linear_surprise(x_0, None) + alignment
    assert agree(found.terms["alignment/z"], alignment.mean().item())
    assert agree(found.total, truth.mean().item())
    assert found.total.draw_error < 0.08
    assert found.bits_per_dim.mean == pytest.approx(found.total.mean / 2 / math.log(2))
    normaliser = found.terms["log_normaliser"].mean
    assert (normaliser == 0) == (injection == "implicit" or isinstance(reveal, PointMass))
    assert normaliser <= 0


@pytest.mark.parametrize("reveal", REVEALS.values(), ids=REVEALS)
def test_being_told_z_saves_what_its_head_paid_for_seeing_noise(reveal: RevealDensity) -> None:
    """THEORY D8, sample by sample: E[-log q(z|x_tau)] + log q(z|x_0), with common draws and so sharply."""
    x_0, z = linear_data(200)
    told, untold = (
        evaluate_bound(LinearDenoiser(), linear_objective(reveal, injection), batches(x_0, {"z": z}, [200]), times=8)
        for injection in ("explicit", "implicit")
    )
    saving = linear_alignment(x_0, z, reveal) - (linear_surprise(x_0, z) - linear_surprise(x_0, None))
    change = told.compare(untold).nats
    assert abs(change.mean + saving.mean().item()) < 4 * change.draw_error
    assert change.draw_error < 0.03


def test_without_latents_it_is_the_bound_of_plain_diffusion() -> None:
    x_0, _ = linear_data(300)
    found = evaluate_bound(LinearDenoiser(), Objective(PROCESS), batches(x_0, {}, [300]), times=8)
    assert agree(found.total, linear_surprise(x_0, None).mean().item())
    assert set(found.terms) == {"prior", "denoising", "log_normaliser", "reconstruction"}


def test_a_latent_of_weight_0_is_only_a_condition() -> None:
    x_0, z = linear_data(200)
    objective = linear_objective(PointMass(1.0), "explicit", weight=0.0)
    found = evaluate_bound(LinearDenoiser(), objective, batches(x_0, {"z": z}, [200]), times=8)
    total = VARIANCE[0] + R**2
    of_z = 0.5 * ((z[:, 0] - MEAN[0]).square() / total + (2 * math.pi * total).log())
    assert agree(found.total, (linear_surprise(x_0, z) - of_z).mean().item())
    assert "condition" in str(found)


def test_a_wrong_denoiser_costs_its_squared_error() -> None:
    """An x_0-prediction off by e costs e^2 / 2 (snr(t_min) - snr(t_max)), and e^2 / 2 snr(t_min) in the decoder."""
    x_0, _ = linear_data(300)
    data = batches(x_0, {}, [300])
    right = evaluate_bound(LinearDenoiser(), Objective(PROCESS), data, times=8)
    wrong = evaluate_bound(LinearDenoiser(error=0.1), Objective(PROCESS), data, times=8)
    found = wrong.compare(right)
    ratio = [((1 - t) / t) ** 2 for t in (PROCESS.t_min, PROCESS.t_max)]
    assert found.common_draws
    truth = 2 * 0.1**2 * 0.5 * (ratio[0] - ratio[1] + ratio[0])
    assert abs(found.nats.mean - truth) < 4 * found.nats.standard_error
    assert found.nats.standard_error < 0.1 * truth


def test_errors_cover_the_truth_as_often_as_they_say() -> None:
    """Those of the draws on these samples, and those over all such data, whose mean surprise is the entropy."""
    entropy = 0.5 * (VARIANCE.log() + math.log(2 * math.pi) + 1).sum().item()
    runs = 100
    scores: dict[str, list[float]] = {"draws": [], "data": []}
    for seed in range(runs):
        x_0, _ = linear_data(40, seed=seed)
        data = batches(x_0, {}, [40])
        found = evaluate_bound(LinearDenoiser(), Objective(PROCESS), data, seed=seed, repeats=2, times=2).total
        scores["draws"].append((found.mean - linear_surprise(x_0, None).mean().item()) / found.draw_error)
        scores["data"].append((found.mean - entropy) / found.standard_error)
    for kind, values in scores.items():
        within = sum(abs(value) < 2 for value in values) / runs
        assert 0.89 <= within <= 0.99, (kind, within)
        assert abs(sum(values)) / runs < 4 / math.sqrt(runs), kind


# Tokens: any table q(x_1, x_2, z_1, z_2) of two tokens of 3 states and two latents of 2, under masked diffusion.
TOKENS = Masked(num_tokens=3, mask_token=3)
TABLE = torch.softmax(2.5 * torch.randn(36, generator=torch.Generator().manual_seed(4), dtype=torch.float64), 0)
TABLE = TABLE.view(3, 3, 2, 2)
NAMES = ("z1", "z2")


class TableDenoiser(nn.Module):
    """Exact token posteriors, and the exact joint of both latents given x_t (and, downstream, given those told)."""

    def __init__(self, downstream: bool = False) -> None:
        super().__init__()
        self.downstream = downstream
        self.head = nn.Identity()

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None, z: Any = None) -> Tensor:
        one_hot = torch.cat([torch.eye(3), torch.ones(1, 3)]).double()[x_t]
        joint = torch.einsum("abcd,na,nb->nabcd", TABLE, one_hot[:, 0], one_hot[:, 1])
        if not self.downstream:
            self.head(joint.sum((1, 2)).flatten(1))
        for axis, name in enumerate(NAMES):
            if z and name in z:
                evidence = torch.where(z[name].shown[:, None], nn.functional.one_hot(z[name].z, 2), 1)
                joint = joint * evidence.view(-1, 1, 1, *([2, 1] if axis == 0 else [1, 2]))
        if self.downstream:
            self.head(joint.sum((1, 2)).flatten(1))
        marginals = torch.stack([joint.sum((2, 3, 4)), joint.sum((1, 3, 4))], 1)
        return marginals.clamp(min=1e-300).log()


class TableProjector(Same):
    """p(z_l | x_t, the other if shown) from their joint: features are the joint, the other's one-hot and its flag."""

    def __init__(self, axis: int, wrong: float = 0.0) -> None:
        super().__init__()
        self.axis, self.wrong = axis, wrong

    def forward(self, features: Tensor) -> Tensor:
        joint = features[:, :4].view(-1, 2, 2)
        joint = joint if self.axis == 0 else joint.mT
        if features.shape[1] > 4:
            joint = joint * torch.where(features[:, 6:] > 0, features[:, 4:6], 1.0)[:, None]
        return joint.sum(-1).log() + torch.tensor([self.wrong, 0.0])


def table_objective(
    reveals: Sequence[RevealDensity],
    injections: Sequence[Any] = ("explicit", "explicit"),
    coupling: Coupling | None = None,
    wrong: float = 0.0,
    given: bool = True,
) -> Objective:
    latents = [
        Latent(name, "head", 4, 2, head=Categorical(), level="global", reveal=reveal, injection=injection)
        for name, reveal, injection in zip(NAMES, reveals, injections, strict=False)
    ]
    if given and len(latents) == 2:
        latents = [replace(latents[0], given=("z2",)), replace(latents[1], given=("z1",))]
    objective = Objective(TOKENS, latents, coupling=coupling)
    for axis, latent in enumerate(latents):
        objective.readouts[latent.name].projector = TableProjector(axis, wrong)
    return objective.double()


def table_data(count: int) -> tuple[Tensor, dict[str, Tensor]]:
    drawn = torch.multinomial(TABLE.flatten(), count, replacement=True, generator=torch.Generator().manual_seed(3))
    x_1, x_2, z_1, z_2 = torch.unravel_index(drawn, TABLE.shape)
    return torch.stack([x_1, x_2], 1), {"z1": z_1, "z2": z_2}


def margin(axes: int) -> Tensor:
    """The table of the first few of x_1, x_2, z_1, z_2."""
    return TABLE.sum(tuple(range(axes, 4))) if axes < 4 else TABLE


def table_surprise(x_0: Tensor, z: Mapping[str, Tensor]) -> float:
    index = [x_0[:, 0], x_0[:, 1], *z.values()]
    return -margin(len(index))[tuple(index)].log().mean().item()


def table_alignment(x_0: Tensor, z: Mapping[str, Tensor], reveal: RevealDensity) -> float:
    """E[-log q(z | x_tau)] of all latents given, over tau and over which tokens are masked."""
    tau, cost = tau_grid(reveal, TOKENS), 0.0
    table = margin(2 + len(z))
    for first in (False, True):
        for second in (False, True):
            chance = ((tau if first else 1 - tau) * (tau if second else 1 - tau)).mean().item()
            known = table.sum(0, keepdim=True).expand_as(table) if first else table
            known = known.sum(1, keepdim=True).expand_as(table) if second else known
            known = known / known.flatten(2).sum(2).view(3, 3, *[1] * len(z))
            cost -= chance * known[(x_0[:, 0], x_0[:, 1], *z.values())].log().mean().item()
    return cost


@pytest.mark.parametrize("injection", ["implicit", "explicit"])
@pytest.mark.parametrize("reveal", REVEALS.values(), ids=REVEALS)
def test_exact_heads_on_tokens_give_the_surprise(reveal: RevealDensity, injection: str) -> None:
    x_0, z = table_data(200)
    z = {"z1": z["z1"]}
    found = evaluate_bound(TableDenoiser(), table_objective([reveal], [injection]), batches(x_0, z, [200]))
    alignment, truth = table_alignment(x_0, z, reveal), table_surprise(x_0, z)
    if injection == "implicit":
        truth = table_surprise(x_0, {}) + alignment
    assert agree(found.terms["alignment/z1"], alignment)
    assert agree(found.total, truth)
    assert found.total.draw_error < 0.05


ANY = Sampled(lambda noise: noise.uniform((2,)).sort(dim=1, descending=True).values[:, [0, 0]].float())


@pytest.mark.parametrize(
    ("reveals", "injections", "coupling"),
    [
        ((Uniform(), Uniform()), ("explicit", "explicit"), Independent()),
        ((Uniform(), Uniform()), ("explicit", "explicit"), Nested()),
        ((PointMass(1.0), Uniform()), ("explicit", "explicit"), Nested()),
        ((PointMass(1.0), PointMass(1.0)), ("explicit", "explicit"), Independent()),
        ((Cutoff(0.5, 1.0), PointMass(0.0)), ("explicit", "implicit"), Independent()),
        ((PointMass(0.6), PointMass(0.6)), ("implicit", "implicit"), Independent()),
        ((Uniform(), Uniform()), ("explicit", "explicit"), ANY),
    ],
    ids=["independent", "nested", "nested point mass", "both at once", "one told", "none told", "sampled"],
)
def test_two_latents_that_depend_on_each_other(
    reveals: Sequence[RevealDensity], injections: Sequence[str], coupling: Coupling
) -> None:
    """The chain rule holds in whatever order z_1 and z_2 are revealed, ties included."""
    x_0, z = table_data(200)
    if coupling is ANY:  # both times are the larger of two uniform numbers
        reveals = (_Largest(), _Largest())
    found = evaluate_bound(TableDenoiser(), table_objective(reveals, injections, coupling), batches(x_0, z, [200]))
    truth = table_surprise(x_0, z)
    if "explicit" not in injections:
        truth = table_surprise(x_0, {}) + table_alignment(x_0, z, reveals[0])
    assert agree(found.total, truth)
    assert found.total.draw_error < 0.07
    assert ("log_normaliser" in found.terms) == (injections != ("explicit", "explicit"))


def test_a_head_downstream_of_other_latents_is_shown_those_revealed_before() -> None:
    """As in a shared training pass, but its own z never: the chain rule holds without `given`."""
    x_0, z = table_data(150)
    objective = table_objective([Uniform(), Uniform()], given=False)
    found = evaluate_bound(TableDenoiser(downstream=True), objective, batches(x_0, z, [150]))
    assert agree(found.total, table_surprise(x_0, z))
    objective.head_pass = "null"
    blind = evaluate_bound(TableDenoiser(downstream=True), objective, batches(x_0, z, [150]))
    assert blind.compare(found).nats.mean > 0.05


@dataclass(frozen=True)
class Fields:
    """A batch of named fields."""

    x_0: Mapping[str, Tensor]
    c: Any = None
    mask: Any = None
    z: Any = None


class PairDenoiser(nn.Module):
    """Exact posteriors of two tokens, one under uniform and one under masked diffusion."""

    def forward(self, x_t: Any, t: Tensor, c: Any = None) -> Any:
        uniform = (1 - t.double())[:, None] * torch.eye(3).double()[x_t["a"][:, 0]] + t.double()[:, None] / 3
        masked = torch.cat([torch.eye(3), torch.ones(1, 3)]).double()[x_t["b"][:, 0]]
        joint = torch.einsum("ab,na,nb->nab", TABLE.sum((2, 3)), uniform, masked)
        return {"a": joint.sum(2, keepdim=True).mT.log(), "b": joint.sum(1, keepdim=True).clamp(min=1e-300).log()}


def test_fields_of_two_processes_give_the_surprise() -> None:
    x_0, _ = table_data(300)
    process = Product({"a": UniformDiscrete(3), "b": TOKENS})
    data = [Fields({"a": x[:, :1], "b": x[:, 1:]}) for x in x_0.split([100, 200])]
    found = evaluate_bound(PairDenoiser(), Objective(process), data)
    assert agree(found.total, table_surprise(x_0, {}))
    assert found.total.draw_error < 0.06
    assert found.elements.tolist() == [2.0] * 300


@dataclass(frozen=True)
class _Largest(RevealDensity):
    def density(self, t: Tensor) -> Tensor:
        return 2 * t

    def survival(self, t: Tensor) -> Tensor:
        return 1 - t.square()

    def quantile(self, u: Tensor) -> Tensor:
        return u.sqrt()


def test_a_head_that_ignores_another_latent_pays_their_mutual_information() -> None:
    """Revealed at t = 1, where x_t says nothing: log p(z_1) + log p(z_2) against log p(z_1, z_2)."""
    x_0, z = table_data(100)
    both = (PointMass(1.0), PointMass(1.0))
    found = [
        evaluate_bound(TableDenoiser(), table_objective(both, given=given), batches(x_0, z, [100]), repeats=2, times=1)
        for given in (False, True)
    ]
    table = TABLE.sum((0, 1))
    apart = table.sum(1, keepdim=True) * table.sum(0, keepdim=True)
    assert found[0].compare(found[1]).nats.mean == pytest.approx(
        (table / apart).log()[z["z1"], z["z2"]].mean().item(), abs=1e-6
    )


def test_a_wrong_head_costs_its_expected_kl() -> None:
    """Over tau ~ uniform, no token is masked with probability 1/3, a given one alone with 1/6, both with 1/3."""
    x_0, z = table_data(1500)
    data = batches(x_0, {"z1": z["z1"]}, [500] * 3)
    right, wrong = (
        evaluate_bound(
            TableDenoiser(), table_objective([Uniform()], ["implicit"], wrong=error), data, repeats=2, times=2
        )
        for error in (0.0, 1.5)
    )
    table, kl = TABLE.sum(3), 0.0
    for known, chance in ((table, 1 / 3), (table.sum(0), 1 / 6), (table.sum(1), 1 / 6), (table.sum((0, 1)), 1 / 3)):
        exact = known / known.sum(-1, keepdim=True)
        said = torch.softmax(exact.log() + torch.tensor([1.5, 0.0]), -1)
        kl += chance * (known * (exact / said).log()).sum().item()
    found = wrong.compare(right).nats
    assert abs(found.mean - kl) < 4 * found.standard_error
    assert found.standard_error < 0.2 * kl


def test_the_reveal_density_moves_nats_between_terms_and_not_the_total() -> None:
    """THEORY D4, D8: early revealing pays more for alignment and saves exactly that in denoising."""
    x_0, z = table_data(150)
    early, late = (
        evaluate_bound(TableDenoiser(), table_objective([reveal]), batches(x_0, {"z1": z["z1"]}, [150]), times=8)
        for reveal in (PointMass(1.0), Cutoff(0.0, 0.3))
    )
    paid = early.terms["alignment/z1"].mean - late.terms["alignment/z1"].mean
    assert paid > 0.05
    change = early.compare(late)
    assert abs(change.nats.mean) < 4 * change.nats.draw_error
    assert change.nats.draw_error < 0.5 * paid
    assert change.common_draws
    assert change.nats.standard_error < 0.5 * math.hypot(early.total.standard_error, late.total.standard_error)


def test_the_same_seed_gives_the_same_numbers_in_any_batches() -> None:
    x_0, z = table_data(12)
    objective = table_objective([Uniform(), Cutoff(0.1, 0.9)])
    whole, parts, other = (
        evaluate_bound(TableDenoiser(), objective, batches(x_0, z, sizes), seed=seed)
        for sizes, seed in (([12], 5), ([5, 1, 6], 5), ([12], 6))
    )
    assert whole.signature == parts.signature
    assert torch.allclose(whole.totals, parts.totals)
    assert not torch.allclose(whole.totals, other.totals)
    assert whole.compare(parts).nats.mean == pytest.approx(0.0, abs=1e-9)
    change = whole.compare(other)
    assert change.paired
    assert not change.common_draws
    assert change.nats.standard_error < math.hypot(whole.total.standard_error, other.total.standard_error)


def test_padding_changes_nothing() -> None:
    x_0, _ = table_data(4)
    wide = torch.nn.functional.pad(x_0, (0, 3), value=1)
    mask = torch.arange(5).expand(4, -1) < 2

    class Sliced(TableDenoiser):
        def forward(self, x_t: Tensor, t: Tensor, c: Any = None, z: Any = None) -> Tensor:
            return torch.nn.functional.pad(super().forward(x_t[:, :2], t), (0, 0, 0, x_t.shape[1] - 2))

    tight, padded = (
        evaluate_bound(Sliced(), Objective(TOKENS), [Batch(x, mask=kept)]) for x, kept in ((x_0, None), (wide, mask))
    )
    assert torch.allclose(tight.totals, padded.totals)
    assert tight.signature == padded.signature
    assert padded.elements.tolist() == [2.0] * 4


def test_stratified_times_follow_their_density() -> None:
    for density in (TimeDensity(0.001, 0.999), TimeDensity(0.0, 1.0)):
        u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
        t = density.quantile(u)
        assert density.low <= t.min()
        assert t.max() <= density.high
        assert (1 / density.density(t)).mean().item() == pytest.approx(density.high - density.low, rel=1e-3)
        assert (t / density.density(t)).mean().item() == pytest.approx((density.high**2 - density.low**2) / 2, rel=1e-3)


def test_modes_come_back_and_no_gradient_is_kept() -> None:
    denoiser, objective = LinearDenoiser(), linear_objective(Uniform(), "implicit", Gaussian())
    denoiser.train()
    denoiser.head.eval()
    x_0, z = linear_data(4)
    found = evaluate_bound(denoiser, objective.double(), batches(x_0, {"z": z}, [4]))
    assert denoiser.training
    assert not denoiser.head.training
    assert objective.training
    assert not found.totals.requires_grad
    with pytest.raises(RuntimeError, match="broken"):
        evaluate_bound(denoiser, objective, _broken())
    assert denoiser.training


def _broken() -> Any:
    raise RuntimeError("broken")
    yield


def bound_of(head: Any, reveal: RevealDensity | None = None, process: Any = None, **latent: Any) -> BoundEstimate:
    x_0, z = linear_data(6)
    described = Latent("z", "head", 2, 1, head=head, level="global", reveal=reveal or Uniform(), **latent)
    objective = Objective(process or PROCESS, [described]).double()
    return evaluate_bound(LinearDenoiser(), objective, batches(x_0, {"z": z}, [6]), repeats=2, times=1)


def test_what_cannot_be_compared_is_refused() -> None:
    one = bound_of(Gaussian(0.5))
    assert one.compare(bound_of(Gaussian(0.5), PointMass(0.5))).paired
    plain = evaluate_bound(LinearDenoiser(), Objective(PROCESS), batches(linear_data(6)[0], {}, [6]))
    cases = [
        (plain, "same latents"),
        (bound_of(Gaussian(0.6)), "fix one kappa or sigma"),
        (bound_of(VonMisesFisher(2.0)), "fix one kappa or sigma"),
        (bound_of(Flow(hidden=8, layers=1)), "free concentration"),
        (bound_of(Gaussian(0.5), process=replace(PROCESS, t_min=0.05)), "one process"),
        (bound_of(Gaussian(0.5), weight=0.0, injection="explicit"), "same latents"),
    ]
    for other, message in cases:
        for left, right in ((one, other), (other, one)):
            with pytest.raises(InputError, match=message) as error:
                left.compare(right)
            assert "\n" not in str(error.value)
    flow = bound_of(Flow(hidden=8, layers=1))
    with pytest.raises(InputError, match="free"):
        flow.compare(flow)


def test_other_values_of_a_latent_on_the_same_data_are_refused() -> None:
    x_0, z = linear_data(6)
    objective = linear_objective(Uniform(), "implicit")
    one, other, elsewhere = (
        evaluate_bound(LinearDenoiser(), objective, batches(x, {"z": value}, [6]), repeats=2, times=1)
        for x, value in ((x_0, z), (x_0, z + 1), linear_data(6, seed=8))
    )
    with pytest.raises(InputError, match="other values"):
        one.compare(other)
    assert not one.compare(elsewhere).paired


def test_another_parametrisation_is_no_other_process() -> None:
    assert describe_process(Interpolant(prediction="eps")) == describe_process(Interpolant(prediction="v"))
    assert describe_process(Interpolant(path="trig")) != describe_process(Interpolant())
    assert describe_process({"a": Interpolant(prediction="x0")}) == describe_process({"a": Interpolant()})


def test_the_table_names_every_term_and_what_it_means() -> None:
    x_0, z = linear_data(6)
    objective = linear_objective(Uniform(), "explicit")
    with_regulariser = Objective(PROCESS, objective.latents, regularisers=[Dispersive("head")])
    with_regulariser.readouts = objective.readouts
    text = str(evaluate_bound(LinearDenoiser(), with_regulariser, batches(x_0, {"z": z}, [6])))
    for part in ("prior", "denoising", "- log Z", "reconstruction", "alignment of z", "total, bits/dim", "unbounded"):
        assert part in text
    assert "left out: regulariser 'dispersive'" in text


def test_what_is_missing_is_said() -> None:
    x_0, z = linear_data(4)
    objective = linear_objective(Uniform(), "implicit")
    with pytest.raises(InputError, match="no representation for latent z"):
        evaluate_bound(LinearDenoiser(), objective, [Batch(x_0)])
    with pytest.raises(InputError, match="no sample"):
        evaluate_bound(LinearDenoiser(), objective, [])
    with pytest.raises(InputError, match="2 repeats"):
        evaluate_bound(LinearDenoiser(), objective, batches(x_0, {"z": z}, [4]), repeats=1)
    done: list[int] = []
    evaluate_bound(LinearDenoiser(), objective, batches(x_0, {"z": z}, [3, 1]), progress=done.append)
    assert done == [3, 4]
