import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from core.bound_models import categorical, gaussian, generator, part, randn
from reed_core.bound.divergence import normaliser_bounds
from reed_core.bound.hybrid import mix_logits, mix_predictions
from reed_core.bound.kernels import CategoricalKernel, GaussianKernel
from reed_core.bound.solvable import reference
from reed_core.bound.terms import draw_kept, expected_denoising, kept_denoising
from torch import Tensor

FORBIDDEN = -torch.inf


@pytest.mark.parametrize("make", [gaussian, categorical])
class TestEveryKernel:
    def test_density_is_that_of_torch(self, make: Callable[..., Any]) -> None:
        kernel = make(6)
        x = kernel.sample(generator())
        assert torch.allclose(kernel.log_prob(x), reference.log_prob(kernel, x))

    def test_kl_is_that_of_torch_and_zero_to_itself(self, make: Callable[..., Any]) -> None:
        left, right = make(6, seed=3), make(6, seed=5)
        assert torch.allclose(left.kl(right), reference.kl(left, right))
        assert torch.allclose(left.kl(left), torch.zeros(6, dtype=torch.float64), atol=1e-12)

    def test_draws_follow_the_density(self, make: Callable[..., Any]) -> None:
        count = 20000
        one = make()
        wide = type(one)(*(value.expand(count, *value.shape) for value in vars(one).values()))
        surprise = -wide.log_prob(wide.sample(generator()))
        entropy = reference_entropy(one)
        assert abs(float(surprise.mean()) - entropy) < 6 * float(surprise.std()) / math.sqrt(count)

    def test_hybrid_ends_at_its_two_kernels(self, make: Callable[..., Any]) -> None:
        alone, given = make(6, seed=3), make(6, seed=5)
        for A, end in ((0, alone), (1, given)):
            hybrid = alone.hybrid(given, A)
            assert torch.allclose(hybrid.log_normaliser, torch.zeros(6, dtype=torch.float64), atol=1e-12)
            assert torch.allclose(hybrid.kernel.kl(end), torch.zeros(6, dtype=torch.float64), atol=1e-12)

    def test_hybrid_is_the_weighted_product_over_its_normaliser(self, make: Callable[..., Any]) -> None:
        alone, given = make(6, seed=3), make(6, seed=5)
        A = torch.rand(6, generator=generator(), dtype=torch.float64)
        hybrid, x = alone.hybrid(given, A), make(6, seed=7).sample(generator())
        product = (1 - A) * alone.log_prob(x) + A * given.log_prob(x)
        assert torch.allclose(hybrid.kernel.log_prob(x) + hybrid.log_normaliser, product)
        assert torch.allclose(hybrid.log_normaliser, reference.log_normaliser(alone, given, A))
        assert (hybrid.log_normaliser < 0).all()

    def test_hybrid_is_the_same_seen_from_the_other_side(self, make: Callable[..., Any]) -> None:
        alone, given = make(6, seed=3), make(6, seed=5)
        here, there = alone.hybrid(given, 0.3), given.hybrid(alone, 0.7)
        assert torch.allclose(here.log_normaliser, there.log_normaliser)
        assert torch.allclose(here.kernel.kl(there.kernel), torch.zeros(6, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(alone.bhattacharyya(given), given.bhattacharyya(alone))

    def test_batch_is_a_loop(self, make: Callable[..., Any]) -> None:
        alone, given, posterior = (make(4, seed=seed) for seed in (3, 5, 7))
        A = torch.rand(4, generator=generator(), dtype=torch.float64)
        together = [
            alone.hybrid(given, A).log_normaliser,
            expected_denoising(posterior, alone, given, A),
            normaliser_bounds(alone, given, A).upper,
            normaliser_bounds(alone, given, A).lower,
        ]
        for i in range(4):
            one = [part(kernel, i) for kernel in (alone, given, posterior)]
            bounds = normaliser_bounds(one[0], one[1], A[i])
            alone_values = [
                one[0].hybrid(one[1], A[i]).log_normaliser,
                expected_denoising(one[2], one[0], one[1], A[i]),
                bounds.upper,
                bounds.lower,
            ]
            assert torch.allclose(torch.stack(alone_values), torch.stack([values[i] for values in together]))

    def test_dropping_z_needs_no_normaliser(self, make: Callable[..., Any]) -> None:
        posterior, alone, given = (make(6, seed=seed) for seed in (3, 5, 7))
        A = torch.linspace(0, 1, 6, dtype=torch.float64)
        hybrid = alone.hybrid(given, A)
        expected = expected_denoising(posterior, alone, given, A)
        assert torch.allclose(posterior.kl(hybrid.kernel) - hybrid.log_normaliser, expected)

    def test_one_draw_of_dropping_is_unbiased(self, make: Callable[..., Any]) -> None:
        posterior, alone, given = (make(seed=seed) for seed in (3, 5, 7))
        A = torch.full((8000,), 0.3, dtype=torch.float64)
        draws = kept_denoising(posterior, alone, given, draw_kept(A, generator()))
        expected = expected_denoising(posterior, alone, given, 0.3)
        assert abs(float(draws.mean() - expected)) < 5 * float(draws.std()) / math.sqrt(len(A))

    def test_normaliser_lies_between_its_bounds(self, make: Callable[..., Any]) -> None:
        for seed in range(20):
            alone, given = make(5, seed=seed), make(5, seed=seed + 50)
            A = torch.linspace(0, 1, 5, dtype=torch.float64)
            cost, bounds = -alone.hybrid(given, A).log_normaliser, normaliser_bounds(alone, given, A)
            assert (bounds.lower >= -1e-12).all()
            assert (bounds.lower <= cost + 1e-12).all()
            assert (cost <= bounds.upper + 1e-12).all()
            assert (bounds.lower[1:-1] > 0).all()


def reference_entropy(kernel: Any) -> float:
    if isinstance(kernel, CategoricalKernel):
        return float(-(kernel.log_probs.exp() * kernel.log_probs).sum())
    return float(0.5 * torch.logdet(2 * math.pi * math.e * kernel.covariance))


def test_gaussian_normaliser_is_an_integral() -> None:
    alone, given, A = gaussian(dim=1, seed=3), gaussian(dim=1, seed=5), 0.35
    x = torch.linspace(-40, 40, 40001, dtype=torch.float64)[:, None]
    density = ((1 - A) * alone.log_prob(x) + A * given.log_prob(x)).exp()
    integral = torch.trapezoid(density, x[:, 0])
    assert torch.allclose(alone.hybrid(given, A).log_normaliser.exp(), integral, rtol=1e-9)


def test_gaussian_score_is_the_gradient() -> None:
    kernel, x = gaussian(4), randn(4, 3, seed=9)
    gradient = reference.gradient(lambda y: kernel.log_prob(y), x)
    assert torch.allclose(kernel.score(x), gradient)
    other = gaussian(4, seed=11)
    A = torch.rand(4, generator=generator(), dtype=torch.float64)
    mixed = mix_predictions(kernel.score(x), other.score(x), A)
    assert torch.allclose(kernel.hybrid(other, A).kernel.score(x), mixed)


def test_gaussian_draws_have_its_moments() -> None:
    kernel, count = gaussian(), 40000
    x = GaussianKernel(kernel.mean.expand(count, -1), kernel.covariance[None]).sample(generator())
    assert torch.allclose(x.mean(0), kernel.mean, atol=5 * math.sqrt(float(kernel.covariance.max()) / count))
    assert torch.allclose(x.T.cov(), kernel.covariance, atol=0.2)


def test_one_covariance_serves_many_means() -> None:
    shared, other = gaussian(dim=2), gaussian(4, dim=2, seed=5)
    narrow = GaussianKernel(randn(4, 2, seed=8), shared.covariance[None])
    wide = GaussianKernel(narrow.mean, shared.covariance.expand(4, 2, 2))
    for result in (lambda k: k.kl(other), lambda k: other.kl(k), lambda k: k.hybrid(other, 0.4).log_normaliser):
        assert torch.allclose(result(narrow), result(wide))


def test_isotropic_takes_a_variance_for_each_sample() -> None:
    mean, variance = randn(4, 6, 3), torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    kernel = GaussianKernel.isotropic(mean, variance)
    expected = variance[:, None, None, None] * torch.eye(3, dtype=torch.float64)
    assert torch.allclose(kernel.covariance.expand(4, 6, 3, 3), expected.expand(4, 6, 3, 3))
    assert GaussianKernel.isotropic(mean, 2.0).kl(GaussianKernel.isotropic(mean, 2.0)).shape == (4, 6)


class TestImpossibleStates:
    """A masked process has zeros: a token is either kept for good or still masked."""

    given = CategoricalKernel(torch.tensor([[0.0, 0.5, 0.5], [0.2, 0.8, 0.0]], dtype=torch.float64).log())
    alone = CategoricalKernel(torch.tensor([[0.3, 0.7, 0.0], [0.2, 0.8, 0.0]], dtype=torch.float64).log())

    def test_zero_weight_lifts_a_ban(self) -> None:
        for A, end in ((0.0, self.alone), (1.0, self.given)):
            hybrid = self.alone.hybrid(self.given, A)
            assert torch.allclose(hybrid.log_normaliser, torch.zeros(2, dtype=torch.float64), atol=1e-12)
            assert torch.allclose(hybrid.kernel.log_probs, end.log_probs)
        logits = mix_logits(self.alone.log_probs, self.given.log_probs, 1)
        assert torch.allclose(logits.exp(), self.given.log_probs.exp())

    def test_a_ban_of_either_side_holds_in_between(self) -> None:
        hybrid = self.alone.hybrid(self.given, 0.5).kernel.log_probs.exp()
        assert torch.allclose(hybrid[0], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))

    def test_kl_counts_only_possible_states(self) -> None:
        kl = self.given.kl(self.alone)
        assert kl.tolist() == [torch.inf, 0.0]
        assert self.given.kl(self.given).tolist() == [0.0, 0.0]

    def test_disjoint_kernels_make_the_bound_infinite_not_undefined(self) -> None:
        left = CategoricalKernel(torch.tensor([0.0, FORBIDDEN], dtype=torch.float64))
        right = CategoricalKernel(torch.tensor([FORBIDDEN, 0.0], dtype=torch.float64))
        hybrid = left.hybrid(right, 0.5)
        assert hybrid.log_normaliser == -torch.inf
        assert left.kl(hybrid.kernel) - hybrid.log_normaliser == torch.inf
        assert expected_denoising(left, left, right, 0.5) == torch.inf
        assert expected_denoising(left, left, right, 0.0) == 0.0

    def test_gradients_stay_finite(self) -> None:
        logits = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        banned = torch.tensor([0.0, 0.0, FORBIDDEN], dtype=torch.float64)
        for A in (0.0, 0.4, 1.0):
            learned = CategoricalKernel(torch.log_softmax(logits + banned, -1))
            hybrid = learned.hybrid(self.alone, A)
            loss = expected_denoising(self.alone, learned, self.alone, A) + self.alone.kl(hybrid.kernel)
            (gradient,) = torch.autograd.grad((loss - hybrid.log_normaliser).sum(), logits)
            assert torch.isfinite(gradient).all()

    def test_masked_chain_splits_without_normaliser(self) -> None:
        # posterior and predictions of one masked token: stay masked (last state) with chance 0.6, else become x_0
        stay = 0.6
        token = torch.tensor([[0.0, 1.0], [0.3, 0.7], [0.8, 0.2]], dtype=torch.float64)
        table = torch.cat([(1 - stay) * token, torch.full((3, 1), stay, dtype=torch.float64)], 1)
        posterior, alone, given = (CategoricalKernel(row.log()) for row in table)
        hybrid = alone.hybrid(given, 0.4)
        total = posterior.kl(hybrid.kernel) - hybrid.log_normaliser
        assert torch.isfinite(total)
        assert torch.allclose(total, expected_denoising(posterior, alone, given, 0.4))
        # mixing kernels inflates the chance to stay masked; mixing logits is the hybrid given that it unmasks (D12)
        mixed = hybrid.kernel.log_probs.exp()
        assert mixed[-1] > stay
        logits = mix_logits(token[1].log(), token[2].log(), 0.4)
        assert torch.allclose(logits.exp(), mixed[:-1] / mixed[:-1].sum())


@pytest.mark.parametrize("A", [0.3, 1, torch.tensor([0.2, 0.9], dtype=torch.float64)])
def test_mixing_aligns_survival_with_the_first_axes(A: Tensor | float) -> None:
    alone, given = randn(2, 4, 5, seed=1), randn(2, 4, 5, seed=2)
    each = torch.as_tensor(A, dtype=torch.float64).expand(2)
    loop = torch.stack([(1 - a) * u + a * c for a, u, c in zip(each, alone, given, strict=True)])
    assert torch.allclose(mix_predictions(alone, given, A), loop)
    assert torch.allclose(mix_logits(alone, given, A), torch.log_softmax(loop, -1))


def test_mixing_beyond_one_extrapolates() -> None:
    alone, given = randn(3, 4, seed=1), randn(3, 4, seed=2)
    assert torch.allclose(mix_predictions(alone, given, 2.5), given + 1.5 * (given - alone))


def test_mixed_logits_ignore_shifts() -> None:
    alone, given = randn(3, 4, seed=1), randn(3, 4, seed=2)
    assert torch.allclose(mix_logits(alone + 3.0, given - 8.0, 0.3), mix_logits(alone, given, 0.3))
