"""Uniform-state diffusion on three states: the bound against sums of finite steps, exact posteriors, sampling."""

import math
from itertools import pairwise

import pytest
import torch
from process_cases import gauss, noise_for
from reed_core.noise import NoiseSource
from reed_core.process import Corrupted, UniformDiscrete
from torch import Tensor

DOUBLE = torch.float64
LAW = torch.tensor([0.7, 0.25, 0.05], dtype=DOUBLE)
STATES = torch.arange(3)
PROCESS = UniformDiscrete(3)


def marginal(t: float) -> Tensor:
    """q_t(j | x_0), rows x_0."""
    return (1 - t) * torch.eye(3, dtype=DOUBLE) + t / 3


def posterior(t: float, law: Tensor = LAW) -> Tensor:
    """p(x_0 | x_t) by Bayes' rule, rows x_t."""
    joint = law[:, None] * marginal(t)
    return (joint / joint.sum(0)).T


def pairs(t: float) -> Corrupted:
    """Every x_0 with every x_t, nine samples of one token."""
    clean, here = STATES.repeat_interleave(3)[:, None], STATES.repeat(3)[:, None]
    return Corrupted(clean, here, torch.full((9,), t, dtype=DOUBLE), clean)


def expected(process: UniformDiscrete, t: float, said: Tensor, what: str = "nats") -> Tensor:
    """A cost averaged over x_t, for each x_0; `said` holds log p(x_0 | x_t), rows x_t."""
    corrupted = pairs(t)
    cost = getattr(process, what)(said[corrupted.x_t], corrupted)
    return (marginal(t) * cost.view(3, 3)).sum(1)


def bound(process: UniformDiscrete, law: Tensor) -> Tensor:
    """Prior + integral + reconstruction for each x_0, of a model that is exact for the data law given."""
    total = process.prior_nats(STATES[:, None]).to(DOUBLE)
    edges = [process.t_min, 10 * process.t_min, 0.2, process.t_max]
    for low, high in pairwise(edges):
        for t, width in zip(*gauss(low, high, 30), strict=True):
            total = total + width * expected(process, float(t), posterior(float(t), law).log())
    last = posterior(process.t_min, law).log()
    return total + expected(process, process.t_min, last, "reconstruction_nats")


def test_the_bound_of_the_exact_posterior_is_the_likelihood_of_every_token() -> None:
    torch.testing.assert_close(bound(PROCESS, LAW), -LAW.log(), rtol=0, atol=1e-7)


def test_a_shorter_range_of_times_costs_what_the_prior_misses() -> None:
    """E bound = H(q) + KL(q_{t_max} || uniform)."""
    end = LAW @ marginal(0.8)
    gap = (end * (3 * end).log()).sum()
    found = (LAW * bound(UniformDiscrete(3, t_max=0.8), LAW)).sum()
    torch.testing.assert_close(found, -(LAW * LAW.log()).sum() + gap, rtol=0, atol=1e-7)


@pytest.mark.parametrize("other", [[0.4, 0.4, 0.2], [0.05, 0.25, 0.7]], ids=str)
def test_a_model_of_another_law_costs_the_divergence_between_them(other: list[float]) -> None:
    law = torch.tensor(other, dtype=DOUBLE)
    found = bound(PROCESS, law)
    torch.testing.assert_close(found, -law.log(), rtol=0, atol=1e-7)
    assert float((LAW * (found + LAW.log())).sum()) > 0.1


def test_any_wrong_prediction_costs_more_than_the_exact_posterior() -> None:
    generator = torch.Generator().manual_seed(0)
    for t in (0.01, 0.3, 0.8, 0.999):
        right = posterior(t).log()
        least = float((LAW * expected(PROCESS, t, right)).sum())
        for _ in range(20):
            wrong = right + 0.1 * torch.randn(3, 3, dtype=DOUBLE, generator=generator)
            assert float((LAW * expected(PROCESS, t, wrong)).sum()) > least


def test_the_nats_are_the_limit_of_sums_over_discrete_steps() -> None:
    """sum over a grid of E KL(q(x_s|x_t,x_0) || p(x_s|x_t)) tends to the integral, with an error of order 1/N."""
    low, high = 0.2, 0.9

    def kernel(chances: Tensor, t: float, s: float) -> Tensor:
        """p(x_s | x_t) by enumeration; rows of `chances` x_t, of the result x_t."""
        keep = (1 - t) / (1 - s)
        forward = keep * torch.eye(3, dtype=DOUBLE) + (1 - keep) / 3
        out = torch.zeros(3, 3, dtype=DOUBLE)
        for i in range(3):
            for clean in range(3):
                reverse = marginal(s)[clean] * forward[:, i]
                out[i] += chances[i, clean] * reverse / reverse.sum()
        return out

    wrong = torch.randn(3, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(3)).log_softmax(-1)
    integral = sum(float(w * expected(PROCESS, float(t), wrong)[0]) for t, w in zip(*gauss(low, high, 20), strict=True))
    errors = []
    for count in (50, 100, 200):
        total, grid = 0.0, torch.linspace(low, high, count + 1, dtype=DOUBLE).tolist()
        for s, t in pairwise(grid):
            q, p = kernel(torch.eye(3, dtype=DOUBLE)[[0, 0, 0]], t, s), kernel(wrong.exp(), t, s)
            total += float((marginal(t)[0] * (q * (q / p).log()).sum(1)).sum())
        errors.append(total - integral)
    assert abs(errors[2]) < 0.02 * integral
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(("t", "s"), [(1.0, 0.4), (0.7, 0.65), (0.3, 0.0), (0.001, 0.0)])
def test_a_step_is_the_posterior_mixture_by_enumeration(t: float, s: float) -> None:
    chances = posterior(0.5)
    rows = torch.full((3,), 1.0, dtype=DOUBLE)
    found = PROCESS.step_log_probs(chances.log()[:, None], STATES[:, None], t * rows, s * rows)[:, 0].exp()
    keep = (1 - t) / (1 - s)
    forward = keep * torch.eye(3, dtype=DOUBLE) + (1 - keep) / 3
    for i in range(3):
        slow = torch.zeros(3, dtype=DOUBLE)
        for clean in range(3):
            joint = marginal(s)[clean] * forward[:, i]
            slow += chances[i, clean] * joint / joint.sum()
        torch.testing.assert_close(found[i], slow)
    torch.testing.assert_close(found.sum(-1), rows)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_sampling_with_the_exact_posterior_gives_the_data_law(steps: int) -> None:
    """For a single token the mixture is the exact reverse kernel, whatever the number of steps."""
    count = 200
    noise = NoiseSource(1, range(count))
    x = PROCESS.prior(torch.zeros(count, 100, dtype=torch.long), noise)
    grid = torch.linspace(1, 0, steps + 1, dtype=DOUBLE).tolist()
    for t, s in pairwise(grid):
        at = torch.ones(count, dtype=DOUBLE)
        x = PROCESS.step(posterior(t).log()[x], x, t * at, s * at, noise)
    for token in range(3):
        chance = float(LAW[token])
        assert abs(float((x == token).double().mean()) - chance) < 4 * math.sqrt(chance * (1 - chance) / x.numel())


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 1.0])
def test_a_token_is_redrawn_with_probability_t(t: float) -> None:
    """Its replacement is uniform over all tokens, so it changes with probability t (K - 1) / K."""
    x_0 = torch.randint(3, (500, 20), generator=torch.Generator().manual_seed(0))
    corrupted = PROCESS.corrupt(x_0, torch.full((500,), t), noise_for(500))
    for shift in (1, 2):
        rate = float(((corrupted.x_t - x_0) % 3 == shift).double().mean())
        assert abs(rate - t / 3) <= 4 * math.sqrt(t / 3 * (1 - t / 3) / x_0.numel())


def test_the_elbo_loss_is_its_nats_per_token_and_the_flat_one_cross_entropy() -> None:
    x_0 = torch.randint(3, (4, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(6)[None] < torch.tensor([6, 1, 3, 4])[:, None]
    said = torch.randn(4, 6, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    corrupted = PROCESS.corrupt(x_0, torch.full((4,), 0.6), noise_for(4), mask)
    torch.testing.assert_close(PROCESS.loss(said, corrupted) * mask.sum(1), PROCESS.nats(said, corrupted))
    plain = -said.log_softmax(-1).gather(-1, x_0[..., None])[..., 0]
    expected = torch.where(mask, plain, 0.0).sum(1) / mask.sum(1)
    torch.testing.assert_close(UniformDiscrete(3, "flat").loss(said, corrupted), expected)


def test_the_gradient_of_the_elbo_is_that_of_finite_differences() -> None:
    said = torch.randn(9, 1, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    said[0] += 30.0 * torch.nn.functional.one_hot(torch.tensor([0]), 3)
    for t in (0.001, 0.5, 0.999):
        corrupted = pairs(t)
        assert torch.autograd.gradcheck(
            lambda x, corrupted=corrupted: PROCESS.loss(x, corrupted), said.requires_grad_(), eps=1e-6, atol=1e-5
        )


def test_the_cost_goes_to_zero_with_the_last_of_the_data() -> None:
    said = torch.randn(3, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    assert float(expected(PROCESS, 1.0, said).abs().max()) == 0.0
    near, far = (expected(PROCESS, 1.0 - gap, said) / gap for gap in (1e-6, 1e-4))
    torch.testing.assert_close(near, far, rtol=1e-3, atol=0)


@pytest.mark.parametrize("t", [1e-3, 0.5, 1 - 2.0**-12])
@pytest.mark.parametrize("sure", [0, 1, 2])
def test_a_sure_prediction_costs_the_same_in_single_precision(t: float, sure: int) -> None:
    """Right or wrong: the logarithm of a ratio is lost to rounding neither near 0 nor near 1."""
    said = torch.full((9, 1, 3), -40.0, dtype=DOUBLE)
    said[..., sure] = 40.0
    said += torch.randn(9, 1, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    wide = pairs(t)
    narrow = Corrupted(wide.x_0, wide.x_t, wide.t.float(), wide.target)
    found, exact = PROCESS.nats(said.float(), narrow), PROCESS.nats(said, wide)
    assert float(exact.max()) > (1 - t) / 10
    torch.testing.assert_close(found.double(), exact, rtol=2e-3, atol=1e-6)
