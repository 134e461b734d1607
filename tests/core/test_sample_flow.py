"""Samplers of interpolants against Gaussians whose flow is known: order, moments, cost."""

import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from core.sample_models import MEAN, STD, Counted, every_interpolant, exact_denoiser, exact_flow, worst_moment
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.sample import (
    LogSNRTimes,
    PowerTimes,
    cosine_times,
    dpm_solve,
    euler_maruyama,
    integrate,
    of_forward,
    of_noise,
    uniform_times,
)
from torch import Tensor


def euler(process: Interpolant, denoiser: Any, x: Tensor, steps: int, **more: Any) -> Tensor:
    return integrate(process, denoiser, x, steps, method="euler", **more)


SOLVERS: dict[str, tuple[Callable[..., Tensor], float]] = {
    "euler": (euler, 1.0),
    "heun": (integrate, 2.0),
    "dpm": (dpm_solve, 2.0),
}
every_solver = pytest.mark.parametrize("name", SOLVERS)


def contextual_flow(x: Tensor, t: Tensor, c: Any = None) -> Tensor:
    """Looks at all elements: it would see what is in the padding."""
    return torch.tanh(x + x.sum(1, keepdim=True)) + 1


def exact_sample(process: Interpolant, x: Tensor, std: Tensor = STD) -> Tensor:
    """The prediction of x_0 at t_min, after the exact flow from t_max."""
    at_t_min = exact_flow(process, x, process.t_max, process.t_min, std)
    t = torch.full((len(x),), process.t_min, dtype=torch.float64)
    return process.predict_x0(exact_denoiser(process, MEAN, std)(at_t_min, t), at_t_min, t)


@every_interpolant
@every_solver
def test_a_solver_has_its_order(process: Interpolant, name: str) -> None:
    solve, order = SOLVERS[name]
    x = NoiseSource(0, range(20)).normal((2,)).double()
    exact, errors = exact_sample(process, x), []
    for steps in (32, 64, 128):
        denoiser = exact_denoiser(process)
        errors.append(float((solve(process, denoiser, x, steps) - exact).abs().max()))
        assert len(denoiser.seen) == (2 if name == "heun" else 1) * steps + 1
    rates = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert all(rate == pytest.approx(order, abs=0.2) for rate in rates), rates
    assert name != "dpm" or rates[-1] >= 1.9


def evaluations_for(name: str, process: Interpolant, std: Tensor, error: float) -> int:
    """The fewest evaluations, among powers of 2 of steps, that reach an error."""
    x = NoiseSource(0, range(20)).normal((2,)).double()
    exact = exact_sample(process, x, std)
    for power in range(1, 11):
        denoiser = exact_denoiser(process, MEAN, std)
        if float((SOLVERS[name][0](process, denoiser, x, 2**power) - exact).abs().max()) < error:
            return len(denoiser.seen)
    raise AssertionError


@pytest.mark.parametrize("path", ["linear", "trig"])
def test_the_multistep_solver_needs_the_fewest_evaluations_where_data_are_concentrated(
    path: Literal["linear", "trig"],
) -> None:
    needed = {name: evaluations_for(name, Interpolant(path), 0.02 * torch.ones_like(STD), 5e-3) for name in SOLVERS}
    assert 4 * needed["dpm"] < min(needed["heun"], needed["euler"]), needed


def test_the_multistep_solver_starts_at_pure_noise_too() -> None:
    process = Interpolant(t_max=1.0)
    x = NoiseSource(0, range(20)).normal((2,)).double()
    exact = exact_sample(process, x)
    errors = [float((dpm_solve(process, exact_denoiser(process), x, n) - exact).abs().max()) for n in (20, 40)]
    assert errors[1] < 0.4 * errors[0]


@every_solver
def test_one_step_of_a_solver_is_finite(name: str) -> None:
    x = torch.randn(4, 2, dtype=torch.float64)
    for process in (Interpolant(), Interpolant(t_max=1.0)):
        assert bool(SOLVERS[name][0](process, exact_denoiser(process), x, 1).isfinite().all())


# Grids


@pytest.mark.parametrize("steps", [1, 2, 3, 17])
def test_grids_have_their_ends_and_fall(steps: int) -> None:
    for grid in (uniform_times, cosine_times, PowerTimes(2.0), PowerTimes(0.5), LogSNRTimes(Interpolant("trig"))):
        for high, low in ((0.999, 0.001), (1.0, 0.0), (1.0, 0.001), (0.999, 0.0)):
            times = grid(high, low, steps)
            assert (times[0], times[-1], len(times)) == (high, low, steps + 1)
            assert all(after < before for before, after in itertools.pairwise(times))


@pytest.mark.parametrize("path", ["linear", "trig"])
def test_log_snr_grows_by_equal_steps(path: Literal["linear", "trig"]) -> None:
    process = Interpolant(path)
    times = LogSNRTimes(process)(process.t_max, process.t_min, 9)
    signal, noise, *_ = process.coefficients(torch.tensor(times, dtype=torch.float64))
    steps = (signal / noise).log().diff()
    torch.testing.assert_close(steps, steps.mean().expand(9))


def test_a_cosine_grid_is_short_at_noise() -> None:
    lengths = [before - after for before, after in itertools.pairwise(cosine_times(1.0, 0.0, 8))]
    assert lengths == sorted(lengths)
    assert uniform_times(1.0, 0.0, 4) == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("times", [[1.0, 0.5], [0.999, 0.2, 0.5, 0.001], [0.999, 0.7, 0.3, 0.1]])
def test_a_grid_of_the_user_is_checked(times: list[float]) -> None:
    with pytest.raises(InputError, match="decreasing times"):
        integrate(Interpolant(), exact_denoiser(Interpolant()), torch.zeros(1, 2), 3, grid=lambda *_: times)


# Moments


@every_interpolant
def test_samples_have_the_mean_and_covariance_of_the_data(process: Interpolant) -> None:
    count = 4000
    x = process.prior(torch.zeros(count, 2), NoiseSource(1, range(count)))
    samples = integrate(process, exact_denoiser(process, MEAN.float(), STD.float()), x, 30).double()
    assert samples.shape == x.shape
    bias = 5e-3  # noise is handed over at t_max < 1
    assert bool(((samples.mean(0) - MEAN).abs() < 4 * STD / count**0.5 + bias).all())
    covariance = torch.cov(samples.T)
    width = 4 * torch.outer(STD, STD) * (2 / count) ** 0.5 + bias
    assert bool(((covariance - torch.diag(STD**2)).abs() < width).all())


@every_interpolant
def test_one_step_lands_on_the_mean_of_the_data_for_what_is_pure_noise(process: Interpolant) -> None:
    """The last step returns the prediction of x_0, whatever t_min."""
    process = Interpolant(process.path, process.prediction, t_min=0.9, t_max=0.95)
    x = torch.tensor([[0.3, 0.2]], dtype=torch.float64)
    near = exact_flow(process, x, 0.95, 0.9)
    t = torch.full((1,), 0.9, dtype=torch.float64)
    exact = process.predict_x0(exact_denoiser(process)(near, t), near, t)
    torch.testing.assert_close(integrate(process, exact_denoiser(process), x, 20), exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_times_are_exact_in_every_precision(dtype: torch.dtype) -> None:
    process = Interpolant()
    denoiser = Counted(lambda x, t, c: x)
    assert integrate(process, denoiser, torch.zeros(3, 2, dtype=dtype), 2, c="c").dtype == dtype
    times = [float(t[0]) for _, t, _ in denoiser.seen]
    assert times == pytest.approx([0.999, 0.5, 0.5, 0.001, 0.001], rel=1e-6)
    assert all(t.shape == (3,) and c == "c" for _, t, c in denoiser.seen)


def test_a_padded_sample_is_the_sample_alone() -> None:
    """The denoiser looks at all elements: it would see noise in the padding, which training never shows."""
    process = Interpolant()
    lengths = (4, 1, 3)
    mask = torch.arange(4)[None] < torch.tensor(lengths)[:, None]

    x = process.prior(torch.zeros(3, 4, 2), NoiseSource(0, range(3)))
    batch = integrate(process, contextual_flow, x, 5, mask=mask)
    assert not batch[~mask].any()
    for i, length in enumerate(lengths):
        alone = process.prior(torch.zeros(1, length, 2), NoiseSource(0, [i]))
        torch.testing.assert_close(integrate(process, contextual_flow, alone, 5)[0], batch[i, :length])


@every_solver
def test_a_solver_without_steps_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="at least 1 step"):
        SOLVERS[name][0](Interpolant(), exact_denoiser(Interpolant()), torch.zeros(1, 2), 0)


@every_solver
def test_padding_is_held_at_zero_by_every_solver(name: str) -> None:
    mask = torch.tensor([[True, True, False]])
    x = torch.randn(1, 3, 2)
    short = SOLVERS[name][0](Interpolant(), contextual_flow, x[:, :2], 4)
    padded = SOLVERS[name][0](Interpolant(), contextual_flow, x, 4, mask=mask)
    torch.testing.assert_close(padded[:, :2], short)
    assert not padded[:, 2].any()


# The reverse SDE


@pytest.mark.parametrize("process", [Interpolant(), Interpolant("trig", "x0")], ids=str)
@pytest.mark.parametrize("of", [of_noise, of_forward])
def test_the_sde_has_the_moments_of_the_data(process: Interpolant, of: Callable[..., Callable[[float], float]]) -> None:
    """Elements of a sample are independent: many draws of few streams."""
    noise = NoiseSource(1, range(40))
    x = process.prior(torch.zeros(40, 400, 2), noise)
    denoiser, grid = exact_denoiser(process, MEAN.float(), STD.float()), LogSNRTimes(process)
    off = []
    for steps in (16, 64):
        samples = euler_maruyama(process, denoiser, x, steps, noise, diffusion=of(process), grid=grid)
        off.append(worst_moment(samples.flatten(0, 1).double(), MEAN, torch.diag(STD**2)))
    assert off[1] < max(0.5 * off[0], 4.5), off


@pytest.mark.parametrize("process", [Interpolant(), Interpolant("trig", "eps")], ids=str)
def test_without_diffusion_the_sde_is_euler_to_the_bit(process: Interpolant) -> None:
    noise = NoiseSource(2, range(5))
    x = process.prior(torch.zeros(5, 3, 2, dtype=torch.float64), noise)
    mask = torch.arange(3)[None] < torch.tensor([3, 1, 2, 3, 2])[:, None]
    still = euler_maruyama(process, exact_denoiser(process), x, 7, noise, mask=mask, diffusion=lambda t: 0.0)
    assert torch.equal(still, euler(process, exact_denoiser(process), x, 7, mask=mask))


def test_the_diffusion_is_what_it_says() -> None:
    process = Interpolant()
    assert of_noise(process, 2.0)(0.3) == pytest.approx(0.6)
    assert of_forward(process)(0.3) == pytest.approx(2 * 0.3 * (1 + 0.3 / 0.7))
    with pytest.raises(InputError, match=r"w\(0.999\) = -1"):
        euler_maruyama(
            process, exact_denoiser(process), torch.zeros(1, 2), 2, NoiseSource(0, [0]), diffusion=lambda t: -1.0
        )
    whole = Interpolant(t_max=1.0)
    with pytest.raises(InputError, match="finite"):
        euler_maruyama(
            whole, exact_denoiser(whole), torch.zeros(1, 2), 2, NoiseSource(0, [0]), diffusion=of_forward(whole)
        )


def test_a_sample_of_the_sde_is_its_own_and_its_cost_is_known() -> None:
    process, lengths = Interpolant(), (3, 1, 2)
    mask = torch.arange(3)[None] < torch.tensor(lengths)[:, None]
    noise = NoiseSource(3, range(5, 8))
    x = process.prior(torch.zeros(3, 3, 2), noise)
    inner = Counted(contextual_flow)
    batch = euler_maruyama(process, inner, x, 6, noise, mask=mask)
    assert len(inner.seen) == 7
    for i, length in enumerate(lengths):
        noise = NoiseSource(3, [5 + i])
        alone = euler_maruyama(process, contextual_flow, process.prior(torch.zeros(1, length, 2), noise), 6, noise)
        torch.testing.assert_close(alone[0], batch[i, :length])
    with pytest.raises(InputError, match="one stream per sample"):
        euler_maruyama(process, inner, x, 6, NoiseSource(0, [0]))
