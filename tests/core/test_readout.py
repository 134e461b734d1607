"""The readout of a latent against a slow loop over elements, at every level and with every head."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from reed_core.errors import InputError
from reed_core.generator import Flow, FlowDraw
from reed_core.head import Categorical, Gaussian, VonMisesFisher
from reed_core.latent import Latent, Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.readout import Readout
from reed_core.reveal import PointMass
from torch import Tensor

HEADS = [VonMisesFisher(2.0), Gaussian(0.5), Categorical(), Flow(hidden=8, layers=1, steps=3)]
LEVELS = {"token": (4,), "pair": (4, 3), "global": ()}
LENGTHS = (4, 2, 3)
WIDTH, DIM = 6, 3
every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
every_level = pytest.mark.parametrize("level", LEVELS)

CLASS = Latent("class", "b", WIDTH, 5, head=Categorical(), level="global")
MASK = torch.arange(4) < torch.tensor(LENGTHS)[:, None]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def readout(head: Any, level: Any, given: bool = True) -> Readout:
    """Given a class of the sample and, below the level of a sample, a vector of each element."""
    same = Latent("same", "b", WIDTH, 2, level=level)
    others = [CLASS, same] if given else []
    names = tuple(other.name for other in others)
    torch.manual_seed(0)
    made = Readout(Latent("z", "a", WIDTH, DIM, head=head, level=level, given=names, hidden=7), others[::-1])
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter.add_(0.3 * rand(*parameter.shape, seed=number))
    return made


def hidden(level: str) -> Tensor:
    return rand(3, *(LEVELS[level] or (4,)), WIDTH, seed=1)


def value(head: Any, level: str) -> Representation:
    shape = (3, *LEVELS[level])
    if isinstance(head, Categorical):
        return Representation(torch.randint(DIM, shape, generator=torch.Generator().manual_seed(2)))
    return Representation(rand(*shape, DIM, seed=2))


def given(level: str) -> dict[str, Revealed]:
    """The class is shown to two samples, of which one does not know it; one element of `same` is unknown."""
    lead = (3, *LEVELS[level])
    known = torch.ones(lead, dtype=torch.bool)
    known.view(3, -1)[1, 0] = False
    return {
        "class": Revealed(torch.tensor([1, -1, 3]), None, torch.tensor([True, True, False])),
        "same": Revealed(rand(*lead, 2, seed=3), known, torch.tensor([False, True, True])),
        "unrelated": Revealed(rand(3, 9)),
    }


def slow_features(level: str, sample: int, at: tuple[int, ...], told: dict[str, Revealed]) -> Tensor:
    state = hidden(level)[sample]
    parts = [state[: LENGTHS[sample]].mean(0) if level == "global" else state[at]]
    number = int(told["class"].z[sample])
    seen = number >= 0 and bool(told["class"].shown[sample])  # type: ignore[index]
    parts += [torch.eye(5)[number] if seen else torch.zeros(5), torch.tensor([float(seen)])]
    same = told["same"]
    seen = bool(same.shown[sample]) and bool(same.mask[(sample, *at)])  # type: ignore[index]
    parts += [same.z[(sample, *at)] if seen else torch.zeros(2), torch.tensor([float(seen)])]
    return torch.cat(parts)


@every_head
@every_level
def test_energy_and_nats_are_those_of_a_slow_loop(head: Any, level: str) -> None:
    made, z, told = readout(head, level), value(head, level), given(level)
    drawn = made.draw(z, NoiseSource(0, range(3)))
    assert (drawn is not None) == isinstance(head, Flow)
    energy = made.energy(hidden(level), z, MASK, told, drawn)
    nats = made.nats(hidden(level), z, MASK, told, NoiseSource(0, range(3)))
    for sample in range(3):
        rows, count = [], 0
        for at in product(*map(range, LEVELS[level])):
            if at and at[0] >= LENGTHS[sample]:
                continue
            features, own, count = slow_features(level, sample, at, told), z.z[(sample, *at)], count + 1
            if isinstance(head, Flow):
                assert drawn is not None
                draw = FlowDraw(drawn.s[(sample, *at)][None], drawn.eps[(sample, *at)][None])
                rows.append(made.flow.energy(features[None], own[None], draw)[0])
            else:
                rows.append(head.energy(made.projector(features)[None], own[None])[0])
        torch.testing.assert_close(energy[sample], torch.stack(rows).mean(), atol=1e-5, rtol=1e-5)
        if not isinstance(head, Flow):
            exact = torch.stack(rows).sum() + count * head.log_normaliser(DIM)
            torch.testing.assert_close(nats[sample], exact, atol=1e-5, rtol=1e-5)


@every_level
def test_nats_of_a_flow_are_the_sum_of_its_elements(level: str) -> None:
    made, z = readout(HEADS[3], level, given=False), value(HEADS[3], level)
    state, noise = hidden(level), NoiseSource(0, range(3))
    pooled = torch.stack([row[:length].mean(0) for row, length in zip(state, LENGTHS, strict=True)])
    each = made.flow.nats(pooled if level == "global" else state, z.z, noise)
    nats = made.nats(state, z, MASK, {}, NoiseSource(0, range(3)))
    for sample, length in enumerate(LENGTHS):
        own = each[sample] if level == "global" else each[sample, :length].sum()
        torch.testing.assert_close(nats[sample], own, rtol=1e-4, atol=1e-3)


@every_head
@every_level
def test_padding_never_touches_energy_or_gradient(head: Any, level: str) -> None:
    """Not even when it holds no numbers."""
    made, results = readout(head, level), []
    for junk in (0.0, 5.0, math.nan):
        state, z, told = hidden(level), value(head, level), given(level)
        state[~MASK] = junk
        if level != "global":
            z.z[~MASK] = 99 if isinstance(head, Categorical) else junk
            told["same"].z[~MASK], told["same"].mask[~MASK] = junk, False  # type: ignore[index]
        drawn = made.draw(z, NoiseSource(0, range(3)))
        energy = made.energy(state, z, MASK, told, drawn)
        gradients = torch.autograd.grad(energy.sum(), list(made.parameters()))
        with torch.no_grad():
            results.append([energy, made.nats(state, z, MASK, told, NoiseSource(1, range(3))), *gradients])
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert torch.equal(one, other)


@every_head
@every_level
def test_what_is_not_shown_is_as_if_it_were_absent(head: Any, level: str) -> None:
    made, z, told = readout(head, level), value(head, level), given(level)
    drawn = made.draw(z, NoiseSource(0, range(3)))
    hide = {name: Revealed(one.z, one.mask, torch.zeros(3, dtype=torch.bool)) for name, one in told.items()}
    absent = made.energy(hidden(level), z, MASK, {}, drawn)
    assert torch.equal(made.energy(hidden(level), z, MASK, hide, drawn), absent)
    show = {name: Revealed(one.z.clamp(min=0), one.mask) for name, one in told.items()}
    assert bool((made.energy(hidden(level), z, MASK, show, drawn) != absent).all())


@every_head
@every_level
def test_an_unknown_value_costs_nothing(head: Any, level: str) -> None:
    made, z = readout(head, level), value(head, level)
    known = torch.tensor([True, False, True]).view(3, *[1] * len(LEVELS[level])).expand(3, *LEVELS[level])
    drawn = made.draw(z, NoiseSource(0, range(3)))
    energy = made.energy(hidden(level), Representation(z.z, known), None, {}, drawn)
    assert torch.equal(energy == 0, torch.tensor([False, True, False]))
    torch.testing.assert_close(energy[::2], made.energy(hidden(level), z, None, {}, drawn)[::2])
    assert made.nats(hidden(level), Representation(z.z, known), None, {}, NoiseSource(0, range(3)))[1] == 0


@every_head
@every_level
def test_draws_have_the_form_of_z_and_belong_to_samples(head: Any, level: str) -> None:
    made, z, told = readout(head, level), value(head, level).z, given(level)
    drawn = made.sample(hidden(level), NoiseSource(0, [3, 8, 5]), MASK, told)
    best = made.predict(hidden(level), MASK, told)
    for out in (drawn, best):
        assert out.shape == z.shape
        assert out.dtype == z.dtype
        assert not out.requires_grad

    def second(part: Tensor | None) -> Tensor | None:
        return None if part is None else part[1:2]

    alone = {name: Revealed(one.z[1:2], second(one.mask), second(one.shown)) for name, one in told.items()}
    again = made.sample(hidden(level)[1:2], NoiseSource(0, [8]), MASK[1:2], alone)
    torch.testing.assert_close(again[0], drawn[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.predict(hidden(level)[1:2], MASK[1:2], alone)[0], best[1], atol=1e-5, rtol=1e-5)


@every_head
def test_a_readout_without_a_tap_is_a_distribution_of_z_alone(head: Any) -> None:
    torch.manual_seed(0)
    made = Readout(Latent("z", None, 0, DIM, head=head, reveal=PointMass(1.0), hidden=7))
    z = value(head, "token")
    energy = made.energy(None, z, MASK, {}, made.draw(z, NoiseSource(0, range(3))))
    assert energy.shape == (3,)
    energy.sum().backward()
    assert any(bool((p.grad != 0).any()) for p in made.parameters() if p.grad is not None)
    assert made.sample(None, NoiseSource(0, range(3)), None, {}, (4,)).shape == z.z.shape
    assert made.predict(None, MASK, {}, (4,)).shape == z.z.shape
    assert made.predict(None, None, {}, (4,)).shape[:2] == (1, 4)


def test_a_prior_given_another_latent_takes_its_batch() -> None:
    latent = Latent("z", None, 0, DIM, head=Gaussian(), level="global", reveal=PointMass(1.0), given=("class",))
    made = Readout(latent, [CLASS])
    told = {"class": Revealed(torch.tensor([0, 1, 0, 2]))}
    best = made.predict(None, None, told)
    assert best.shape == (4, DIM)
    assert torch.equal(best[0], best[2])
    assert not torch.equal(best[0], best[1])


def test_a_learned_prior_of_classes_becomes_their_rate() -> None:
    """p(z) without a tap: the constant is trained to the frequencies, and nats to their entropy."""
    torch.manual_seed(0)
    made = Readout(Latent("z", None, 0, DIM, head=Categorical(), level="global", reveal=PointMass(1.0), layers=1))
    z = Representation(torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))
    optimiser = torch.optim.Adam(made.parameters(), 0.2)
    for _ in range(100):
        optimiser.zero_grad()
        made.energy(None, z, None, {}).mean().backward()
        optimiser.step()
    nats = made.nats(None, z, None, {}, NoiseSource(0, range(8)))
    assert float(nats.detach().mean()) == pytest.approx(1.5 * math.log(2), abs=1e-3)


def ask(made: Readout, **change: Any) -> Callable[[], Tensor]:
    arguments = {"hidden": hidden("token"), "value": value(made.latent.head, "token"), "mask": MASK, "given": {}}
    return lambda: made.energy(**{**arguments, **change})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Readout(Latent("z", "a", 6, 3, given=("class",))), "given class; its readout got none"),
        (lambda: Readout(Latent("z", "a", 6, 3), [CLASS]), "given no latents; its readout got class"),
        (
            lambda: Readout(Latent("z", "a", 6, 3, level="global", given=("t",)), [Latent("t", "a", 6, 3)]),
            r"'z' \(global\) cannot be given 't' \(token\)",
        ),
        (ask(readout(HEADS[0], "token"), hidden=None), "'z' reads 'a', but got no hidden state"),
        (ask(readout(HEADS[0], "token"), hidden=rand(3, 5, WIDTH), mask=None), r"elements \(3, 5\), its z \(3, 4\)"),
        (ask(readout(HEADS[3], "token")), "'z' is a flow, whose energy needs random numbers"),
    ],
)
def test_what_does_not_fit_is_named(wrong: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        wrong()
