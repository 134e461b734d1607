"""Every draw belongs to a sample: to its seed, its position and the number of the draw, and to nothing else."""

import math
from collections.abc import Callable

import pytest
import torch
from reed_core.noise import NoiseSource, mix_seed
from torch import Tensor

KINDS = ["uniform", "normal", "gumbel"]
CDF: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda x: x,
    "normal": lambda x: torch.special.ndtr(x),
    "gumbel": lambda x: torch.exp(-torch.exp(-x)),
}
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


def distance_to(cdf: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The Kolmogorov-Smirnov distance, times the root of the sample size: above 1.95 once in a thousand."""
    x = x.flatten().double().sort().values
    ranks = torch.arange(len(x) + 1, dtype=torch.float64) / len(x)
    return float(torch.maximum(cdf(x) - ranks[:-1], ranks[1:] - cdf(x)).max()) * math.sqrt(len(x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_draws_the_same_alone_and_in_any_batch(kind: str) -> None:
    positions = [7, 0, 123456789012, 3]
    batch, alone = NoiseSource(5, positions), [NoiseSource(5, [position]) for position in positions]
    for shape in [(4,), (2, 3), ()]:
        drawn = getattr(batch, kind)(shape)
        assert drawn.shape == (4, *shape)
        assert torch.equal(drawn, torch.cat([getattr(source, kind)(shape) for source in alone]))
    assert torch.equal(batch.times(), torch.cat([source.times() for source in alone]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rest", [(), (3,), (2, 5)])
def test_a_longer_draw_extends_a_shorter_one(kind: str, rest: tuple[int, ...]) -> None:
    for short, long in [(1, 2), (5, 8), (15, 16), (16, 17), (31, 1000)]:
        padded = getattr(NoiseSource(1, range(3)), kind)((long, *rest))
        assert torch.equal(getattr(NoiseSource(1, range(3)), kind)((short, *rest)), padded[:, :short])


@pytest.mark.parametrize("kind", KINDS)
def test_an_earlier_draw_of_another_length_changes_nothing(kind: str) -> None:
    one, other = NoiseSource(2, range(3)), NoiseSource(2, range(3))
    one.uniform((4,))
    other.normal((9, 2))
    assert torch.equal(getattr(one, kind)((6,)), getattr(other, kind)((6,)))


def test_draws_positions_and_seeds_differ() -> None:
    values = []
    for seed in (-1, 0, 1, 2**40):
        noise = NoiseSource(seed, [0, 1, 2, 10**9])
        values += [noise.uniform((5,)) for _ in range(3)]
    flat = torch.cat(values).flatten()
    assert len(flat.unique()) == len(flat)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_their_distribution_within_a_sample_and_across_samples(kind: str) -> None:
    assert distance_to(CDF[kind], getattr(NoiseSource(0, [0]), kind)((20_000,))) < 1.95
    assert distance_to(CDF[kind], getattr(NoiseSource(0, range(5000)), kind)(())) < 1.95
    seeds = torch.cat([getattr(NoiseSource(seed, [0]), kind)(()) for seed in range(5000)])
    assert distance_to(CDF[kind], seeds) < 1.95


def test_uniform_draws_are_finer_than_float32() -> None:
    """53 random bits: a normal draw made of 24 would never lie beyond 5.3."""
    drawn = NoiseSource(0, [0]).uniform((1000,))
    assert drawn.dtype == torch.float64
    coarse = (drawn * 2**24).frac() == 0
    assert not coarse.any()


def test_normal_draws_have_the_moments_of_a_normal() -> None:
    x = NoiseSource(3, range(2000)).normal((20,)).double().flatten()
    root = math.sqrt(len(x))
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs(float((x**power).mean()) - moment) < 4 * math.sqrt(variance) / root
    assert x.abs().max() < 7.1


def test_neighbouring_streams_are_not_correlated() -> None:
    noise = NoiseSource(0, range(4001))
    first, second = noise.normal(()), noise.normal(())
    for a, b in [(first[1:], first[:-1]), (first, second), (first[1:], second[:-1])]:
        assert abs(float((a * b).mean())) < 4 / math.sqrt(len(a))


def test_times_are_uniform_over_seeds() -> None:
    for position in (0, 1, 10**9):
        times = torch.cat([NoiseSource(seed, [position]).times() for seed in range(2000)])
        assert distance_to(CDF["uniform"], times) < 1.95


@pytest.mark.parametrize("first", [0, 17, 10**9])
@pytest.mark.parametrize("count", [2, 8, 100, 1000])
def test_times_of_neighbours_spread_over_the_interval(first: int, count: int) -> None:
    """Three-gap theorem: among n consecutive multiples of the golden ratio, none is wider than phi^2 / n."""
    times = NoiseSource(4, range(first, first + count)).times()
    assert times.dtype == torch.float32
    assert 0 <= float(times.min()) <= float(times.max()) < 1
    steps = times.double().diff() % 1.0
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / GOLDEN_RATIO), atol=1e-6, rtol=0)
    edges = times.double().sort().values
    gaps = torch.cat([edges.diff(), (edges[0] + 1 - edges[-1])[None]])
    assert float(gaps.max()) <= GOLDEN_RATIO**2 / count + 1e-6


def test_times_stay_below_one_and_cost_no_draw() -> None:
    assert float(NoiseSource(0, range(100_000)).times().max()) < 1
    noise, same = NoiseSource(0, range(3)), NoiseSource(0, range(3))
    assert torch.equal(noise.times(), noise.times())
    assert torch.equal(noise.uniform(()), same.uniform(()))


def test_the_global_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    noise = NoiseSource(0, range(3))
    noise.times(), noise.uniform((2,)), noise.normal((2,)), noise.gumbel((2,))
    assert torch.equal(torch.get_rng_state(), before)


def test_mixed_seeds_are_distinct_and_depend_on_order() -> None:
    parts = [(a, b, c) for a in range(-5, 5) for b in range(30) for c in range(30)]
    seeds = {mix_seed(*part) for part in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed(1, 2) != mix_seed(2, 1)
    assert mix_seed(1) != mix_seed(1, 0)
