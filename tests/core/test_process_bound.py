"""The nats of every process: the split of a hybrid, the limit of finite steps, padding, precision."""

from typing import Any

import pytest
import torch
from process_cases import LENGTHS, PROCESSES, SINGLE, data_for, discrete, noise_for, only, say, truth
from reed_core.bound.hybrid import mix_predictions
from reed_core.bound.kernels import CategoricalKernel, GaussianKernel, HybridKernel
from reed_core.process import Corrupted, Interpolant, Masked
from reed_core.state import map_state
from torch import Tensor

every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
DOUBLE = torch.float64


def corruption(process: Any, t: list[float], dtype: torch.dtype = DOUBLE) -> Corrupted:
    x_0, mask = data_for(process, dtype=dtype)
    return process.corrupt(x_0, torch.tensor(t, dtype=dtype), noise_for(4), mask)


@every_process
@pytest.mark.parametrize("A", [0.0, 0.3, 1.0])
def test_a_hybrid_costs_what_its_two_sides_cost(process: Any, A: float) -> None:
    """THEORY D14: KL(q||p~) - log Z = (1-A) KL(q||p_u) + A KL(q||p_c), both parts of the right sign."""
    corrupted = corruption(process, [0.9, 0.5, 0.55, 0.2])
    without, given = say(process, corrupted.x_t, 1), say(process, corrupted.x_t, 2)
    hybrid = process.hybrid_nats(without, given, torch.full((4,), A, dtype=DOUBLE), corrupted)
    split = (1 - A) * process.nats(without, corrupted) + A * process.nats(given, corrupted)
    torch.testing.assert_close(hybrid.denoising - hybrid.log_normaliser, split, rtol=1e-9, atol=1e-9)
    assert bool((hybrid.log_normaliser <= 1e-12).all())
    assert bool((hybrid.denoising >= -1e-12).all())
    if A in (0.0, 1.0):
        torch.testing.assert_close(hybrid.log_normaliser, torch.zeros(4, dtype=DOUBLE), rtol=0, atol=1e-9)
    else:
        assert float(hybrid.log_normaliser.min()) < -0.01
    same = process.hybrid_nats(given, given, torch.full((4,), A, dtype=DOUBLE), corrupted)
    torch.testing.assert_close(same.log_normaliser, torch.zeros(4, dtype=DOUBLE), rtol=0, atol=1e-9)


def gaussian(process: Interpolant, clean: Tensor, x_t: Tensor, t: float, s: float) -> GaussianKernel:
    """q(x_s | x_t, x_0) by conditioning the joint Gaussian of x_s and x_t given x_0."""
    now, after = (process.coefficients(torch.tensor(time, dtype=DOUBLE)) for time in (t, s))
    ratio = now.signal / after.signal
    gain = ratio * after.noise**2 / now.noise**2
    variance = after.noise**2 - gain * ratio * after.noise**2
    return GaussianKernel.isotropic(after.signal * clean + gain * (x_t - now.signal * clean), variance)


def masking(process: Masked, chances: Tensor, x_t: Tensor, t: float, s: float) -> CategoricalKernel:
    """A hidden token goes to one of its K tokens, or (last state) stays; the others stand still."""
    reveal = (t - s) / t
    hidden = (x_t == process.mask_token)[..., None]
    moving = torch.cat([reveal * chances, torch.full_like(chances[..., :1], 1 - reveal)], -1)
    still = torch.zeros_like(moving).index_fill(-1, torch.tensor(process.num_tokens), 1.0)
    return CategoricalKernel(torch.where(hidden, moving, still).log())


def replacing(count: int, chances: Tensor, x_t: Tensor, t: float, s: float) -> CategoricalKernel:
    """Bayes' rule with transition matrices, averaged over x_0."""
    eye = torch.eye(count, dtype=DOUBLE)
    keep = (1 - t) / (1 - s)
    forward, to_s = keep * eye + (1 - keep) / count, (1 - s) * eye + s / count
    joint = to_s[:, :, None] * forward[None]  # x_0, x_s, x_t
    reverse = joint / joint.sum(1, keepdim=True)
    return CategoricalKernel(
        torch.einsum("...c,csi->...is", chances, reverse)
        .gather(-2, x_t[..., None, None].expand(*x_t.shape, 1, count))
        .squeeze(-2)
        .log()
    )


def kernel(process: Any, said: Tensor, corrupted: Corrupted, t: float, s: float) -> Any:
    """The reverse kernel that a prediction implies, slowly; the exact one for `said` None."""
    x_t = corrupted.x_t
    if isinstance(process, Interpolant):
        clean = corrupted.x_0 if said is None else process.predict_x0(said, x_t, corrupted.t)
        return gaussian(process, clean, x_t, t, s)
    sure = torch.nn.functional.one_hot(corrupted.x_0, process.num_tokens).double()
    chances = sure if said is None else said.softmax(-1)
    if isinstance(process, Masked):
        return masking(process, chances, x_t, t, s)
    return replacing(process.num_tokens, chances, x_t, t, s)


@pytest.mark.parametrize("process", SINGLE, ids=str)
@pytest.mark.parametrize("t", [0.2, 0.7, 0.97])
def test_nats_are_the_limit_of_finite_steps(process: Any, t: float) -> None:
    """KL(q||p_u), KL(q||p~) and log Z of a kernel from t to t - dt, over dt, by the kernels of `reed_core.bound`."""
    corrupted = corruption(process, [t] * 4)
    without, given = say(process, corrupted.x_t, 1), say(process, corrupted.x_t, 2)
    A, mask = 0.3, corrupted.mask
    found = [process.nats(without, corrupted)]
    hybrid = process.hybrid_nats(without, given, torch.full((4,), A, dtype=DOUBLE), corrupted)
    found += [hybrid.denoising, hybrid.log_normaliser]
    step, rates = 1e-4, []
    for dt in (step, 2 * step):
        posterior, p_u, p_c = (kernel(process, said, corrupted, t, t - dt) for said in (None, without, given))
        mixed: HybridKernel[Any] = p_u.hybrid(p_c, A)
        costs = [posterior.kl(p_u), posterior.kl(mixed.kernel), mixed.log_normaliser]
        rates.append([torch.where(mask, cost, 0.0).sum(1) / dt for cost in costs])
    for limit, near, far in zip(found, *rates, strict=True):
        torch.testing.assert_close(limit, 2 * near - far, rtol=1e-5, atol=1e-5)
        assert bool(((limit - near).abs() <= (limit - far).abs() + 1e-6).all())


@pytest.mark.parametrize("process", SINGLE, ids=str)
def test_the_mixed_prediction_is_the_hybrid_of_gaussians_only(process: Any) -> None:
    """THEORY D16 and D12: for Gaussians KL(q||p~) is the nats of the mixed prediction; token kernels do not mix so."""
    corrupted = corruption(process, [0.9, 0.5, 0.8, 0.6])
    without, given = say(process, corrupted.x_t, 1), say(process, corrupted.x_t, 2)
    A = torch.tensor([0.3, 0.6, 0.5, 0.9], dtype=DOUBLE)
    hybrid = process.hybrid_nats(without, given, A, corrupted).denoising
    mixed = process.nats(mix_predictions(without, given, A), corrupted)
    if isinstance(process, Interpolant):
        torch.testing.assert_close(hybrid, mixed)
    else:
        assert float((hybrid - mixed).abs().max()) > 1e-3


def costs(
    process: Any, corrupted: Corrupted, wide: torch.dtype = DOUBLE, rows: slice = slice(None)
) -> dict[str, Tensor]:
    """Everything a bound asks of a process."""
    A = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=wide)[rows]
    without, given = predictions(process, corrupted, wide)
    hybrid = process.hybrid_nats(without, given, A, corrupted)
    return {
        "prior": process.prior_nats(corrupted.x_0, corrupted.mask),
        "nats": process.nats(given, corrupted),
        "reconstruction": process.reconstruction_nats(given, corrupted),
        "denoising": hybrid.denoising,
        "log_normaliser": hybrid.log_normaliser,
    }


def predictions(process: Any, corrupted: Corrupted, wide: torch.dtype) -> tuple[Any, Any]:
    """Two elementwise predictions, the same for an element whatever surrounds it."""

    def draw(shift: float) -> Any:
        def one(part: Any, x: Tensor) -> Tensor:
            if not discrete(part):
                return torch.sin(3 * x.to(wide) + shift)
            table = torch.randn(8, part.num_tokens, generator=torch.Generator().manual_seed(int(shift)), dtype=DOUBLE)
            return table[x % 8].to(wide)

        return map_state(one, getattr(process, "fields", process), corrupted.x_t)

    return draw(1.0), draw(2.0)


@every_process
def test_costs_and_steps_of_a_padded_sample_are_those_of_the_sample_alone(process: Any) -> None:
    x_0, mask = data_for(process, dtype=DOUBLE)
    t = torch.tensor([0.9, 0.5, 0.55, 0.2], dtype=DOUBLE)
    batch = process.corrupt(x_0, t, noise_for(4), mask)
    whole = costs(process, batch)
    ahead = process.step(predictions(process, batch, DOUBLE)[0], batch.x_t, t, 0.7 * t, noise_for(4, 8), mask)
    for i in range(len(LENGTHS)):
        own = slice(i, i + 1)
        alone = process.corrupt(*(only(x_0, mask, i)[0], t[own]), type(noise_for(1))(3, [i]), only(x_0, mask, i)[1])
        map_state(torch.testing.assert_close, alone.x_t, only(batch.x_t, mask, i)[0])
        for name, value in costs(process, alone, rows=own).items():
            torch.testing.assert_close(value, whole[name][own], msg=name)
        said = predictions(process, alone, DOUBLE)[0]
        x_s = process.step(said, alone.x_t, t[own], 0.7 * t[own], type(noise_for(1))(8, [i]), alone.mask)
        map_state(torch.testing.assert_close, x_s, only(ahead, mask, i)[0])


@every_process
def test_what_a_prediction_says_about_padding_never_counts(process: Any) -> None:
    x_0, mask = data_for(process, dtype=DOUBLE)
    corrupted = process.corrupt(x_0, torch.tensor([0.9, 0.5, 0.55, 0.2], dtype=DOUBLE), noise_for(4), mask)
    A = torch.full((4,), 0.3, dtype=DOUBLE)

    def spoil(value: Tensor, exists: Tensor) -> Tensor:
        value = value.clone()
        value[~exists] = torch.nan
        return value

    said, other = say(process, corrupted.x_t, 1), say(process, corrupted.x_t, 2)
    bad, worse = map_state(spoil, said, mask), map_state(spoil, other, mask)
    assert torch.equal(process.nats(bad, corrupted), process.nats(said, corrupted))
    assert torch.equal(process.loss(bad, corrupted), process.loss(said, corrupted))
    assert torch.equal(process.reconstruction_nats(bad, corrupted), process.reconstruction_nats(said, corrupted))
    found, expected = process.hybrid_nats(bad, worse, A, corrupted), process.hybrid_nats(said, other, A, corrupted)
    assert torch.equal(found.denoising, expected.denoising)
    assert torch.equal(found.log_normaliser, expected.log_normaliser)
    t = corrupted.t
    stepped = [process.step(value, corrupted.x_t, t, t / 2, noise_for(4), mask) for value in (bad, said)]
    map_state(lambda one, two: torch.testing.assert_close(one, two, rtol=0, atol=0), *stepped)


@every_process
def test_only_the_truth_costs_nothing(process: Any) -> None:
    corrupted = corruption(process, [0.9, 0.5, 0.55, 0.35])
    nothing = process.nats(truth(process, corrupted), corrupted)
    torch.testing.assert_close(nothing, torch.zeros(4, dtype=DOUBLE), rtol=0, atol=1e-9)
    assert bool((process.nats(say(process, corrupted.x_t, 1), corrupted) >= 0).all())
    assert float(process.nats(say(process, corrupted.x_t, 1), corrupted)[0]) > 0.01


@every_process
def test_single_precision_is_close_to_double_at_every_time(process: Any) -> None:
    for t in (process.t_min, 0.01, 0.5, 0.99, process.t_max):
        corrupted = corruption(process, [t] * 4)
        single = map_state(lambda x: x.float() if x.is_floating_point() else x, corrupted.x_0)
        narrow = process.corrupt(single, corrupted.t.float(), noise_for(4), corrupted.mask)
        map_state(
            lambda one, two: torch.testing.assert_close(one.double(), two.double(), rtol=0, atol=1e-5),
            narrow.x_t,
            corrupted.x_t,
        )
        for name, value in costs(process, narrow, torch.float32).items():
            exact = costs(process, corrupted)[name]
            assert bool(value.isfinite().all()), (name, t)
            torch.testing.assert_close(value.double(), exact.double(), rtol=2e-3, atol=2e-3, msg=f"{name} at {t}")
