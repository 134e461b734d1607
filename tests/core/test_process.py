"""Forward processes: a new one is tested by being added to `PROCESSES`."""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Corrupted, Interpolant, Masked, Process
from reed_core.process.base import masked_mean
from torch import Tensor
from torch.overrides import TorchFunctionMode

INTERPOLANTS = [Interpolant(path, prediction) for path in ("linear", "trig") for prediction in ("v", "eps", "x0")]
MASKED = [Masked(4, 5, "elbo"), Masked(4, 4, "flat"), Masked(4, -1)]
PROCESSES: list[Process] = [*INTERPOLANTS, *MASKED]
LENGTHS = (5, 1, 3, 4)

every_process = pytest.mark.parametrize("process", PROCESSES, ids=str)
every_interpolant = pytest.mark.parametrize("process", INTERPOLANTS, ids=str)
every_masked = pytest.mark.parametrize("process", MASKED, ids=str)


def data_for(process: Process, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A padded batch and its mask."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = torch.arange(shape[1])[None] < torch.tensor(LENGTHS)[:, None]
    if isinstance(process, Masked):
        return torch.randint(process.num_tokens, shape, generator=generator), mask
    return torch.randn(*shape, 3, generator=generator), mask


def network_for(process: Process, seed: int = 1) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A toy network, elementwise: returns its prediction and its only weight."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (8, process.num_tokens) if isinstance(process, Masked) else (3, 3)
    weight = torch.randn(rows, columns, generator=generator, requires_grad=True)

    def predict(x_t: Tensor) -> tuple[Tensor, Tensor]:
        return (weight[x_t % 8] if isinstance(process, Masked) else torch.tanh(x_t @ weight)), weight

    return predict


class NoFloat64Moves(TorchFunctionMode):
    """Fails when a float64 tensor is moved as it is: not every device knows float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if func is torch.Tensor.to and args[0].dtype == torch.float64:
            assert out.dtype != torch.float64
        return out


@every_process
def test_it_is_a_process(process: Process) -> None:
    assert isinstance(process, Process)


@every_process
def test_times_are_those_of_the_noise_within_the_range(process: Process) -> None:
    t = process.sample_time(NoiseSource(0, range(1000)))
    high = process.t_max if isinstance(process, Interpolant) else 1.0
    assert torch.equal(t[10:20], process.sample_time(NoiseSource(0, range(10, 20))))
    assert process.t_min <= float(t.min()) < process.t_min + 0.01  # type: ignore[attr-defined]
    assert high - 0.01 < float(t.max()) < high or isinstance(process, Masked)
    assert float(t.max()) <= high
    assert bool(process.elbo_weight(t).isfinite().all())
    assert bool((process.elbo_weight(t) > 0).all())


@every_process
def test_a_padded_batch_is_each_sample_alone(process: Process) -> None:
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
def test_what_lies_in_the_padding_never_matters(process: Process) -> None:
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
def test_the_loss_is_zero_only_for_what_was_asked(process: Process) -> None:
    x_0, mask = data_for(process)
    noise = NoiseSource(3, range(4))
    corrupted = process.corrupt(x_0, torch.full((4,), 0.9), noise, mask)
    right = corrupted.target
    if isinstance(process, Masked):
        right = 1e4 * torch.nn.functional.one_hot(corrupted.target, process.num_tokens).float()
    assert float(process.loss(right, corrupted).max()) < 1e-6
    assert float(process.loss(right.roll(1, -1), corrupted).min()) > 0.01


@every_process
def test_the_loss_is_computed_in_float32_or_wider(process: Process) -> None:
    x_0, mask = data_for(process)
    corrupted = process.corrupt(x_0, torch.full((4,), 0.9), NoiseSource(3, range(4)), mask)
    prediction = network_for(process)(corrupted.x_t)[0].detach()
    half = prediction.bfloat16()
    assert process.loss(half, corrupted).dtype == torch.float32
    assert torch.equal(process.loss(half, corrupted), process.loss(half.float(), corrupted))
    assert process.loss(prediction.double(), corrupted).dtype == torch.float64


@every_process
def test_the_prior_is_what_corruption_ends_in(process: Process) -> None:
    x_0, _ = data_for(process)
    prior = process.prior(x_0, NoiseSource(3, range(4)))
    assert (prior.shape, prior.dtype) == (x_0.shape, x_0.dtype)
    end = process.corrupt(x_0, torch.ones(4), NoiseSource(3, range(4))).x_t
    torch.testing.assert_close(prior, end, atol=1e-6, rtol=0)


@every_process
def test_no_float64_is_moved_to_a_device(process: Process) -> None:
    x_0, mask = data_for(process)
    with NoFloat64Moves():
        noise = NoiseSource(3, range(4))
        process.corrupt(x_0, process.sample_time(noise), noise, mask)
        process.prior(x_0, noise)


# Interpolants


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


def gauss(low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on an interval."""
    k = torch.arange(1, count, dtype=torch.float64)
    jacobi = torch.diag(k / torch.sqrt(4 * k**2 - 1), 1)
    values, vectors = torch.linalg.eigh(jacobi + jacobi.T)
    return 0.5 * (high - low) * (values + 1) + low, (high - low) * vectors[0] ** 2


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


# Masked diffusion


@every_masked
@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_token_is_masked_with_probability_t(process: Masked, t: float) -> None:
    x_0 = torch.randint(4, (500, 20), generator=torch.Generator().manual_seed(0))
    corrupted = process.corrupt(x_0, torch.full((500,), t), NoiseSource(0, range(500)))
    rate = (corrupted.x_t == process.mask_token).double().mean()
    assert abs(float(rate) - t) <= 4 * math.sqrt(t * (1 - t) / x_0.numel())


@every_masked
def test_what_is_not_masked_is_carried_over(process: Masked) -> None:
    x_0, mask = data_for(process)
    x_0[~mask] = 77
    corrupted = process.corrupt(x_0, torch.tensor([0.5, 1.0, 0.7, 0.2]), NoiseSource(0, range(4)), mask)
    assert corrupted.scored is not None
    assert torch.equal(corrupted.x_t[~corrupted.scored], x_0[~corrupted.scored])
    assert bool((corrupted.x_t[corrupted.scored] == process.mask_token).all())
    assert not (corrupted.scored & ~mask).any()
    assert bool(corrupted.scored[1, 0])
    assert torch.equal(corrupted.x_0, x_0)


@every_masked
def test_the_masked_loss_is_the_weighted_sum_of_a_slow_loop(process: Masked) -> None:
    x_0, mask = data_for(process)
    t = torch.tensor([0.5, 1.0, 0.7, 0.2])
    corrupted = process.corrupt(x_0, t, NoiseSource(0, range(4)), mask)
    logits = torch.randn(4, 5, 4, generator=torch.Generator().manual_seed(2))
    losses = process.loss(logits, corrupted)
    for i, length in enumerate(LENGTHS):
        nats = 0.0
        for j in range(length):
            if corrupted.x_t[i, j] == process.mask_token:
                nats -= math.log(float(logits[i, j].softmax(0)[x_0[i, j]]))
        factor = 1 / float(t[i]) if process.time_weight == "elbo" else 2.0
        assert float(losses[i]) == pytest.approx(factor * nats / length, rel=1e-5, abs=1e-7)


@every_masked
def test_a_token_that_a_network_forbids_costs_nothing_where_it_is_not_asked(process: Masked) -> None:
    x_0, mask = data_for(process)
    corrupted = process.corrupt(x_0, torch.full((4,), 0.5), NoiseSource(0, range(4)), mask)
    logits = torch.zeros(4, 5, 4, requires_grad=True)
    forbidden = torch.nn.functional.one_hot(x_0, 4).bool() & ~corrupted.scored[..., None]  # type: ignore[index]
    loss = process.loss(logits.masked_fill(forbidden, -torch.inf), corrupted).sum()
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(logits.grad.isfinite().all())  # type: ignore[union-attr]


def exact_logits(joint: Tensor, x: Tensor, mask_token: int) -> Tensor:
    """log p(x_i | visible tokens) for every position, by summing a table over all completions."""
    out = torch.empty(*x.shape, joint.shape[0], dtype=joint.dtype)
    for row, tokens in enumerate(x.tolist()):
        seen = joint
        for axis, token in enumerate(tokens):
            if token != mask_token:
                seen = torch.where(
                    torch.arange(joint.shape[0]).eq(token).reshape([-1 if k == axis else 1 for k in range(joint.ndim)]),
                    seen,
                    0.0,
                )
        for axis in range(joint.ndim):
            marginal = seen.sum([k for k in range(joint.ndim) if k != axis])
            out[row, axis] = (marginal / marginal.sum()).log()
    return out


@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 2)], ids=str)
def test_the_masked_bound_of_an_exact_denoiser_is_the_likelihood(shape: tuple[int, ...]) -> None:
    """E over t and masks, enumerated, equals the average over orders, which equals -log p(x)."""
    tokens, length = shape[0], len(shape)
    joint = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.05
    joint /= joint.sum()
    process = Masked(tokens, tokens)
    times, widths = gauss(0.0, 1.0, 6)
    subsets = torch.tensor(list(itertools.product([False, True], repeat=length)))
    for x in itertools.product(range(tokens), repeat=length):
        x_0 = torch.tensor([x]).expand(len(subsets), -1)
        x_t = torch.where(subsets, process.mask_token, x_0)
        logits = exact_logits(joint, x_t, process.mask_token)
        hidden = subsets.sum(1)
        bound = 0.0
        for t, width in zip(times, widths, strict=True):
            corrupted = Corrupted(x_0, x_t, t.expand(len(subsets)), x_0, scored=subsets)
            chance = t**hidden * (1 - t) ** (length - hidden)
            bound += float(width * (chance * process.loss(logits, corrupted) * length).sum())
        nll = {tuple(row): float(process.token_nll(logits, corrupted)[i].sum()) for i, row in enumerate(x_t.tolist())}
        orders = list(itertools.permutations(range(length)))
        average = 0.0
        for order in orders:
            for step, position in enumerate(order):
                before = [x[k] if k in order[:step] else process.mask_token for k in range(length)]
                single = [x[k] if k != position else process.mask_token for k in range(length)]
                row = exact_logits(joint, torch.tensor([before]), process.mask_token)[0, position]
                average -= float(row[x[position]]) / len(orders)
                if step == length - 1:
                    assert nll[tuple(single)] == pytest.approx(-float(row[x[position]]))
        assert average == pytest.approx(-math.log(float(joint[x])), abs=1e-10)
        assert bound == pytest.approx(average, abs=1e-10)


@every_masked
def test_a_reverse_step_reveals_what_the_forward_process_had_kept(process: Masked) -> None:
    """P(masked at s | masked at t) = s / t."""
    x_0 = torch.zeros(400, 50, dtype=torch.long)
    t, s = 0.8, 0.3
    drawn = NoiseSource(1, range(400)).uniform((50,))
    masked_t, masked_s = (process.corrupt(x_0, torch.full((400,), u), NoiseSource(1, range(400))) for u in (t, s))
    kept = masked_t.scored & ~masked_s.scored  # type: ignore[operator]
    assert torch.equal(masked_t.scored, drawn < t)
    rate = float(kept.sum() / masked_t.scored.sum())  # type: ignore[union-attr]
    assert rate == pytest.approx(process.reveal_probability(t, s), abs=0.02)
    assert process.reveal_probability(t, 0.0) == 1.0


WRONG: list[tuple[Process, str, object]] = [
    (Interpolant(), "path", "cosine"),
    (Interpolant(), "prediction", "x_0"),
    (Interpolant(), "t_min", -0.1),
    (Interpolant(), "t_min", 0.999),
    (Interpolant(), "t_max", 1.1),
    (Masked(4, 4), "mask_token", 3),
    (Masked(4, 4), "mask_token", 0),
    (Masked(4, 4), "time_weight", "elbow"),
    (Masked(4, 4), "t_min", 0.0),
]


@pytest.mark.parametrize(("process", "field", "value"), WRONG, ids=str)
def test_a_wrong_process_is_refused(process: Process, field: str, value: object) -> None:
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
