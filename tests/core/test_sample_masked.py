"""Filling in masked tokens, against small tables whose joint distribution is known."""

import itertools
import math
from typing import Any, Literal

import pytest
import torch
from core.sample_models import MASK, Counted, all_masked, chi_square, critical, random_joint, table_denoiser
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.noise import NoiseSource
from reed_core.process import Masked
from reed_core.sample import Autoguidance, ClassifierFree, Hybrid, RepresentationGuidance, unmask
from torch import Tensor
from torch.overrides import TorchFunctionMode

Order = Literal["random", "confidence"]
ORDERS: list[Order] = ["random", "confidence"]


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


def told(x: Tensor, t: Tensor, c: Tensor | None = None, z: Any = None) -> Tensor:
    """Logits that depend on tokens, a condition and a latent; token 3 is impossible under any condition."""
    logits = contextual(x, t)
    if c is not None:
        logits = logits + c
    if z is not None:
        logits = logits + z["z"].z[:, None]
    return logits.index_fill(-1, torch.tensor([3]), -torch.inf)


@pytest.mark.parametrize("order", ORDERS)
def test_every_guidance_serves_both_orders(order: Order) -> None:
    z, c = {"z": Representation(torch.randn(5, 4))}, torch.tensor([0.0, 2.0, 0.0, 0.0])
    start, noise = all_masked(5, 6), range(5)
    for guidance in (
        ClassifierFree(told, None, 2.0),
        Autoguidance(told, lambda x, t, c: contextual(x, t), 1.5),
        RepresentationGuidance(told, None, 2.0, 3.0, z),
        Hybrid(told, z, {"z": lambda t: 1.0 - t}),
    ):
        drawn = unmask(Masked(4, MASK), guidance, start, 4, NoiseSource(0, noise), c=c, order=order).tokens
        assert bool((drawn < 3).all())
    shown = {"z": Representation(torch.tensor([[0.0, 50.0, 0.0, 0.0]]).expand(5, 4))}
    led = unmask(
        Masked(4, MASK),
        RepresentationGuidance(told, None, 1.0, 1.0, shown),
        start,
        4,
        NoiseSource(0, noise),
        order=order,
    )
    assert bool((led.tokens == 1).all())
