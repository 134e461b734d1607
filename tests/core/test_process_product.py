"""Products of processes and their clocks: every field at its own time, and the bound of the whole."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from process_cases import PRODUCTS, data_for, gauss, noise_for, say
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Clock, Corrupted, Interpolant, Masked, Power, Product, Same, UniformDiscrete, Window
from reed_core.state import map_state
from torch import Tensor

DOUBLE = torch.float64
CLOCKS: list[Clock] = [Same(), Power(2.0), Power(0.5), Window(0.0, 0.5), Window(0.3, 1.0), Window(0.2, 0.7, 0.1)]
FIRST = {"x": Window(0.0, 0.5), "z": Window(0.5, 1.0)}  # z is sampled first

every_clock = pytest.mark.parametrize("clock", CLOCKS, ids=str)


@every_clock
def test_a_clock_runs_from_data_to_noise_and_its_rate_is_its_slope(clock: Clock) -> None:
    t = torch.linspace(0, 1, 201, dtype=DOUBLE)
    s = clock(t)
    assert isinstance(clock, Clock)
    assert (float(s[0]), float(s[-1])) == (0.0, 1.0)
    assert bool((s.diff() >= 0).all())
    inner, h = torch.linspace(0.0123, 0.9876, 90, dtype=DOUBLE), 1e-7
    slope = (clock(inner + h) - clock(inner - h)) / (2 * h)
    torch.testing.assert_close(clock.rate(inner), slope, rtol=1e-5, atol=1e-6)
    for shown in (0.1001, 0.5, 1.0):
        assert float(clock(torch.tensor([clock.when(shown)], dtype=DOUBLE))) == pytest.approx(shown)


def test_one_field_on_the_master_clock_is_its_process() -> None:
    for single in (Interpolant(), Masked(4, 4), UniformDiscrete(4)):
        whole = Product({"x": single})
        x_0, mask = data_for(single)
        assert (whole.t_min, whole.t_max) == (single.t_min, single.t_max)
        t = single.sample_time(noise_for(4))
        assert torch.equal(whole.sample_time(noise_for(4)), t)
        lone, part = single.corrupt(x_0, t, noise_for(4), mask), whole.corrupt({"x": x_0}, t, noise_for(4), mask)
        assert torch.equal(part.x_t["x"], lone.x_t)
        said, other = say(single, x_0, 1), say(single, x_0, 2)
        assert torch.equal(whole.loss({"x": said}, part), single.loss(said, lone))
        assert torch.equal(whole.nats({"x": said}, part), single.nats(said, lone))
        assert torch.equal(whole.prior_nats({"x": x_0}, {"x": mask}), single.prior_nats(x_0, mask))
        assert torch.equal(whole.reconstruction_nats({"x": said}, part), single.reconstruction_nats(said, lone))
        both = [
            process.hybrid_nats(u, c, torch.full((4,), 0.3), at)
            for process, u, c, at in ((single, said, other, lone), (whole, {"x": said}, {"x": other}, part))
        ]
        assert torch.equal(both[0].denoising, both[1].denoising)
        stepped = whole.step({"x": said}, part.x_t, t, t / 2, noise_for(4), mask)["x"]
        assert torch.equal(stepped, single.step(said, lone.x_t, t, t / 2, noise_for(4), mask))
        assert torch.equal(whole.prior({"x": x_0}, noise_for(4))["x"], single.prior(x_0, noise_for(4)))


@pytest.mark.parametrize("process", PRODUCTS, ids=["joint", "power", "windows"])
def test_costs_are_the_sum_of_the_fields_paced_by_their_clocks(process: Product) -> None:
    x_0, mask = data_for(process, dtype=DOUBLE)
    t = torch.tensor([0.9, 0.5, 0.55, 0.2], dtype=DOUBLE)
    corrupted = process.corrupt(x_0, t, noise_for(4), mask)
    said = say(process, corrupted.x_t, 1)
    nats, loss = torch.zeros(4, dtype=DOUBLE), torch.zeros(4, dtype=DOUBLE)
    for name, single in process.fields.items():
        part, clock = corrupted.parts[name], process.clock(name)
        torch.testing.assert_close(part.t, clock(t).clamp(single.t_min, single.t_max))
        runs = (clock(t) > single.t_min) & (clock(t) < single.t_max)
        rate = torch.where(runs, clock.rate(t), 0.0)
        nats += rate * single.nats(said[name], part)
        loss += process.weights.get(name, 1.0) * rate * single.loss(said[name], part)
    torch.testing.assert_close(process.nats(said, corrupted), nats)
    torch.testing.assert_close(process.loss(said, corrupted), loss)


def fields(**clocks: Clock) -> tuple[Product, dict[str, Tensor]]:
    x_0 = {"x": torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), "z": torch.arange(24).reshape(6, 4) % 3}
    return Product({"x": Interpolant(), "z": Masked(3, 3)}, clocks), x_0


def test_where_a_window_stands_still_a_field_is_clean_or_noise_and_costs_nothing() -> None:
    process, x_0 = fields(**FIRST)
    t = torch.tensor([1e-4, 0.25, 0.5, 0.5001, 0.75, 1.0])
    corrupted = process.corrupt(x_0, t, noise_for(6))
    x_t, z_t = corrupted.x_t["x"], corrupted.x_t["z"]
    assert torch.equal(z_t[:3], x_0["z"][:3])
    assert not corrupted.parts["z"].scored[:3].any()  # type: ignore[index]
    assert bool((z_t[5] == 3).all())
    at = process.fields["x"].coefficients(torch.tensor(1 - 1e-3))  # type: ignore[attr-defined]
    noise = (x_t[2:] - at.signal * x_0["x"][2:]) / at.noise
    assert float(noise.abs().max()) < 5
    said = say(process, corrupted.x_t, 1)
    for name, idle in (("x", [0, 2, 3, 4, 5]), ("z", [0, 1, 2, 3, 5])):
        other = {**said, name: -said[name]}
        for cost in (process.nats, process.loss):
            assert torch.equal(cost(said, corrupted)[idle], cost(other, corrupted)[idle])
    assert bool((process.nats(said, corrupted)[[1, 4]] > 0).all())
    edges = process.nats(said, corrupted)[[0, 2, 5]]
    assert not edges.any()


def test_a_clean_field_is_exactly_the_data_whatever_its_process_calls_small() -> None:
    process = Product(
        {"z": Masked(3, 3, t_min=0.5), "y": UniformDiscrete(3, t_min=0.5)}, dict.fromkeys("zy", FIRST["z"])
    )
    x_0 = {name: torch.arange(60).reshape(6, 10) % 3 for name in "zy"}
    t = torch.tensor([0.1, 0.4, 0.5, 0.51, 0.6, 0.7])
    corrupted = process.corrupt(x_0, t, noise_for(6))
    for name in "zy":
        assert torch.equal(corrupted.x_t[name][:3], x_0[name][:3])
        assert bool((corrupted.x_t[name] != x_0[name])[3:].any(1).all())  # held at t_min
    assert torch.equal(corrupted.parts["z"].scored, corrupted.x_t["z"] == 3)
    assert not process.nats(say(process, x_0, 1), corrupted).any()


@pytest.mark.parametrize("name", ["x", "z"])
def test_a_step_leaves_a_field_whose_clock_stands_still(name: str) -> None:
    process, x_0 = fields(**FIRST)
    t = torch.tensor([0.4, 0.45, 0.5, 0.6, 0.8, 1.0])
    corrupted = process.corrupt(x_0, t, noise_for(6))
    x_s = process.step(say(process, x_0, 1), corrupted.x_t, t, t - 0.1, noise_for(6, 9))
    changed = (x_s[name] != corrupted.x_t[name]).any(1)
    still = torch.tensor([False, False, False, True, True, True]) ^ (name == "z")
    assert not changed[still].any()
    if name == "x":
        assert bool(changed[~still].all())
    else:
        done = torch.isclose(t - 0.1, torch.tensor(0.5))
        assert bool((x_s["z"][done] != 3).all())


@pytest.mark.parametrize(
    "clocks", [{}, FIRST, {"z": Power(2.0)}, {"x": Window(0, 0.5), "z": Window(0.5, 1, 0.01)}], ids=str
)
def test_a_chain_of_steps_from_noise_ends_in_what_is_predicted(clocks: dict[str, Any]) -> None:
    process, x_0 = fields(**clocks)
    noise = noise_for(6)
    x = process.prior(x_0, noise)
    times = torch.linspace(process.t_max, 0, 9).tolist()
    for t, s in pairwise(times):
        now, at = torch.full((6,), t), process.field_time("x", torch.full((6,), t)).time
        clean = process.fields["x"].coefficients(at[:, None])  # type: ignore[attr-defined]
        said = {"x": (x["x"] - x_0["x"]) / clean.noise, "z": 50.0 * torch.nn.functional.one_hot(x_0["z"], 3).float()}
        x = process.step(said, x, now, torch.full((6,), s), noise)
        map_state(lambda value: bool(value.isfinite().all()) or pytest.fail("not finite"), x)
    torch.testing.assert_close(x["x"], x_0["x"], atol=1e-3, rtol=0)
    assert torch.equal(x["z"], x_0["z"])


def by_clean(process: Product, table: Tensor, t: float, what: str) -> Tensor:
    """A cost of two tokens for each x_0, [2, 2], averaged over x_t, of the exact marginals of p(x_0 | x_t).

    "gap" is what the cost of the last step gains by taking the two tokens as independent.
    """
    laws, times = [], []
    for name, single in process.fields.items():
        at = process.field_time(name, torch.tensor([t], dtype=DOUBLE))
        s, width = float(at.time), 2 + isinstance(single, Masked)
        noise = torch.full((2, width), s / 2) if width == 2 else s * torch.eye(3)[2].expand(2, -1)
        laws.append(torch.eye(2, width, dtype=DOUBLE) * (1.0 if bool(at.clean) else 1 - s) + (not at.clean) * noise)
        times.append(at.time)
    chance = torch.einsum("ai,bj->abij", *laws)
    joint = table[..., None, None] * chance
    joint = (joint / joint.sum((0, 1)).clamp(min=1e-300)).permute(2, 3, 0, 1)  # x_t, x_0
    clean, other, here, there = torch.cartesian_prod(*map(torch.arange, chance.shape)).T
    said = joint[here, there]
    sides = {"x": said.sum(2).log()[:, None], "z": said.sum(1).log()[:, None]}
    if what == "gap":
        rows = torch.arange(len(clean))
        split = sides["x"][rows, 0, clean] + sides["z"][rows, 0, other]
        cost = said[rows, clean, other].log() - split
    else:
        parts = {}
        for name, token, x_t, time in zip(("x", "z"), (clean, other), (here, there), times, strict=True):
            hidden = x_t[:, None] == 2 if isinstance(process.fields[name], Masked) else None
            at_time = time.expand(len(token))
            parts[name] = Corrupted(token[:, None], x_t[:, None], at_time, token[:, None], scored=hidden)
        state = [{name: getattr(part, side) for name, part in parts.items()} for side in ("x_0", "x_t")]
        corrupted = Corrupted(*state, torch.full((len(clean),), t, dtype=DOUBLE), state[0], parts=parts)
        cost = getattr(process, what)(sides, corrupted)
    weight = chance.flatten()
    return torch.where(weight > 0, weight * cost, 0.0).view(2, 2, -1).sum(-1)


ORDERS: dict[str, dict[str, Clock]] = {
    "joint": {},
    "power": {"z": Power(1.5)},
    "overlap": {"x": Window(0.0, 0.7), "z": Window(0.3, 1.0, 1e-3)},
    "z first": {"x": Window(0.0, 0.5), "z": Window(0.5, 1.0, 1e-3)},
    "x first": {"z": Window(0.0, 0.5), "x": Window(0.5, 1.0, 1e-3)},
}


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_bound_of_exact_predictions_is_the_likelihood_whatever_the_clocks(order: str) -> None:
    """-log q(x, z) of two dependent tokens, but for the last step, which takes them as independent given x_t."""
    table = torch.tensor([[0.5, 0.1], [0.15, 0.25]], dtype=DOUBLE)
    process = Product({"x": UniformDiscrete(2), "z": Masked(2, 2)}, ORDERS[order])
    token = torch.zeros(1, 1, dtype=torch.long)
    assert float(process.prior_nats({"x": token, "z": token})) == pytest.approx(0.0)
    kinks = {
        process.clock(name).when(s) for name in ("x", "z") for s in (1e-3, 4e-3, 0.02, 0.1, 0.4, 1.0)
    }  # and steep places
    found = by_clean(process, table, process.t_min, "reconstruction_nats")
    gap = by_clean(process, table, process.t_min, "gap")
    for low, high in pairwise(sorted(t for t in kinks if process.t_min <= t <= process.t_max)):
        for t, width in zip(*gauss(low, high, 8), strict=True):
            found += width * by_clean(process, table, float(t), "nats")
    assert float(gap.abs().max()) < 1e-4
    torch.testing.assert_close(found, gap - table.log(), rtol=0, atol=1e-6)


def test_a_field_that_is_clean_at_t_min_has_no_reconstruction() -> None:
    process, x_0 = fields(**FIRST)
    corrupted = process.corrupt(x_0, torch.full((6,), process.t_min), noise_for(6))
    with pytest.raises(InputError, match=r"field z is clean .* floor"):
        process.reconstruction_nats(say(process, x_0, 1), corrupted)
    held, _ = fields(x=FIRST["x"], z=Window(0.5, 1.0, 1e-3))
    corrupted = held.corrupt(x_0, torch.full((6,), held.t_min), noise_for(6))
    assert bool(held.reconstruction_nats(say(held, x_0, 1), corrupted).isfinite().all())


def test_a_field_without_a_bound_trains_but_is_not_counted() -> None:
    class Trained:
        """A process with nothing of the bound."""

        t_min, t_max = 0.0, 1.0
        inner = Interpolant()
        sample_time, corrupt, loss = inner.sample_time, inner.corrupt, inner.loss
        prior, step = inner.prior, inner.step

    process = Product({"x": Trained()})  # type: ignore[dict-item]
    corrupted = process.corrupt({"x": torch.zeros(2, 3)}, torch.full((2,), 0.5), NoiseSource(0, range(2)))
    assert bool((process.loss({"x": torch.zeros(2, 3)}, corrupted) > 0).all())
    with pytest.raises(InputError, match="field x has no bound"):
        process.nats({"x": torch.zeros(2, 3)}, corrupted)


def test_one_mask_serves_every_field_and_one_field_may_go_without() -> None:
    process, x_0 = fields()
    mask = torch.arange(4)[None] < torch.tensor([4, 1, 2, 3, 4, 2])[:, None]
    t = torch.full((6,), 0.5)
    one = process.corrupt(x_0, t, noise_for(6), mask)
    each = process.corrupt(x_0, t, noise_for(6), {"x": mask, "z": mask})
    some = process.corrupt(x_0, t, noise_for(6), {"x": mask, "z": None})
    assert torch.equal(one.x_t["x"], each.x_t["x"])
    assert torch.equal(one.x_t["z"], each.x_t["z"])
    assert torch.equal(some.parts["z"].x_t, process.corrupt(x_0, t, noise_for(6)).x_t["z"])
    with pytest.raises(InputError, match="expected the fields x, z"):
        process.corrupt(x_0, t, noise_for(6), {"x": mask})
