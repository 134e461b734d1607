"""Heads are normalised likelihoods that can be drawn from: a new one is tested by being added to `HEADS`."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from reed_core.errors import InputError
from reed_core.head import Categorical, Gaussian, Head, VonMisesFisher
from reed_core.noise import NoiseSource
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A head, the width of its prediction, and how to draw a z for it."""

    head: Head
    width: int
    draw: Callable[[tuple[int, ...], torch.Generator], Tensor]


def vectors(width: int) -> Callable[[tuple[int, ...], torch.Generator], Tensor]:
    return lambda shape, generator: torch.randn(*shape, width, generator=generator)


def classes(width: int) -> Callable[[tuple[int, ...], torch.Generator], Tensor]:
    return lambda shape, generator: torch.randint(width, shape, generator=generator)


HEADS = [
    Case(VonMisesFisher(), 4, vectors(4)),
    Case(VonMisesFisher(7.5), 2, vectors(2)),
    Case(Gaussian(), 3, vectors(3)),
    Case(Gaussian(0.3), 1, vectors(1)),
    Case(Categorical(), 5, classes(5)),
]
every_head = pytest.mark.parametrize("case", HEADS, ids=lambda case: str(case.head))


def drawn(case: Case, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, case.width, generator=generator).to(dtype), case.draw(shape, generator)


@every_head
def test_a_head_meets_the_protocol(case: Case) -> None:
    assert isinstance(case.head, Head)


@every_head
@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 4)], ids=str)
def test_energies_are_those_of_each_element_alone(case: Case, shape: tuple[int, ...]) -> None:
    predicted, z = drawn(case, shape)
    energy = case.head.energy(predicted, z)
    assert energy.shape == shape
    for index in torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape)).tolist():
        one = case.head.energy(predicted[tuple(index)][None], z[tuple(index)][None])
        torch.testing.assert_close(one[0], energy[tuple(index)])


@every_head
def test_gradients_are_finite_differences(case: Case) -> None:
    predicted, z = drawn(case, (3, 2), torch.float64)
    z = z.double() if z.is_floating_point() else z
    predicted.requires_grad_()
    step = 1e-6
    (slope,) = torch.autograd.grad(case.head.energy(predicted, z).sum(), predicted)
    for index in range(predicted.numel()):
        shift = torch.zeros(predicted.numel(), dtype=torch.float64)
        shift[index] = step
        shift = shift.view_as(predicted)
        difference = case.head.energy(predicted + shift, z).sum() - case.head.energy(predicted - shift, z).sum()
        assert float(slope.flatten()[index]) == pytest.approx(float(difference.detach()) / (2 * step), abs=1e-7)


@every_head
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_handled_in_float32(case: Case, dtype: torch.dtype) -> None:
    predicted, z = drawn(case, (3, 2))
    half, z_half = predicted.to(dtype), z.to(dtype) if z.is_floating_point() else z
    energy = case.head.energy(half, z_half)
    assert energy.dtype == torch.float32
    whole = z_half.float() if z.is_floating_point() else z
    assert torch.equal(energy, case.head.energy(half.float(), whole))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(case.head.energy(half, z_half), energy)


@every_head
def test_zero_vectors_give_numbers(case: Case) -> None:
    predicted, z = drawn(case, (3,))
    for h, target in [(predicted, z * 0), (predicted * 0, z), (predicted * 0, z * 0)]:
        h = h.clone().requires_grad_()
        energy = case.head.energy(h, target)
        (slope,) = torch.autograd.grad(energy.sum(), h)
        assert bool(energy.isfinite().all())
        assert bool(slope.isfinite().all())


@every_head
def test_the_best_prediction_is_the_truth(case: Case) -> None:
    predicted, z = drawn(case, (50,))
    right = z if z.is_floating_point() else 20.0 * torch.nn.functional.one_hot(z, case.width)
    assert bool((case.head.energy(right, z) <= case.head.energy(predicted, z)).all())


# Each density is normalised: energy + log_normaliser = -log p


@pytest.mark.parametrize("kappa", [0.0, 1e-3, 1.0, 7.5, 300.0])
def test_von_mises_integrates_to_one_on_the_circle(kappa: float) -> None:
    angle = torch.arange(20_000, dtype=torch.float64) * (2 * math.pi / 20_000)
    z = torch.stack([angle.cos(), angle.sin()], -1)
    head = VonMisesFisher(kappa)
    energy = head.energy(torch.tensor([[3.0, -4.0]], dtype=torch.float64).expand_as(z), z)
    mass = torch.exp(-(energy + head.log_normaliser(2))).sum() * (2 * math.pi / 20_000)
    assert float(mass) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("kappa", [1e-3, 1.0, 30.0, 500.0])
def test_von_mises_fisher_on_the_sphere_has_its_closed_form(kappa: float) -> None:
    """4 pi sinh(kappa) / kappa, with the exponential taken out."""
    exact = math.log(2 * math.pi / kappa) + kappa + math.log1p(-math.exp(-2 * kappa))
    assert VonMisesFisher(kappa).log_normaliser(3) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 4, 7, 64, 768, 4096])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0, 20.0, 1000.0])
def test_von_mises_fisher_is_normalised_in_any_dimension(dim: int, kappa: float) -> None:
    """The area of the sphere of dimension dim - 2 times int_0^pi exp(kappa cos a) sin(a)^(dim-2) da."""
    angle = (torch.arange(200_000, dtype=torch.float64) + 0.5) * (math.pi / 200_000)
    log_area = math.log(2) + (dim - 1) / 2 * math.log(math.pi) - math.lgamma((dim - 1) / 2)
    slice_ = torch.logsumexp(kappa * angle.cos() + (dim - 2) * angle.sin().log(), 0) + math.log(math.pi / 200_000)
    exact = log_area + float(slice_)
    assert VonMisesFisher(kappa).log_normaliser(dim) == pytest.approx(exact, rel=1e-8, abs=1e-8)


def test_the_normaliser_is_continuous_at_no_concentration() -> None:
    for dim in (2, 3, 768):
        small, none = VonMisesFisher(1e-9).log_normaliser(dim), VonMisesFisher(0.0).log_normaliser(dim)
        assert small == pytest.approx(none, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_gaussian_integrates_to_one(sigma: float, dim: int) -> None:
    head = Gaussian(sigma)
    grid = torch.linspace(-8, 8, 401, dtype=torch.float64) * sigma
    z = torch.cartesian_prod(*[grid] * dim).reshape(-1, dim)
    mean = torch.tensor([[0.4, -0.2][:dim]], dtype=torch.float64)
    density = torch.exp(-(head.energy(mean.expand_as(z), z) + head.log_normaliser(dim)))
    assert float(density.sum() * (grid[1] - grid[0]) ** dim) == pytest.approx(1.0, abs=1e-6)


def test_the_categorical_sums_to_one() -> None:
    logits = torch.randn(1, 6, dtype=torch.float64).expand(6, -1)
    head = Categorical()
    assert float(torch.exp(-(head.energy(logits, torch.arange(6)) + head.log_normaliser(6))).sum()) == pytest.approx(1)


def test_cosine_sees_directions_alone() -> None:
    h, z = torch.randn(2, 10, 5, dtype=torch.float64).unbind()
    head = VonMisesFisher(2.0)
    torch.testing.assert_close(head.energy(h, z), head.energy(3 * h, 0.1 * z))
    torch.testing.assert_close(head.energy(h, 5 * h), torch.full((10,), -2.0, dtype=torch.float64))


def test_an_unknown_class_costs_nothing() -> None:
    logits = torch.randn(4, 5, requires_grad=True)
    energy = Categorical().energy(logits, torch.tensor([-1, 2, -1, 0]))
    energy.sum().backward()
    assert energy[[0, 2]].tolist() == [0, 0]
    assert bool((energy[[1, 3]] > 0).all())
    assert logits.grad is not None
    assert not logits.grad[[0, 2]].any()
    assert bool(logits.grad[[1, 3]].any())


def test_a_head_without_width_is_refused() -> None:
    for wrong in (lambda: VonMisesFisher(-1.0), lambda: Gaussian(0.0), lambda: VonMisesFisher(math.nan)):
        with pytest.raises(InputError):
            wrong()


# Draws


@every_head
def test_the_mode_costs_least(case: Case) -> None:
    predicted, z = drawn(case, (6, 5))
    mode = case.head.mode(predicted)
    assert mode.shape == z.shape
    best = case.head.energy(predicted, mode)
    assert bool((best <= case.head.energy(predicted, z) + 1e-6).all())
    assert bool(
        (best <= case.head.energy(predicted, case.head.sample(predicted, NoiseSource(0, range(6)))) + 1e-6).all()
    )


def test_the_mean_direction_has_length_one() -> None:
    torch.testing.assert_close(VonMisesFisher().mode(torch.tensor([[3.0, -4.0]])), torch.tensor([[0.6, -0.8]]))


@every_head
def test_draws_belong_to_samples_not_to_batches(case: Case) -> None:
    predicted, _ = drawn(case, (3, 4))
    positions = [5, 40, 7]
    together = case.head.sample(predicted, NoiseSource(2, positions))
    assert not torch.equal(together[0], together[1])
    for index, position in enumerate(positions):
        alone = case.head.sample(predicted[index : index + 1], NoiseSource(2, [position]))
        torch.testing.assert_close(alone[0], together[index])


def many(head: Head, predicted: Tensor, count: int = 20_000) -> Tensor:
    """Draws for one prediction, as so many elements of one sample."""
    return head.sample(predicted.expand(1, count, -1), NoiseSource(1, [0]))[0]


def ks(values: Tensor, distribution: Tensor) -> float:
    """sqrt(n) times the Kolmogorov-Smirnov distance; above 1.95 with a chance of 0.001."""
    order = values.argsort()
    rank = torch.arange(1, len(values) + 1, dtype=torch.float64) / len(values)
    return float((distribution[order] - rank).abs().max()) * len(values) ** 0.5


@pytest.mark.parametrize("dim", [1, 2, 3, 16, 768])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 10.0, 400.0])
def test_directions_have_the_mean_cosine_of_the_normaliser(dim: int, kappa: float) -> None:
    """E cos = d/d kappa of -log C_d(kappa): an exponential family. And every direction across the mean is alike."""
    predicted = torch.zeros(dim, dtype=torch.float64)
    predicted[0] = -2.0
    z = many(VonMisesFisher(kappa), predicted, 4000)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(4000, dtype=torch.float64))
    cosine, step = -z[:, 0], 1e-3 * max(kappa, 1.0)
    high, low = VonMisesFisher(kappa + step), VonMisesFisher(max(kappa - step, 0.0))
    exact = (high.log_normaliser(dim) - low.log_normaliser(dim)) / (high.kappa - low.kappa)
    noise = float(cosine.std()) / 4000**0.5
    assert float(cosine.mean()) == pytest.approx(exact, abs=4 * noise + step + 1e-9)
    if dim > 1:
        across = z[:, 1:]
        share = (1 - cosine.square()).mean() / (dim - 1)
        assert float(across.mean(0).abs().max()) < 5 * float(share.sqrt()) / 4000**0.5
        assert float((across.square().mean(0) / share - 1).abs().max()) < 8 * (2 / 4000) ** 0.5


@pytest.mark.parametrize("kappa", [0.3, 5.0, 80.0])
def test_cosines_on_the_sphere_have_their_closed_form(kappa: float) -> None:
    z = many(VonMisesFisher(kappa), torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64))
    cosine = (z @ torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64)) / 3
    assert ks(cosine, (torch.exp(kappa * (cosine - 1)) - math.exp(-2 * kappa)) / (1 - math.exp(-2 * kappa))) < 1.95


def test_a_gaussian_has_its_mean_and_independent_spread() -> None:
    predicted = torch.tensor([1.0, -3.0])
    z = (many(Gaussian(0.3), predicted) - predicted).double() / 0.3
    for column in z.unbind(-1):
        assert ks(column, torch.special.ndtr(column)) < 1.95
    assert abs(float((z[:, 0] * z[:, 1]).mean())) < 4 / 20_000**0.5


def test_classes_come_at_the_rate_of_the_softmax() -> None:
    logits = torch.tensor([1.0, -1.0, 0.0, 2.0, -8.0])
    counts = torch.bincount(many(Categorical(), logits), minlength=5)
    expected = 20_000 * logits.softmax(-1)
    assert float(((counts - expected).square() / expected).sum()) < 18.5  # chi-square of 4, a chance of 0.001
