import math
import pickle

import pytest
import torch
from reed_core.errors import InputError
from reed_core.reveal import PointMass, RevealDensity, Uniform, survival_on_grid

DENSITIES = [Uniform(), PointMass(), PointMass(0.0), PointMass(0.3), PointMass(0.5)]
SPREAD = [density for density in DENSITIES if not density.is_atomic]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("density", DENSITIES, ids=repr)
class TestEveryDensity:
    def test_survival_starts_at_one_and_never_rises(self, density: RevealDensity) -> None:
        t = torch.linspace(0, 1, 1001, dtype=torch.float64)
        A = density.survival(t)
        assert A[0] == 1.0
        assert (A.diff() <= 0).all()
        assert (A >= 0).all()

    def test_survival_is_the_share_of_draws_not_yet_passed(self, density: RevealDensity) -> None:
        count = 4000
        tau = density.sample((count,), generator())
        t = torch.linspace(0, 1, 11)
        share = (tau[:, None] >= t).double().mean(0)
        assert torch.allclose(share, density.survival(t).double(), atol=5 * 0.5 / math.sqrt(count))

    def test_draws_are_times_and_repeat(self, density: RevealDensity) -> None:
        tau = density.sample((3, 5), generator())
        assert tau.shape == (3, 5)
        assert ((tau >= 0) & (tau <= 1)).all()
        assert torch.equal(tau, density.sample((3, 5), generator()))

    def test_a_draw_has_survived_until_itself(self, density: RevealDensity) -> None:
        tau = density.sample((200,), generator())
        u = torch.rand(200, generator=generator())
        assert torch.allclose(density.survival(tau), torch.ones_like(u) if density.is_atomic else 1 - u)

    @pytest.mark.parametrize("steps", [1, 2, 7, 10, 100])
    def test_grid_holds_the_mass_of_each_interval(self, density: RevealDensity, steps: int) -> None:
        alpha = density.on_grid(steps)
        assert alpha.shape == (steps,)
        assert alpha.sum().item() == pytest.approx(1.0, abs=1e-12)
        count = 20000
        tau = density.sample((count,), generator()).double()
        step = torch.ceil(tau * steps - 1e-4).clamp(min=1).long() - 1
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
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    pieces = torch.cumulative_trapezoid(density.density(t), t)
    tail = torch.cat([pieces[-1:], pieces[-1] - pieces])
    assert torch.allclose(tail, density.survival(t), atol=1e-9)
    outside = torch.tensor([-0.1, 1.1])
    assert (density.density(outside) == 0).all()
    assert density.survival(outside).tolist() == [1.0, 0.0]


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
