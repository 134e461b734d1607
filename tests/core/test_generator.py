"""The flow of a latent: its surrogate, its bound and its draws, against exact velocities and after a short training."""

import math

import pytest
import torch
from reed_core.errors import InputError
from reed_core.generator import Flow, FlowDraw, LatentFlow
from reed_core.noise import NoiseSource
from torch import Tensor

MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)


def perturbed(flow: LatentFlow, dtype: torch.dtype = torch.float32) -> LatentFlow:
    """Away from the zeros it starts with."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return flow.to(dtype)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("given_dim", [0, 5])
@pytest.mark.parametrize("lead", [(3,), (3, 4), (3, 2, 2)], ids=str)
def test_the_energy_is_that_of_a_slow_loop(given_dim: int, lead: tuple[int, ...]) -> None:
    flow = perturbed(LatentFlow(2, given_dim, hidden=8, layers=2))
    z, given = drawn(*lead, 2), drawn(*lead, given_dim) if given_dim else None
    flow.fit_scale(z)
    draw = flow.draw(z, NoiseSource(0, range(3)))
    energy = flow.energy(given, z, draw)
    assert energy.shape == lead
    rows = z.reshape(-1, 2)
    for index in range(len(rows)):
        u, s, eps = (rows[index] - flow.mean) / flow.std, draw.s.flatten()[index], draw.eps.reshape(-1, 2)[index]
        told = None if given is None else given.reshape(-1, given_dim)[index : index + 1]
        velocity = flow(((1 - s) * u + s * eps)[None], s[None], told)[0]
        torch.testing.assert_close(energy.flatten()[index], (velocity - (eps - u)).square().mean())


def test_gradients_are_finite_differences() -> None:
    flow = perturbed(LatentFlow(2, 3, hidden=4, layers=2), torch.float64)
    z, given = drawn(2, 3, 2).double(), drawn(2, 3, 3).double().requires_grad_()
    draw = flow.draw(z, NoiseSource(0, range(2)))
    weights = [flow.enter.weight, flow.blocks[0].modulate.weight, flow.leave.bias]
    assert torch.autograd.gradcheck(lambda given, *_: flow.energy(given, z, draw), (given, *weights))


def test_draws_belong_to_samples_and_longer_ones_extend_shorter_ones() -> None:
    flow = LatentFlow(2, hidden=8, layers=1)
    whole = flow.draw(drawn(3, 6, 2), NoiseSource(0, [4, 9, 2]))
    part = flow.draw(drawn(1, 4, 2), NoiseSource(0, [9]))
    assert torch.equal(part.s[0], whole.s[1, :4])
    assert torch.equal(part.eps[0], whole.eps[1, :4])
    assert bool((whole.s >= flow.process.t_min).all() and (whole.s <= flow.process.t_max).all())
    flow = perturbed(flow)
    z = flow.sample(None, NoiseSource(0, [4, 9, 2]), (6,), steps=3)
    torch.testing.assert_close(flow.sample(None, NoiseSource(0, [9]), (4,), steps=3)[0], z[1, :4])
    assert flow.sample(None, NoiseSource(0, [9])).shape == (1, 2)


class Exact(LatentFlow):
    """The true velocity for a Gaussian with the moments above: E[eps - u | u_s], in units of the deviations."""

    def __init__(self) -> None:
        super().__init__(2, hidden=2, layers=1)
        self.double()
        self.mean.copy_(MEAN)
        self.std.copy_(COVARIANCE.diag().sqrt())

    def forward(self, u_s: Tensor, s: Tensor, given: Tensor | None = None) -> Tensor:
        own = COVARIANCE / torch.outer(self.std, self.std)
        s = s[:, None, None].double()
        spread = (1 - s) ** 2 * own + s**2 * torch.eye(2)
        off = torch.linalg.solve(spread, u_s.double()[..., None])
        return (s * off - (1 - s) * (own @ off))[..., 0].to(u_s)


def test_the_exact_velocity_gives_the_likelihood_of_each_z() -> None:
    """The bound is tight for the true reverse process, up to its ends in time; and `nats` is unbiased."""
    points = torch.tensor([[1.0, -2.0], [3.0, -1.0], [0.0, -3.0]], dtype=torch.float64)
    count = 20_000
    nats = Exact().nats(None, points[:, None].expand(-1, count, -1), NoiseSource(0, range(3)))
    exact = -torch.distributions.MultivariateNormal(MEAN, COVARIANCE).log_prob(points)
    error = nats.std(1) / count**0.5
    assert bool(((nats.mean(1) - exact).abs() < 4 * error + 0.01).all())
    assert float(error.max()) < 0.1


def test_a_normal_z_is_counted_without_noise() -> None:
    """The control variate is the model itself: every draw of the bound is -log N(z), in many dimensions too."""

    class Normal(LatentFlow):
        def forward(self, u_s: Tensor, s: Tensor, given: Tensor | None = None) -> Tensor:
            return ((2 * s - 1) / ((1 - s).square() + s.square()))[:, None] * u_s

    z = drawn(2, 4, 300)
    exact = 0.5 * z.square().sum(-1) + 150 * math.log(2 * math.pi)
    flow = Normal(300, hidden=2, layers=1)
    torch.testing.assert_close(flow.nats(None, z, NoiseSource(0, range(2))), exact, atol=0.01, rtol=0)


def test_the_exact_velocity_gives_the_moments() -> None:
    flow = Exact()
    z = flow.sample(None, NoiseSource(0, [0]), (4000,), steps=64)[0]
    torch.testing.assert_close(z.mean(0), MEAN, atol=0.1, rtol=0)
    torch.testing.assert_close(z.T.cov(), COVARIANCE, atol=0.15, rtol=0)
    centre = flow.predict(None, (2, 3), steps=64)
    assert centre.shape == (2, 3, 2)
    torch.testing.assert_close(centre, MEAN.expand(2, 3, 2), atol=0.01, rtol=0)


def test_the_scale_is_that_of_what_is_known() -> None:
    z = 3 * drawn(50, 4, 3) + 7
    z[..., 2] = 5.0
    mask = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    spoiled = torch.where(mask[..., None], z, torch.nan)
    flow = LatentFlow(3, hidden=4, layers=1)
    flow.fit_scale(spoiled, mask)
    torch.testing.assert_close(flow.mean, z[mask].mean(0))
    torch.testing.assert_close(flow.std, torch.tensor([*z[mask].std(0, correction=0)[:2].tolist(), 1.0]))


def test_scaled_data_cost_the_logarithm_of_the_scale() -> None:
    """A change of units by a factor 10 costs log 10 a feature: the density is in the units of z."""
    z, flow = drawn(2, 5, 3), perturbed(LatentFlow(3, hidden=8, layers=1))
    flow.fit_scale(z)
    nats = flow.nats(None, z, NoiseSource(0, range(2)))
    flow.fit_scale(10 * z)
    scaled = flow.nats(None, 10 * z, NoiseSource(0, range(2)))
    torch.testing.assert_close(scaled, nats + 3 * math.log(10), rtol=1e-4, atol=1e-3)
    draw = flow.draw(z, NoiseSource(0, range(2)))
    assert bool(flow.energy(None, 10 * z, draw).isfinite().all())
    assert {"mean", "std"} <= set(flow.state_dict())


def trained(flow: LatentFlow, given: Tensor | None, z: Tensor, steps: int) -> LatentFlow:
    flow.fit_scale(z)
    optimiser = torch.optim.Adam(flow.parameters(), 3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(len(z), (256,), generator=generator)
        draw = FlowDraw(torch.rand(256, generator=generator), torch.randn(256, z.shape[1], generator=generator))
        optimiser.zero_grad()
        flow.energy(None if given is None else given[batch], z[batch], draw).mean().backward()
        optimiser.step()
        decay.step()
    return flow


def test_training_finds_two_modes_and_the_one_that_is_named() -> None:
    """z = +-2 + 0.3 noise; the features hold the sign, or 0 where it is not told."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    sign = torch.randint(2, (4096, 1), generator=generator) * 2.0 - 1.0
    z = 2 * sign + 0.3 * torch.randn(4096, 1, generator=generator)
    given = sign * (torch.rand(4096, 1, generator=generator) < 0.5)
    flow = trained(LatentFlow(1, 1, hidden=48, layers=2), given, z, 400)
    for told, modes in ((0.0, [-2.0, 2.0]), (1.0, [2.0]), (-1.0, [-2.0])):
        z = flow.sample(torch.full((1, 1000, 1), told), NoiseSource(0, [0]), (1000,), steps=24)[0, :, 0]
        nearest = torch.tensor(modes)[(z[:, None] - torch.tensor(modes)).abs().argmin(-1)]
        for mode in modes:
            own = z[nearest == mode]
            assert len(own) / 1000 == pytest.approx(1 / len(modes), abs=0.1)
            assert float(own.mean()) == pytest.approx(mode, abs=0.15)
            assert float(own.std()) == pytest.approx(0.3, abs=0.12)


def test_training_finds_a_gaussian() -> None:
    """Mean, covariance, and a bound on its entropy that is nearly tight."""
    torch.manual_seed(0)
    truth = torch.distributions.MultivariateNormal(MEAN.float(), COVARIANCE.float())
    z = truth.sample((4096,))
    flow = trained(LatentFlow(2, 0, hidden=48, layers=2), None, z, 300)
    out = flow.sample(None, NoiseSource(0, [0]), (2000,), steps=16)[0]
    torch.testing.assert_close(out.mean(0), z.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(out.T.cov(), z.T.cov(), atol=0.25, rtol=0)
    nats = flow.nats(None, z[None], NoiseSource(0, [0]))[0]
    error = float(nats.std()) / len(z) ** 0.5
    assert float(truth.entropy()) - 3 * error < float(nats.mean()) < float(truth.entropy()) + 0.15 + 3 * error


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"layers": 0}, {"steps": 0}], ids=str)
def test_a_flow_without_width_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1 and is solved by euler or heun"):
        Flow(**wrong)
