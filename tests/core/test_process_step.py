"""One step back: it keeps the marginals when the prediction is exact, and ends in what was predicted."""

from typing import Any

import pytest
import torch
from process_cases import INTERPOLANTS, PROCESSES, SINGLE, data_for, discrete, noise_for, only, say, truth
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant, Masked, Product, UniformDiscrete
from reed_core.state import map_state
from torch import Tensor

COUNT, LENGTH = 200, 80
DOUBLE = torch.float64


@pytest.mark.parametrize("process", SINGLE, ids=str)
@pytest.mark.parametrize(("t", "s"), [(0.95, 0.6), (0.6, 0.55), (0.4, 0.02)])
def test_a_step_with_the_exact_prediction_keeps_the_joint_law(process: Any, t: float, s: float) -> None:
    """x_s given x_0 is q(x_s | x_0), and x_t given x_s and x_0 is q(x_t | x_s)."""
    if discrete(process):
        x_0 = torch.arange(4).repeat(COUNT, LENGTH // 4)
    else:
        x_0 = torch.tensor([-2.0, 0.1, 1.0, 3.0], dtype=DOUBLE).repeat(COUNT, LENGTH // 4)
    now, after = (torch.full((COUNT,), time, dtype=DOUBLE) for time in (t, s))
    corrupted = process.corrupt(x_0, now, noise_for(COUNT, 1))
    x_s = process.step(truth(process, corrupted), corrupted.x_t, now, after, noise_for(COUNT, 2))
    drawn = x_0.numel()
    if not discrete(process):
        at, before = process.coefficients(after[:1]), process.coefficients(now[:1])
        ratio = before.signal / at.signal
        early = (x_s - at.signal * x_0) / at.noise
        late = (corrupted.x_t - ratio * x_s) / (before.noise**2 - (ratio * at.noise) ** 2).sqrt()
        for product in (early, late, early * late, early**2 - 1, late**2 - 1):
            assert abs(float(product.mean())) < 4 * (3.0 / drawn) ** 0.5
        return
    moved, stayed = x_s != x_0, x_s == corrupted.x_t
    if isinstance(process, Masked):
        expected = {"moved": s, "both": s}
        stayed = moved & (corrupted.x_t == process.mask_token)
    else:
        keep, other = (1 - t) / (1 - s), 3 / 4
        expected = {"moved": other * s, "both": keep + (1 - keep) / 4}
    for name, value in (("moved", moved), ("both", stayed)):
        chance = expected[name]
        assert abs(float(value.double().mean()) - chance) < 4 * (chance * (1 - chance) / drawn) ** 0.5, name


@pytest.mark.parametrize("process", INTERPOLANTS, ids=str)
def test_a_gaussian_step_is_the_textbook_kernel(process: Interpolant) -> None:
    """alpha_{t|s} = signal_t / signal_s and sigma_{t|s}^2 = noise_t^2 - alpha_{t|s}^2 noise_s^2, with its own noise."""
    x_t = torch.randn(5, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    said = say(process, x_t, 1)
    t = torch.tensor([0.99, 0.8, 0.5, 0.3, 0.1], dtype=DOUBLE)
    s = torch.tensor([0.5, 0.799, 0.01, 0.0, 0.05], dtype=DOUBLE)
    clean = process.predict_x0(said, x_t, t)
    now, after = process.coefficients(t[:, None]), process.coefficients(s[:, None])
    ratio = now.signal / after.signal
    spread = now.noise**2 - ratio**2 * after.noise**2
    mean = ratio * after.noise**2 / now.noise**2 * x_t + after.signal * spread / now.noise**2 * clean
    noise = noise_for(5).normal((3,)).double()
    expected = mean + (spread * after.noise**2 / now.noise**2).sqrt() * noise
    torch.testing.assert_close(process.step(said, x_t, t, s, noise_for(5)), expected)
    single = process.step(said.float(), x_t.float(), t.float(), s.float(), noise_for(5))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)
    half = process.step(said.bfloat16(), x_t.bfloat16(), t.float(), s.float(), noise_for(5))
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
def test_the_step_to_zero_gives_what_was_predicted(process: Any) -> None:
    x_0, mask = data_for(process)
    corrupted = process.corrupt(x_0, torch.tensor([0.9, 0.5, 0.55, 0.2]), noise_for(4), mask)
    zero = torch.zeros(4)
    x_s = process.step(truth(process, corrupted), corrupted.x_t, corrupted.t, zero, noise_for(4), mask)

    def check(found: Tensor, clean: Tensor, exists: Tensor, start: Tensor) -> None:
        assert (found.shape, found.dtype) == (clean.shape, clean.dtype)
        torch.testing.assert_close(found[exists], clean[exists], rtol=0, atol=1e-4)
        assert torch.equal(found[~exists], start[~exists])

    map_state(check, x_s, corrupted.x_0, mask, corrupted.x_t)


@pytest.mark.parametrize("process", [Masked(4, 4), UniformDiscrete(4)], ids=str)
def test_a_step_with_no_possible_token_is_refused(process: Any) -> None:
    t, x_t = torch.full((2,), 0.5), process.prior(torch.zeros(2, 3, dtype=torch.long), noise_for(2))
    mask = torch.tensor([[True, True, False]] * 2)
    for junk in (-torch.inf, torch.nan):
        said = torch.zeros(2, 3, 4)
        said[:, 2] = junk
        process.step(said, x_t, t, t / 2, noise_for(2), mask)
        said[1, 0] = junk
        with pytest.raises(InputError, match="no token is possible"):
            process.step(said, x_t, t, t / 2, noise_for(2), mask)


@pytest.mark.parametrize("process", [Interpolant(), Masked(4, 4), UniformDiscrete(4)], ids=str)
def test_a_field_of_pairs_is_padded_like_any_other(process: Any) -> None:
    """[b, n, n] with a mask of that shape: a smaller square draws the numbers it draws alone."""
    generator = torch.Generator().manual_seed(0)
    exists = torch.arange(5)[None] < torch.tensor([5, 1, 3, 4])[:, None]
    mask = exists[:, :, None] & exists[:, None]
    x_0 = torch.randint(4, (4, 5, 5), generator=generator)
    if not discrete(process):
        x_0 = torch.randn(4, 5, 5, generator=generator)
    t = torch.full((4,), 0.7)
    batch = process.corrupt(x_0, t, noise_for(4), mask)
    for i in range(4):
        x, m = only(x_0, mask, i)
        alone = process.corrupt(x, t[i : i + 1], NoiseSource(3, [i]), m)
        assert torch.equal(alone.x_t, only(batch.x_t, mask, i)[0])


def test_a_product_refuses_fields_it_does_not_have() -> None:
    process = Product({"x": Interpolant(), "y": Masked(4, 4)})
    x_0 = {"x": torch.zeros(1, 2), "y": torch.zeros(1, 2, dtype=torch.long)}
    corrupted = process.corrupt(x_0, torch.tensor([0.5]), noise_for(1))
    for wrong in ({"x": x_0["x"]}, {**x_0, "z": x_0["x"]}, x_0["x"]):
        with pytest.raises(InputError, match="expected the fields x, y"):
            process.corrupt(wrong, torch.tensor([0.5]), noise_for(1))
        with pytest.raises(InputError, match="expected the fields x, y"):
            process.loss(wrong, corrupted)
        with pytest.raises(InputError, match="expected the fields x, y"):
            process.prior(wrong, noise_for(1))
