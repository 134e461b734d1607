"""Masked diffusion: what is hidden, what the bound costs, how tokens come back."""

import itertools
import math

import pytest
import torch
from process_cases import LENGTHS, MASKED, data_for, gauss
from reed_core.noise import NoiseSource
from reed_core.process import Corrupted, Masked
from torch import Tensor

every_masked = pytest.mark.parametrize("process", MASKED, ids=str)


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
