import math
import pickle
from collections.abc import Callable

import pytest
import torch
from reed_core.errors import InputError
from reed_core.reveal import Beta, Cosine, Cutoff, PointMass, RevealDensity, Table, Uniform, survival_on_grid
from torch import Tensor

DENSITIES = [
    Uniform(),
    PointMass(),
    PointMass(0.0),
    PointMass(0.3),
    PointMass(0.5),
    Beta(1.0, 2.0),
    Beta(3.0, 1.5),
    Beta(0.5, 0.7),
    Beta(40.0, 60.0),
    Cutoff(0.2, 0.7),
    Cutoff(0.0, 0.4),
    Cosine(),
    Table((1.0, 0.0, 3.0, 0.0)),
    Table((0.0, 2.0, 0.5)),
]
SPREAD = [density for density in DENSITIES if not density.is_atomic]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("density", DENSITIES, ids=repr)
class TestEveryDensity:
    def test_survival_starts_at_one_and_never_rises(self, density: RevealDensity) -> None:
        t = torch.linspace(0, 1, 1001, dtype=torch.float64)
        A = density.survival(t)
        assert A[0] == 1.0
        assert (A.diff() <= 1e-15).all()
        assert ((A >= 0) & (A <= 1)).all()
        outside = torch.tensor([-0.1, 1.1])
        assert density.survival(outside).tolist() == [1.0, 0.0]

    def test_draws_have_the_distribution(self, density: RevealDensity) -> None:
        """Kolmogorov-Smirnov: the largest gap between the share of draws not yet passed and A, over all times."""
        count = 4000
        tau = density.sample((count,), generator()).sort().values
        reached = 1.0 - torch.arange(count) / count  # the share of draws >= each draw, ties aside
        first = torch.searchsorted(tau, tau)
        gap = (density.survival(tau) - reached[first]).abs().max()
        assert gap < 1.95 / math.sqrt(count)  # passed with probability 0.999

    def test_draws_are_times_and_repeat(self, density: RevealDensity) -> None:
        tau = density.sample((3, 5), generator())
        assert tau.shape == (3, 5)
        assert ((tau >= 0) & (tau <= 1)).all()
        assert torch.equal(tau, density.sample((3, 5), generator()))

    def test_a_draw_has_survived_until_itself(self, density: RevealDensity) -> None:
        u = torch.rand(200, generator=generator(), dtype=torch.float64)
        A = density.survival(density.quantile(u))
        assert torch.allclose(A, torch.ones_like(u) if density.is_atomic else 1 - u, atol=1e-12)

    def test_quantiles_end_at_the_support_and_never_fall(self, density: RevealDensity) -> None:
        tau = density.quantile(torch.linspace(0, 1, 501, dtype=torch.float64))
        assert (tau.diff() >= -1e-15).all()
        assert 1.0 - float(density.survival(tau[:1] - 1e-9)) < 1e-9
        assert float(density.survival(tau[-1:] + 1e-9)) < 1e-9

    @pytest.mark.parametrize("steps", [1, 2, 7, 10, 100])
    def test_grid_holds_the_mass_of_each_interval(self, density: RevealDensity, steps: int) -> None:
        alpha = density.on_grid(steps)
        assert alpha.shape == (steps,)
        assert alpha.sum().item() == pytest.approx(1.0, abs=1e-12)
        count = 20000
        tau = density.sample((count,), generator()).double()
        step = torch.ceil(tau * steps - 1e-5).clamp(min=1).long() - 1
        share = torch.bincount(step, minlength=steps) / count
        assert torch.allclose(share.double(), alpha, atol=5 * 0.5 / math.sqrt(count))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_shape_and_dtype_are_those_of_time(self, density: RevealDensity, dtype: torch.dtype) -> None:
        t = torch.rand(2, 1, 3, dtype=dtype)
        for result in (density.survival(t), density.quantile(t)):
            assert result.shape == t.shape
            assert result.dtype == dtype

    def test_is_a_value(self, density: RevealDensity) -> None:
        copy = pickle.loads(pickle.dumps(density))
        assert copy == density
        assert hash(copy) == hash(density)

    def test_needs_a_step(self, density: RevealDensity) -> None:
        with pytest.raises(InputError, match="at least one step"):
            density.on_grid(0)


@pytest.mark.parametrize("density", SPREAD, ids=repr)
def test_survival_is_the_integral_of_the_density(density: RevealDensity) -> None:
    """Midpoints of bins that hold every jump; the density of a Beta below 1 is kept within 1e-3 of its ends."""
    edges = torch.linspace(0, 1, 60001, dtype=torch.float64)
    alpha = density.density(0.5 * (edges[1:] + edges[:-1]))
    tail = torch.cat([alpha.flip(0).cumsum(0).flip(0), alpha.new_zeros(1)]) / 60000
    inside = (edges == 0) | ((edges > 1.5e-3) & (edges < 1 - 1.5e-3))
    assert torch.allclose(tail[inside], density.survival(edges)[inside], atol=2e-6)
    assert (density.density(torch.tensor([-0.1, 1.1])) == 0).all()
    assert torch.isfinite(density.density(torch.tensor([0.0, 1.0]))).all()


@pytest.mark.parametrize("density", SPREAD, ids=repr)
def test_grid_survival_is_survival_at_the_start_of_each_step(density: RevealDensity) -> None:
    steps = 12
    A = survival_on_grid(density.on_grid(steps))
    assert torch.allclose(A, density.survival(torch.arange(steps, dtype=torch.float64) / steps), atol=1e-14)


@pytest.mark.parametrize(("at", "steps", "last"), [(1.0, 5, 5), (0.0, 5, 1), (0.3, 10, 3), (0.31, 10, 4), (0.7, 10, 7)])
def test_point_mass_is_revealed_up_to_its_step(at: float, steps: int, last: int) -> None:
    assert survival_on_grid(PointMass(at).on_grid(steps)).tolist() == [1.0] * last + [0.0] * (steps - last)


def test_point_mass_has_no_density() -> None:
    with pytest.raises(InputError, match="sample"):
        PointMass(0.4).density(torch.rand(3))


@pytest.mark.parametrize("at", [-0.1, 1.5, math.nan])
def test_point_mass_lies_in_time(at: float) -> None:
    with pytest.raises(InputError, match="reveal time"):
        PointMass(at)


def test_grid_survival_sums_from_each_step_on() -> None:
    alpha = torch.rand(9, generator=generator(), dtype=torch.float64)
    alpha = alpha / alpha.sum()
    A = survival_on_grid(alpha)
    assert A[0] == 1.0
    assert torch.allclose(A, torch.stack([alpha[t:].sum() for t in range(9)]))
    assert torch.allclose(A[:-1] - A[1:], alpha[:-1])


@pytest.mark.parametrize("alpha", [[0.5, 0.6], [1.5, -0.5], [0.2, 0.2], [math.nan, 1.0], []])
def test_grid_survival_refuses_what_is_no_density(alpha: list[float]) -> None:
    with pytest.raises(InputError, match="sums to 1"):
        survival_on_grid(torch.tensor(alpha, dtype=torch.float64))


@pytest.mark.parametrize(
    ("weight", "A", "density"),
    [
        (lambda t: torch.ones_like(t), lambda t: 1 - t, Uniform()),
        (lambda t: 1 - t, lambda t: (1 - t) ** 2, Beta(1.0, 2.0)),
        (lambda t: t, lambda t: 1 - t**2, Beta(2.0, 1.0)),
        (lambda t: (1 + torch.cos(math.pi * t)) / 2, lambda t: 1 - t - torch.sin(math.pi * t) / math.pi, Cosine()),
    ],
    ids=["constant", "1 - t", "t", "cosine"],
)
def test_a_time_weight_is_a_density(
    weight: Callable[[Tensor], Tensor], A: Callable[[Tensor], Tensor], density: RevealDensity
) -> None:
    """THEORY D15: normalise the weight by the trapezoid rule, integrate it from t on."""
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)
    pieces = torch.cumulative_trapezoid(weight(t), t)
    tail = 1.0 - torch.cat([pieces.new_zeros(1), pieces]) / pieces[-1]
    assert torch.allclose(tail, A(t), atol=1e-8)
    assert torch.allclose(density.survival(t), A(t), atol=1e-12)
    assert torch.allclose(density.density(t), weight(t) / pieces[-1], atol=1e-8)


def test_a_time_sampling_density_multiplies() -> None:
    """Times with 1 - t ~ Beta(2, 1) and no weight have A = (1 - t)^2 (THEORY section 4)."""
    t = 1.0 - Beta(2.0, 1.0).sample((20000,), generator()).double()
    at = torch.linspace(0, 1, 21, dtype=torch.float64)
    share = (t[:, None] >= at).double().mean(0)
    assert torch.allclose(share, Beta(1.0, 2.0).survival(at), atol=0.015)


def test_beta_is_smooth_when_its_ends_are_bounded_and_is_mirrored() -> None:
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert torch.allclose(Beta(2.0, 5.0).density(t), 30 * t * (1 - t) ** 4, atol=1e-12)
    for p, q in ((2.0, 5.0), (0.5, 3.0)):
        here, there = Beta(p, q), Beta(q, p)
        assert torch.allclose(here.density(t), there.density(1 - t), rtol=1e-9)
        assert torch.allclose(here.survival(t), 1 - there.survival(1 - t))


def test_table_is_a_histogram() -> None:
    table = Table((1.0, 0.0, 3.0, 0.0))
    assert table == Table((2, 0, 6, 0))
    assert hash(table) == hash(Table([2, 0, 6, 0]))
    assert table.on_grid(4).tolist() == [0.25, 0.0, 0.75, 0.0]
    assert table.on_grid(2).tolist() == [0.25, 0.75]
    assert table.density(torch.tensor([0.1, 0.3, 0.6, 0.9])).tolist() == [1.0, 0.0, 3.0, 0.0]
    t = torch.rand(100, generator=generator(), dtype=torch.float64)
    assert torch.allclose(Table((4.0,)).survival(t), Uniform().survival(t))
    assert torch.allclose(Table((0.0, 1.0, 1.0, 0.0)).survival(t), Cutoff(0.25, 0.75).survival(t))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Beta(0.0, 1.0), "p > 0"),
        (lambda: Beta(1.0, math.inf), "finite"),
        (lambda: Beta(math.nan, 1.0), "finite"),
        (lambda: Cutoff(0.5, 0.5), "low < high"),
        (lambda: Cutoff(-0.1, 0.5), "0 <= low"),
        (lambda: Cutoff(0.1, 1.5), "high <= 1"),
        (lambda: Table(()), "not all zero"),
        (lambda: Table((0.0, 0.0)), "not all zero"),
        (lambda: Table((1.0, -1.0)), "non-negative"),
        (lambda: Table((1.0, math.inf)), "finite"),
    ],
)
def test_impossible_densities_are_refused(make: Callable[[], RevealDensity], match: str) -> None:
    with pytest.raises(InputError, match=match):
        make()
