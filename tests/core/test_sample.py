"""Samplers against models whose samples are known exactly: Gaussians, and small tables of tokens."""

import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant, Masked
from reed_core.sample import ClassifierFree, integrate, unmask
from torch import Tensor
from torch.overrides import TorchFunctionMode

INTERPOLANTS = [Interpolant(path, prediction) for path in ("linear", "trig") for prediction in ("v", "eps", "x0")]
every_interpolant = pytest.mark.parametrize("process", INTERPOLANTS, ids=str)
MEAN = torch.tensor([0.7, -1.0], dtype=torch.float64)
STD = torch.tensor([0.5, 1.5], dtype=torch.float64)
Order = Literal["random", "confidence"]
ORDERS: list[Order] = ["random", "confidence"]


class Counted:
    """A denoiser that counts its calls and keeps the times and conditions it saw."""

    def __init__(self, denoiser: Callable[..., Tensor]) -> None:
        self.denoiser = denoiser
        self.seen: list[tuple[Tensor, Tensor, Any]] = []

    def __call__(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        self.seen.append((x_t, t, c))
        return self.denoiser(x_t, t, c)


def exact_denoiser(process: Interpolant, mean: Tensor = MEAN, std: Tensor = STD) -> Counted:
    """The exact prediction when x_0 ~ N(mean, diag std^2)."""

    def denoise(x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        at = process.coefficients(t.to(x_t).reshape(-1, *[1] * (x_t.ndim - 1)))
        spread = at.signal**2 * std**2 + at.noise**2
        residual = x_t - at.signal * mean
        x_0, eps = mean + at.signal * std**2 / spread * residual, at.noise / spread * residual
        return {"x0": x_0, "eps": eps, "v": at.d_signal * x_0 + at.d_noise * eps}[process.prediction]

    return Counted(denoise)


def exact_flow(process: Interpolant, x: Tensor, start: float, end: float) -> Tensor:
    """Where the probability flow of that Gaussian carries x: its standardised value never changes."""
    signal, noise, *_ = process.coefficients(torch.tensor([start, end], dtype=torch.float64))
    spread = (signal[:, None] ** 2 * STD**2 + noise[:, None] ** 2).sqrt()
    return signal[1] * MEAN + spread[1] * (x - signal[0] * MEAN) / spread[0]


# Probability flow


@every_interpolant
@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_a_solver_has_its_order(process: Interpolant, method: Literal["euler", "heun"], order: int) -> None:
    x = NoiseSource(0, range(20)).normal((2,)).double()
    at_t_min = exact_flow(process, x, process.t_max, process.t_min)
    t = torch.full((20,), process.t_min, dtype=torch.float64)
    exact = process.predict_x0(exact_denoiser(process)(at_t_min, t), at_t_min, t)
    errors = []
    for steps in (32, 64, 128):
        denoiser = exact_denoiser(process)
        errors.append(float((integrate(process, denoiser, x, steps, method=method) - exact).abs().max()))
        assert len(denoiser.seen) == order * steps + 1
    rates = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert all(rate == pytest.approx(order, abs=0.2) for rate in rates), rates


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

    def denoise(x: Tensor, t: Tensor, c: Any = None) -> Tensor:
        return torch.tanh(x + x.sum(1, keepdim=True)) + 1

    x = process.prior(torch.zeros(3, 4, 2), NoiseSource(0, range(3)))
    batch = integrate(process, denoise, x, 5, mask=mask)
    assert not batch[~mask].any()
    for i, length in enumerate(lengths):
        alone = process.prior(torch.zeros(1, length, 2), NoiseSource(0, [i]))
        torch.testing.assert_close(integrate(process, denoise, alone, 5)[0], batch[i, :length])


def test_a_flow_without_steps_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1 step"):
        integrate(Interpolant(), exact_denoiser(Interpolant()), torch.zeros(1, 2), 0)


# Guidance


def of_condition(x_t: Tensor, t: Tensor, c: float) -> Tensor:
    return torch.sin(x_t) * c + t[:, None]


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.3, 0.6), (0, 1)])
@pytest.mark.parametrize("scale", [1, 0.0, 1.5, -0.5])
def test_guidance_is_affine_inside_its_interval(scale: float, interval: tuple[float, float]) -> None:
    x, t = torch.randn(5, 2), torch.tensor([0.1, 0.3, 0.45, 0.6, 0.9])
    inner = Counted(of_condition)
    guided = ClassifierFree(inner, null=2.0, scale=scale, interval=interval)(x, t, 3.0)
    conditional, unconditional = of_condition(x, t, 3.0), of_condition(x, t, 2.0)
    inside = torch.tensor([interval[0] == 0, True, True, True, interval[0] == 0])[:, None]
    torch.testing.assert_close(
        guided, torch.where(inside, unconditional + scale * (conditional - unconditional), conditional)
    )
    assert [c for *_, c in inner.seen] == ([3.0] if scale == 1 else [3.0, 2.0])


def test_guidance_outside_its_interval_costs_one_evaluation() -> None:
    process = Interpolant()
    inner = Counted(of_condition)
    guidance = ClassifierFree(inner, null=2.0, scale=2.0, interval=(0.25, 0.5))
    integrate(process, guidance, torch.randn(3, 2), 8, c=3.0, method="euler")
    evaluations = {round(float(t[0]), 3): 0 for _, t, _ in inner.seen}
    for _, t, _ in inner.seen:
        evaluations[round(float(t[0]), 3)] += 1
    assert len(evaluations) == 9
    assert all(count == (2 if 0.25 <= time <= 0.5 else 1) for time, count in evaluations.items())
    assert 2 in evaluations.values()


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_guided_samples_at_the_ends_are_those_of_one_model(scale: float) -> None:
    x = torch.randn(3, 2)
    inner = Counted(of_condition)
    guided = integrate(Interpolant(), ClassifierFree(inner, 2.0, scale), x, 4, c=3.0)
    alone = integrate(Interpolant(), of_condition, x, 4, c=3.0 if scale else 2.0)
    torch.testing.assert_close(guided, alone)
    assert len(inner.seen) == (9 if scale == 1 else 18)


@every_interpolant
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_guided_score_is_that_of_the_powers_of_the_densities(process: Interpolant, scale: float) -> None:
    """score = (1 - w) score_u + w score_c, by finite differences of log p_u^(1-w) p_c^w at time t."""
    laws = {"u": (MEAN, STD), "c": (MEAN + 1, 0.5 * STD)}

    def denoise(x_t: Tensor, t: Tensor, c: str) -> Tensor:
        return exact_denoiser(process, *laws[c])(x_t, t)

    x, t = torch.randn(4, 2, dtype=torch.float64), torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64)
    guided = ClassifierFree(denoise, "u", scale)(x, t, "c")
    signal, noise, *_ = process.coefficients(t[:, None])
    score = -process.predict_eps(guided, x, t) / noise

    def log_density(y: Tensor) -> Tensor:
        total = torch.zeros(4, 2, dtype=torch.float64)
        for weight, (mean, std) in [(1 - scale, laws["u"]), (scale, laws["c"])]:
            total -= weight * (y - signal * mean) ** 2 / (2 * (signal**2 * std**2 + noise**2))
        return total

    step = 1e-6
    torch.testing.assert_close(
        score, (log_density(x + step) - log_density(x - step)) / (2 * step), atol=1e-6, rtol=1e-6
    )


def test_a_token_that_both_sides_forbid_stays_forbidden() -> None:
    logits = {"u": torch.tensor([[[0.0, 1.0, -torch.inf]]]), "c": torch.tensor([[[0.5, 0.0, -torch.inf]]])}
    guided = ClassifierFree(lambda x, t, c: logits[c], "u", 3.0)(torch.zeros(1, 1), torch.ones(1), "c")
    torch.testing.assert_close(guided, torch.tensor([[[1.5, -2.0, -torch.inf]]]))


# Unmasking

MASK = 9


def table_denoiser(joint: Tensor) -> Counted:
    """log p(x_i | visible tokens) of a joint table, looked up in a table over all states."""
    length, tokens = joint.ndim, joint.shape[0]
    looked_up = torch.empty(*[tokens + 1] * length, length, tokens, dtype=torch.float64)
    for state in itertools.product(range(tokens + 1), repeat=length):
        seen = joint[tuple(slice(None) if token == tokens else slice(token, token + 1) for token in state)]
        for axis in range(length):
            rest = [k for k in range(length) if k != axis]
            marginal = seen.sum(rest) if rest else seen
            full = torch.full((tokens,), -30.0, dtype=torch.float64)
            if state[axis] == tokens:
                full = (marginal / marginal.sum()).log()
            looked_up[(*state, axis)] = full

    def denoise(x: Tensor, t: Tensor, c: Any = None) -> Tensor:
        return looked_up[tuple(torch.where(x == MASK, tokens, x).unbind(1))].float()

    return Counted(denoise)


def random_joint(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    joint = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) ** 3 + 0.02
    return joint / joint.sum()


def chi_square(samples: Tensor, expected: Tensor) -> float:
    """Pearson's statistic of rows of tokens against a table."""
    index = torch.zeros(len(samples), dtype=torch.long)
    for token in samples.unbind(1):
        index = index * expected.shape[0] + token
    counts = torch.bincount(index, minlength=expected.numel()).double()
    wanted = expected.flatten() * len(samples)
    return float(((counts - wanted) ** 2 / wanted).sum())


def critical(freedom: int) -> float:
    """What chi-square exceeds once in ten thousand (Wilson-Hilferty)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3


def all_masked(count: int, length: int) -> Tensor:
    return torch.full((count, length), MASK)


@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 2)], ids=str)
def test_many_steps_draw_from_the_joint_distribution(shape: tuple[int, ...]) -> None:
    joint = random_joint(shape)
    process = Masked(shape[0], MASK)
    count, freedom = 3000, joint.numel() - 1
    x, noise = all_masked(count, len(shape)), NoiseSource(0, range(count))
    samples = unmask(process, table_denoiser(joint), x, 300, noise).tokens
    assert chi_square(samples, joint) < critical(freedom)
    marginals = [joint.sum([k for k in range(joint.ndim) if k != axis]) for axis in range(joint.ndim)]
    product = marginals[0]
    for marginal in marginals[1:]:
        product = product[..., None] * marginal
    assert chi_square(samples, product) > 2 * critical(freedom)
    once = unmask(process, table_denoiser(joint), x, 1, noise).tokens
    assert chi_square(once, product) < critical(freedom)
    assert chi_square(once, joint) > 2 * critical(freedom)


@pytest.mark.parametrize("temperature", [0.5, 1, 2.0])
def test_temperature_divides_the_logits(temperature: float) -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    count = 2000
    drawn = unmask(
        Masked(4, MASK),
        lambda x, t, c: logits.expand(*x.shape, -1),
        all_masked(count, 3),
        10,
        NoiseSource(0, range(count)),
        temperature=temperature,
    ).tokens
    assert chi_square(drawn.reshape(-1, 1), (logits / temperature).softmax(0).double()) < critical(3)


@pytest.mark.parametrize("order", ORDERS)
def test_no_temperature_takes_the_most_probable_token(order: Order) -> None:
    logits = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0))
    drawn = unmask(
        Masked(4, MASK),
        lambda x, t, c: logits,
        all_masked(5, 6),
        4,
        NoiseSource(0, range(5)),
        temperature=0.0,
        order=order,
    )
    assert torch.equal(drawn.tokens, logits.argmax(-1))


def contextual(x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
    """Logits that depend on all visible tokens that exist (c is the mask), and on the position."""
    exists = torch.ones_like(x, dtype=torch.bool) if c is None else c
    seen = torch.where(exists & (x != MASK), x + 1, 0)
    places = torch.arange(1, x.shape[1] + 1)
    context = (seen * places).sum(1, keepdim=True) + places
    return 2 * torch.sin(context[..., None] * torch.tensor([0.7, 1.3, 2.9, 0.2]) + t[:, None, None])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_given_tokens_never_change_and_evaluations_are_few(order: Order, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(4, (6, 7), generator=generator)
    hidden = torch.rand(6, 7, generator=generator) < 0.5
    start = torch.where(hidden, MASK, x)
    before = start.clone()
    denoiser = Counted(contextual)
    drawn = unmask(Masked(4, MASK), denoiser, start, steps, NoiseSource(0, range(6)), order=order)
    assert torch.equal(start, before)
    assert torch.equal(drawn.tokens[~hidden], x[~hidden])
    assert bool((drawn.tokens < 4).all())
    assert drawn.evaluations == len(denoiser.seen) <= min(steps, int(hidden.sum()))
    for (earlier, t, _), (later, s, _) in itertools.pairwise(denoiser.seen):
        assert bool((t > s).all())
        assert torch.equal(later[earlier != MASK], earlier[earlier != MASK])
        assert bool((later != earlier).any())
    for x_t, _, _ in denoiser.seen:
        assert torch.equal(x_t[x_t != MASK], drawn.tokens[x_t != MASK])


@pytest.mark.parametrize("order", ORDERS)
def test_a_sample_is_its_own_whatever_the_batch_and_the_padding(order: Order) -> None:
    process = Masked(4, MASK)
    lengths = (6, 2, 4, 1)
    mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
    start = torch.where(mask, MASK, 2)
    start[0, 3] = 1
    batch = unmask(process, contextual, start, 5, NoiseSource(3, range(10, 14)), c=mask, order=order, mask=mask).tokens
    assert bool((batch[~mask] == 2).all())
    for i, length in enumerate(lengths):
        alone = unmask(process, contextual, start[i : i + 1, :length], 5, NoiseSource(3, [10 + i]), order=order).tokens
        assert torch.equal(alone[0], batch[i, :length])
    other = unmask(process, contextual, start, 5, NoiseSource(4, range(10, 14)), c=mask, order=order, mask=mask).tokens
    assert not torch.equal(other, batch)


def test_what_is_masked_in_the_padding_is_left_alone() -> None:
    mask = torch.tensor([[True, True, False]])
    drawn = unmask(Masked(4, MASK), contextual, all_masked(1, 3), 4, NoiseSource(0, [0]), c=mask, mask=mask)
    assert drawn.tokens[0, 2] == MASK
    assert drawn.evaluations <= 2


def test_what_is_given_in_full_comes_back_without_an_evaluation() -> None:
    x = torch.randint(4, (3, 5))
    denoiser = Counted(contextual)
    drawn = unmask(Masked(4, MASK), denoiser, x, 20, NoiseSource(0, range(3)))
    assert torch.equal(drawn.tokens, x)
    assert (drawn.evaluations, denoiser.seen) == (0, [])


def test_confidence_reveals_as_many_tokens_a_step_as_the_random_order() -> None:
    hidden = {}
    for order in ORDERS:
        denoiser = Counted(contextual)
        unmask(Masked(4, MASK), denoiser, all_masked(8, 12), 6, NoiseSource(0, range(8)), order=order)
        hidden[order] = [((x == MASK).sum(1).tolist(), t.tolist()) for x, t, _ in denoiser.seen]
    assert hidden["random"] == hidden["confidence"]
    assert len(hidden["random"]) > 3


def test_confidence_is_a_slow_loop_that_takes_the_surest_first() -> None:
    process, steps = Masked(4, MASK), 5
    for position in range(5):
        noise = NoiseSource(1, [position])
        bins = (noise.uniform((8,))[0] * steps).long()
        gumbel = noise.gumbel((8, 4))[0]
        x = all_masked(1, 8)
        for step in reversed(range(steps)):
            logits = contextual(x, torch.tensor([(step + 1) / steps]))[0]
            choice = (logits + gumbel).argmax(-1)
            sure = {i: float(logits[i].log_softmax(0)[choice[i]]) for i in range(8) if x[0, i] == MASK}
            for i in sorted(sure, key=lambda i, sure=sure: -sure[i])[: int((bins == step).sum())]:
                x[0, i] = choice[i]
        drawn = unmask(process, contextual, all_masked(1, 8), steps, NoiseSource(1, [position]), order="confidence")
        assert torch.equal(drawn.tokens, x)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
def test_adjusted_logits_forbid_and_favour(order: Order, temperature: float) -> None:
    def adjust(logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[..., 2] = -torch.inf
        logits[:, 0, :3] = -torch.inf
        return logits

    drawn = unmask(
        Masked(4, MASK),
        contextual,
        all_masked(50, 6),
        8,
        NoiseSource(0, range(50)),
        temperature=temperature,
        order=order,
        adjust=adjust,
    ).tokens
    assert not (drawn == 2).any()
    assert bool((drawn[:, 0] == 3).all())
    assert {0, 1, 3} <= set(drawn[:, 1:].flatten().tolist())


@pytest.mark.parametrize("value", [-torch.inf, torch.nan])
def test_a_position_without_any_possible_token_is_refused(value: float) -> None:
    def adjust(logits: Tensor) -> Tensor:
        return logits.index_fill(1, torch.tensor([1]), value)

    with pytest.raises(InputError, match="no token is possible"):
        unmask(Masked(4, MASK), contextual, all_masked(2, 3), 4, NoiseSource(0, range(2)), adjust=adjust)
    given = torch.tensor([[MASK, 3, MASK]])
    assert unmask(Masked(4, MASK), contextual, given, 4, NoiseSource(0, [0]), adjust=adjust).tokens[0, 1] == 3


def test_guidance_serves_the_masked_sampler() -> None:
    process = Masked(4, MASK)
    logits = {"u": torch.tensor([0.0, 0.0, 0.0, -torch.inf]), "c": torch.tensor([0.0, 1.0, 0.0, -torch.inf])}
    inner = Counted(lambda x, t, c: logits[c].expand(*x.shape, -1))
    count = 2000
    drawn = unmask(
        process, ClassifierFree(inner, "u", 2.0), all_masked(count, 1), 1, NoiseSource(0, range(count)), c="c"
    ).tokens
    assert int(drawn.max()) < 3
    assert chi_square(drawn, torch.tensor([0.0, 2.0, 0.0]).softmax(0).double()) < critical(2)


def test_the_masked_sampler_moves_no_float64() -> None:
    class NoFloat64Moves(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            if func is torch.Tensor.to and args[0].dtype == torch.float64:
                assert out.dtype != torch.float64
            return out

    with NoFloat64Moves():
        unmask(Masked(4, MASK), contextual, all_masked(2, 3), 4, NoiseSource(0, range(2)))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"steps": 0}, "steps >= 1"),
        ({"temperature": -1.0}, "temperature >= 0"),
        ({"temperature": math.nan}, "temperature >= 0"),
        ({"noise": NoiseSource(0, [0])}, "noise for 1 samples, but a batch of 2"),
    ],
)
def test_wrong_arguments_are_refused(more: dict[str, Any], said: str) -> None:
    arguments = {"steps": 3, "noise": NoiseSource(0, range(2)), **more}
    with pytest.raises(InputError, match=said):
        unmask(Masked(4, MASK), contextual, all_masked(2, 3), **arguments)
