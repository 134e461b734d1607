"""Gaussian interpolants: their paths, predictions, steps and bound."""

import math
from dataclasses import replace

import pytest
import torch
from process_cases import INTERPOLANTS, data_for, gauss
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Corrupted, Interpolant
from torch import Tensor

every_interpolant = pytest.mark.parametrize("process", INTERPOLANTS, ids=str)


@every_interpolant
def test_the_path_runs_from_data_to_noise_with_falling_signal_to_noise(process: Interpolant) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    at = process.coefficients(t)
    ends = torch.stack([at.signal[[0, -1]], at.noise[[0, -1]]])
    torch.testing.assert_close(ends, torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64), atol=1e-12, rtol=0)
    assert bool((at.signal.diff() < 0).all())
    assert bool((at.noise.diff() > 0).all())
    assert bool((at.signal / at.noise)[1:].diff().lt(0).all())


@every_interpolant
def test_the_velocity_is_the_time_derivative(process: Interpolant) -> None:
    x_0 = torch.randn(4, 3, dtype=torch.float64)
    t = torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64)
    moving = replace(process, prediction="v")
    step = 1e-6
    ahead, behind, here = (moving.corrupt(x_0, t + shift, NoiseSource(0, range(4))) for shift in (step, -step, 0))
    torch.testing.assert_close(here.target, (ahead.x_t - behind.x_t) / (2 * step), atol=1e-8, rtol=1e-8)


@every_interpolant
def test_an_exact_prediction_gives_back_data_noise_and_velocity(process: Interpolant) -> None:
    x_0 = torch.randn(5, 2, 3, dtype=torch.float64)
    t = torch.tensor([process.t_min, 0.2, 0.5, 0.8, process.t_max], dtype=torch.float64)
    truth = {}
    for kind in ("v", "eps", "x0"):
        truth[kind] = replace(process, prediction=kind).corrupt(x_0, t, NoiseSource(0, range(5)))
    corrupted = process.corrupt(x_0, t, NoiseSource(0, range(5)))
    said = corrupted.target
    close = dict(atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(process.predict_v(said, corrupted.x_t, t), truth["v"].target, **close)
    torch.testing.assert_close(process.predict_eps(said, corrupted.x_t, t), truth["eps"].target, **close)
    torch.testing.assert_close(process.predict_x0(said, corrupted.x_t, t), x_0, **close)


@every_interpolant
def test_any_prediction_is_read_consistently(process: Interpolant) -> None:
    said, x_t = torch.randn(2, 5, 3, dtype=torch.float64).unbind()
    t = torch.tensor([0.01, 0.2, 0.5, 0.8, 0.99], dtype=torch.float64)
    at = process.coefficients(t[:, None])
    x_0, eps, v = (getattr(process, f"predict_{name}")(said, x_t, t) for name in ("x0", "eps", "v"))
    torch.testing.assert_close(at.signal * x_0 + at.noise * eps, x_t)
    torch.testing.assert_close(at.d_signal * x_0 + at.d_noise * eps, v)
    assert torch.equal({"x0": x_0, "eps": eps, "v": v}[process.prediction], said)
    torch.testing.assert_close(process.prediction_of(x_0, x_t, t), said, atol=1e-9, rtol=1e-9)


@every_interpolant
def test_half_precision_does_not_round_the_time(process: Interpolant) -> None:
    """In bfloat16 0.999 is 1: the signal would be 0, and the clean data of an eps prediction infinite."""
    said, x_t = torch.randn(2, 2, 50, generator=torch.Generator().manual_seed(0)).bfloat16().unbind()
    t = torch.tensor([process.t_min, process.t_max])
    for name in ("v", "x0", "eps"):
        read = getattr(process, f"predict_{name}")
        half, whole = read(said, x_t, t), read(said.float(), x_t.float(), t)
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), whole, atol=0.02 * float(whole.abs().max()), rtol=0)


@every_interpolant
def test_padding_becomes_zero_even_where_it_was_not_a_number(process: Interpolant) -> None:
    x_0, mask = data_for(process)
    x_0[~mask] = torch.nan
    corrupted = process.corrupt(x_0, torch.full((4,), 0.5), NoiseSource(0, range(4)), mask)
    for tensor in (corrupted.x_0, corrupted.x_t, corrupted.target):
        assert bool((tensor[~mask] == 0).all())
        assert bool(tensor.isfinite().all())


def gauss_hermite(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the expectation under a standard normal."""
    jacobi = torch.diag(torch.arange(1, count, dtype=torch.float64).sqrt(), 1)
    values, vectors = torch.linalg.eigh(jacobi + jacobi.T)
    return values, vectors[0] ** 2


def normal_nll(x: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    return 0.5 * (torch.log(2 * math.pi * torch.as_tensor(variance, dtype=x.dtype)) + (x - mean) ** 2 / variance)


@every_interpolant
def test_the_weighted_loss_integrates_to_the_exact_likelihood_of_a_gaussian(process: Interpolant) -> None:
    """Data from q = N(0.3, 0.8^2), a model that is exact for p = N(-0.5, 1.3^2): the continuous-time bound is tight,

    -E_q log p(x_0) = int_{t_min}^1 weight(t) E_q |error|^2 dt - E_q log p(x_0 | x_{t_min}).
    """
    (mean_q, std_q), (mean_p, var_p), t_min = (0.3, 0.8), (-0.5, 1.3**2), 0.05
    nodes, weights = gauss_hermite(4)  # the integrands are quadratic
    x_0 = (mean_q + std_q * nodes).repeat_interleave(4)[:, None]
    eps, chance = nodes.repeat(4)[:, None], torch.outer(weights, weights).flatten()

    def at(t: Tensor) -> tuple[Corrupted, Tensor, Tensor]:
        """The corruption at t, and mean and variance of p(x_0 | x_t)."""
        c = process.coefficients(t)
        x_t = c.signal * x_0 + c.noise * eps
        target = {"v": c.d_signal * x_0 + c.d_noise * eps, "eps": eps, "x0": x_0}[process.prediction]
        spread = c.signal**2 * var_p + c.noise**2
        mean = mean_p + var_p * c.signal * (x_t - c.signal * mean_p) / spread
        return Corrupted(x_0, x_t, t.expand(16), target), mean, var_p * c.noise**2 / spread

    bound = torch.zeros((), dtype=torch.float64)
    for t, width in zip(*gauss(t_min, 1.0, 60), strict=True):
        corrupted, clean, _ = at(t)
        c = process.coefficients(t)
        said = {"x0": clean, "eps": (corrupted.x_t - c.signal * clean) / c.noise}
        said["v"] = c.d_signal * clean + c.d_noise * said["eps"]
        error = process.loss(said[process.prediction], corrupted)
        bound += width * (chance * error * process.elbo_weight(corrupted.t)).sum()
    corrupted, clean, variance = at(torch.tensor(t_min, dtype=torch.float64))
    bound += (chance * normal_nll(x_0, clean, variance)[:, 0]).sum()
    exact = (chance * normal_nll(x_0, mean_p, var_p)[:, 0]).sum()
    torch.testing.assert_close(bound, exact, atol=1e-8, rtol=0)


def gaussian_bound(process: Interpolant, x_0: Tensor, mean: float, variance: float) -> Tensor:
    """The bound of each of one-dimensional data [b, 1], for the exact predictions of N(mean, variance)."""
    nodes, weights = gauss_hermite(6)
    clean, eps = x_0.repeat_interleave(6, 0), nodes.repeat(len(x_0))[:, None]

    def cost(t: Tensor, what: str) -> Tensor:
        at = process.coefficients(t)
        x_t = at.signal * clean + at.noise * eps
        spread = at.signal**2 * variance + at.noise**2
        said = {"x0": mean + variance * at.signal * (x_t - at.signal * mean) / spread}
        said["eps"] = (x_t - at.signal * said["x0"]) / at.noise
        said["v"] = at.d_signal * said["x0"] + at.d_noise * said["eps"]
        target = {"x0": clean, "eps": eps, "v": at.d_signal * clean + at.d_noise * eps}[process.prediction]
        corrupted = Corrupted(clean, x_t, t.expand(len(clean)), target)
        return getattr(process, what)(said[process.prediction], corrupted).view(-1, 6) @ weights

    total = process.prior_nats(x_0) + cost(torch.tensor(process.t_min, dtype=torch.float64), "reconstruction_nats")
    for low, high in ((process.t_min, 0.1), (0.1, process.t_max)):
        for t, width in zip(*gauss(low, high, 30), strict=True):
            total = total + width * cost(t, "nats")
    return total


@every_interpolant
def test_the_bound_of_exact_predictions_tends_to_the_likelihood(process: Interpolant) -> None:
    """On average over the data it lies above, by what the ends of the time range leave out."""
    nodes, weights = gauss_hermite(8)
    x_0 = (0.3 + 0.8 * nodes)[:, None]
    gaps = []
    for edge in (0.05, 0.02, 0.005):
        near = replace(process, t_min=edge, t_max=1 - edge)
        found = gaussian_bound(near, x_0, 0.3, 0.64)
        gaps.append(float(weights @ (found - normal_nll(x_0, 0.3, 0.64)[:, 0])))
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 1e-4
    assert gaps[0] / gaps[2] > 50


def test_the_ends_of_the_time_range() -> None:
    """At t = 1 v- and x_0-predictions cost nothing; at t = 0 no density decodes x_0."""
    x_0 = torch.randn(2, 3)
    for prediction in ("v", "x0"):
        process = Interpolant(prediction=prediction, t_max=1.0)
        assert not process.nats(x_0, process.corrupt(x_0, torch.ones(2), NoiseSource(0, range(2)))).any()
        assert not process.prior_nats(x_0).any()
    exact = Interpolant(t_min=0.0)
    with pytest.raises(InputError, match="expected t_min > 0"):
        exact.reconstruction_nats(x_0, exact.corrupt(x_0, torch.zeros(2), NoiseSource(0, range(2))))


@every_interpolant
def test_the_loss_with_the_weights_of_the_bound_is_its_nats_per_element(process: Interpolant) -> None:
    weighted = replace(process, time_weight="elbo")
    x_0, mask = data_for(process, dtype=torch.float64)
    corrupted = process.corrupt(
        x_0, torch.tensor([0.01, 0.3, 0.6, 0.99], dtype=torch.float64), NoiseSource(0, range(4)), mask
    )
    guess = corrupted.target + torch.randn(x_0.shape, dtype=torch.float64)
    elements = 3 * mask.sum(1)
    torch.testing.assert_close(weighted.loss(guess, corrupted) * elements, process.nats(guess, corrupted))
    assert not torch.allclose(process.loss(guess, corrupted), weighted.loss(guess, corrupted))


def test_the_weights_of_the_bound_need_a_smallest_time() -> None:
    with pytest.raises(InputError, match="elbo with t_min > 0"):
        Interpolant(time_weight="elbo", t_min=0.0)
