"""What every forward process keeps; a new one is tested by being added to the lists of `process_cases`."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from process_cases import LENGTHS, PROCESSES, SINGLE, data_for, discrete
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import (
    BoundedProcess,
    Interpolant,
    Masked,
    Power,
    Process,
    Product,
    Same,
    UniformDiscrete,
    Window,
)
from reed_core.process.base import draw_elements, masked_mean, masked_sum
from torch import Tensor
from torch.overrides import TorchFunctionMode

every_process = pytest.mark.parametrize("process", SINGLE, ids=str)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_it_is_a_process(process: Any) -> None:
    assert isinstance(process, Process)
    assert isinstance(process, BoundedProcess)


def network_for(process: Any, seed: int = 1) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A toy network, elementwise: returns its prediction and its only weight."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (8, process.num_tokens) if discrete(process) else (3, 3)
    weight = torch.randn(rows, columns, generator=generator, requires_grad=True)

    def predict(x_t: Tensor) -> tuple[Tensor, Tensor]:
        return (weight[x_t % 8] if discrete(process) else torch.tanh(x_t @ weight)), weight

    return predict


class NoFloat64Moves(TorchFunctionMode):
    """Fails when a float64 tensor is moved as it is: not every device knows float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if func is torch.Tensor.to and args[0].dtype == torch.float64:
            assert out.dtype != torch.float64
        return out


@every_process
def test_times_are_those_of_the_noise_within_the_range(process: Any) -> None:
    t = process.sample_time(NoiseSource(0, range(1000)))
    high = process.t_max
    assert torch.equal(t[10:20], process.sample_time(NoiseSource(0, range(10, 20))))
    assert process.t_min <= float(t.min()) < process.t_min + 0.01
    assert high - 0.01 < float(t.max()) <= high


@every_process
def test_a_padded_batch_is_each_sample_alone(process: Any) -> None:
    x_0, mask = data_for(process)
    predict = network_for(process)
    noise = NoiseSource(3, range(4))
    t = process.sample_time(noise)
    batch = process.corrupt(x_0, t, noise, mask)
    prediction, weight = predict(batch.x_t)
    losses = process.loss(prediction, batch)
    slopes = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in losses]
    for i, length in enumerate(LENGTHS):
        alone = process.corrupt(x_0[i : i + 1, :length], t[i : i + 1], NoiseSource(3, [i]))
        assert torch.equal(alone.x_t[0], batch.x_t[i, :length])
        assert torch.equal(alone.target[0], batch.target[i, :length])
        prediction, weight = predict(alone.x_t)
        loss = process.loss(prediction, alone)[0]
        torch.testing.assert_close(loss, losses[i])
        torch.testing.assert_close(torch.autograd.grad(loss, weight)[0], slopes[i])


@every_process
def test_what_lies_in_the_padding_never_matters(process: Any) -> None:
    x_0, mask = data_for(process)
    predict = network_for(process)
    t = process.sample_time(NoiseSource(3, range(4)))
    results = []
    for junk in (0, 2, 3):
        spoiled = x_0.clone()
        spoiled[~mask] = junk
        corrupted = process.corrupt(spoiled, t, NoiseSource(3, range(4)), mask)
        prediction, weight = predict(corrupted.x_t)
        prediction = torch.where(mask[..., None], prediction, prediction * 0 + 100 * junk)
        prediction.retain_grad()
        loss = process.loss(prediction, corrupted)
        loss.sum().backward()
        assert not prediction.grad[~mask].any()
        results.append((loss, weight.grad.clone()))
        weight.grad = None
    for loss, slope in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(slope, results[0][1])


@every_process
def test_the_loss_is_zero_only_for_what_was_asked(process: Any) -> None:
    x_0, mask = data_for(process)
    noise = NoiseSource(3, range(4))
    corrupted = process.corrupt(x_0, torch.full((4,), 0.9), noise, mask)
    right = corrupted.target
    if discrete(process):
        right = 1e4 * torch.nn.functional.one_hot(corrupted.target, process.num_tokens).float()
    assert float(process.loss(right, corrupted).max()) < 1e-6
    assert float(process.loss(right.roll(1, -1), corrupted).min()) > 0.01


@every_process
def test_the_loss_is_computed_in_float32_or_wider(process: Any) -> None:
    x_0, mask = data_for(process)
    corrupted = process.corrupt(x_0, torch.full((4,), 0.9), NoiseSource(3, range(4)), mask)
    prediction = network_for(process)(corrupted.x_t)[0].detach()
    half = prediction.bfloat16()
    assert process.loss(half, corrupted).dtype == torch.float32
    assert torch.equal(process.loss(half, corrupted), process.loss(half.float(), corrupted))
    assert process.loss(prediction.double(), corrupted).dtype == torch.float64


@every_process
def test_the_prior_is_what_corruption_ends_in(process: Any) -> None:
    x_0, _ = data_for(process)
    prior = process.prior(x_0, NoiseSource(3, range(4)))
    assert (prior.shape, prior.dtype) == (x_0.shape, x_0.dtype)
    end = process.corrupt(x_0, torch.ones(4), NoiseSource(3, range(4))).x_t
    torch.testing.assert_close(prior, end, atol=1e-6, rtol=0)


@every_process
def test_no_float64_is_moved_to_a_device(process: Any) -> None:
    x_0, mask = data_for(process)
    with NoFloat64Moves():
        noise = NoiseSource(3, range(4))
        process.corrupt(x_0, process.sample_time(noise), noise, mask)
        process.prior(x_0, noise)


WRONG: list[tuple[Any, str, object]] = [
    (Interpolant(), "path", "cosine"),
    (Interpolant(), "prediction", "x_0"),
    (Interpolant(), "t_min", -0.1),
    (Interpolant(), "t_min", 0.999),
    (Interpolant(), "t_max", 1.1),
    (Masked(4, 4), "mask_token", 3),
    (Masked(4, 4), "mask_token", 0),
    (Masked(4, 4), "time_weight", "elbow"),
    (Masked(4, 4), "t_min", 0.0),
    (UniformDiscrete(4), "num_tokens", 1),
    (UniformDiscrete(4), "time_weight", "elbow"),
    (UniformDiscrete(4), "t_min", 0.0),
    (UniformDiscrete(4), "t_max", 1e-3),
    (Power(1.0), "exponent", 0.0),
    (Power(1.0), "exponent", float("nan")),
    (Window(0.0, 1.0), "low", 1.0),
    (Window(0.0, 1.0), "high", 1.1),
    (Window(0.0, 1.0), "floor", 1.0),
    (Product({"x": Interpolant()}), "fields", {}),
    (Product({"x": Interpolant()}), "fields", {"x": Product({"y": Interpolant()})}),
    (Product({"x": Interpolant()}), "clocks", {"y": Same()}),
    (Product({"x": Interpolant()}), "weights", {"y": 1.0}),
]


@pytest.mark.parametrize(("process", "field", "value"), WRONG, ids=str)
def test_a_wrong_process_is_refused(process: Any, field: str, value: object) -> None:
    """Past the type checker, which only tests run under."""
    wrong = copy.copy(process)
    object.__setattr__(wrong, field, value)
    with pytest.raises(InputError):
        wrong.__post_init__()  # type: ignore[attr-defined]


# The mean of a sample's own elements


def test_masked_mean_is_that_of_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape, axes in [((3, 4), 2), ((3, 4, 2), 2), ((3, 4, 2), 3), ((3, 4, 2, 2), 3), ((3,), 1)]:
        values = torch.randn(shape, generator=generator)
        mask = torch.rand(shape[:axes], generator=generator) < 0.5
        mask[0] = False
        got = masked_mean(torch.where(mask.reshape(*mask.shape, *[1] * (len(shape) - axes)), values, torch.nan), mask)
        for i in range(3):
            own = values[i][mask[i]].flatten()
            assert float(got[i]) == pytest.approx(float(own.mean()) if len(own) else 0.0, abs=1e-6)
        torch.testing.assert_close(masked_mean(values, None), values.reshape(3, -1).mean(1))


def test_masked_sum_is_that_of_a_slow_loop() -> None:
    values = torch.randn(3, 4, 4, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    got = masked_sum(torch.where(mask[..., None], values, torch.nan), mask)
    for i in range(3):
        assert float(got[i]) == pytest.approx(float(values[i][mask[i]].sum()), abs=1e-5)
    torch.testing.assert_close(masked_sum(values, None), values.sum((1, 2, 3)))
    assert torch.equal(masked_sum(values[:, 0, 0, 0], mask[:, 0, 0]), values[:, 0, 0, 0] * mask[:, 0, 0])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_longer_draw_extends_a_shorter_one_along_every_element_axis(axes: int) -> None:
    long, short = (
        draw_elements(NoiseSource(0, [4]).uniform, (*[size] * axes, 2), torch.ones(1, *[size] * axes, dtype=torch.bool))
        for size in (5, 3)
    )
    assert torch.equal(long[(slice(None), *[slice(3)] * axes)], short)
    assert len(long.unique()) == long.numel()
    uneven = draw_elements(NoiseSource(0, [4]).uniform, (2, 5), torch.ones(1, 2, 5, dtype=torch.bool))
    square = draw_elements(NoiseSource(0, [4]).uniform, (5, 5), torch.ones(1, 5, 5, dtype=torch.bool))
    assert torch.equal(uneven, square[:, :2])
