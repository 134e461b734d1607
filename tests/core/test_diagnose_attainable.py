"""The attainable cosine against quadrature, a closed form and enumeration."""

import itertools
import math

import pytest
import torch
from reed_core.denoiser import Tap
from reed_core.diagnose import attainable_cosine, cosine_by_time, log_likelihood, posterior, probe
from reed_core.errors import InputError
from reed_core.head import Categorical
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant, Masked
from reed_core.process.discrete import UniformDiscrete
from reed_core.process.product import Product
from reed_core.train import Batch
from torch import Tensor, nn
from torch.nn import functional as F

TIMES = (0.15, 0.4, 0.7, 0.95)
SPIN = 2.0


def noise(count: int, seed: int = 0) -> NoiseSource:
    return NoiseSource(seed, range(count))


def spun(x: Tensor) -> Tensor:
    """z = exp(i w x): for Gaussian x_0, E[z | x_t] has the length exp(-w^2 var(x_0 | x_t) / 2)."""
    return torch.cat([(SPIN * x).cos(), (SPIN * x).sin()], -1)


def spun_ceiling(t: float) -> float:
    return math.exp(-0.5 * SPIN**2 * t**2 / ((1 - t) ** 2 + t**2))


@pytest.mark.parametrize("path", ["linear", "trig"])
def test_two_points_against_quadrature(path: str) -> None:
    process, half = Interpolant(path), 600
    x_0 = torch.cat([torch.ones(half, 1), -torch.ones(half, 1)])
    towards, away = torch.tensor([3.0, 0.0]), torch.tensor([-0.5, 1.0])  # lengths do not count
    z = torch.where(x_0 > 0, towards, away)
    found = attainable_cosine(process, x_0, Representation(z), TIMES, noise(2 * half), draws=3)
    u, w = F.normalize(towards.double(), dim=0), F.normalize(away.double(), dim=0)
    grid = torch.linspace(-9, 9, 40001, dtype=torch.float64)
    for place, t in enumerate(TIMES):
        at = process.coefficients(torch.tensor(t, dtype=torch.float64))
        right, left = (
            torch.exp(-0.5 * ((grid - side * at.signal) / at.noise) ** 2) / (at.noise * math.tau**0.5)
            for side in (1, -1)
        )
        joint = 0.5 * (right[:, None] * u + left[:, None] * w)  # p(x_t) E[u | x_t]
        exact = torch.trapezoid(joint.norm(dim=-1), grid).item()
        tolerance = 5 * found.upper_error[place].item() + 1e-3
        assert found.upper[place].item() == pytest.approx(exact, abs=tolerance)
        assert found.lower[place].item() == pytest.approx(exact, abs=5 * found.lower_error[place].item() + 5e-3)


def test_the_bounds_enclose_a_gaussian_of_which_a_sample_is_known() -> None:
    x_0 = torch.randn(1500, 1, generator=torch.Generator().manual_seed(3))
    found = attainable_cosine(Interpolant(), x_0, Representation(spun(x_0)), TIMES, noise(1500))
    for place, t in enumerate(TIMES):
        exact = spun_ceiling(t)
        assert found.lower[place] - 4 * found.lower_error[place] < exact
        assert found.upper[place] + 4 * found.upper_error[place] > exact
        assert abs(found.upper[place] - found.lower[place]) < 0.1
    few = attainable_cosine(Interpolant(), x_0[:40], Representation(spun(x_0[:40])), TIMES, noise(40), draws=5)
    assert (few.upper - few.lower).mean() > (found.upper - found.lower).mean()


def test_a_few_samples_memorise_and_only_one_bound_does() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0, z = torch.randn(64, 40, generator=generator), torch.randn(64, 5, generator=generator)
    found = attainable_cosine(Interpolant(), x_0, Representation(z), [0.05], noise(64))
    assert found.upper.item() > 0.999
    assert abs(found.lower.item()) < 5 * found.lower_error.item() + 0.05


def test_a_linear_probe_lies_below_the_ceiling() -> None:
    x_0 = torch.randn(1200, 1, generator=torch.Generator().manual_seed(4))
    for t in (0.2, 0.6):
        x_t = Interpolant().corrupt(x_0, torch.full((1200,), t), noise(1200)).x_t
        features = torch.cat([(SPIN * k * x_t).cos() for k in (0.5, 1, 1.5)] + [(SPIN * x_t).sin(), x_t], -1)
        read = probe(features, spun(x_0))
        assert spun_ceiling(t) - 0.15 < read.cosine < spun_ceiling(t) + 4 * read.error
        assert read.constant < read.cosine


def test_masked_tokens_by_enumeration() -> None:
    process, t = Masked(2, 2), 0.35
    generator = torch.Generator().manual_seed(1)
    kinds = torch.tensor(list(itertools.product([0, 1], repeat=3)))
    counts = torch.randint(1, 60, (8,), generator=generator)
    u = F.normalize(torch.randn(8, 4, generator=generator, dtype=torch.float64), dim=-1)
    share = counts.double() / counts.sum()
    exact = 0.0
    for hidden in itertools.product([False, True], repeat=3):
        chance = math.prod(t if h else 1 - t for h in hidden)
        seen = [i for i in range(3) if not hidden[i]]
        for visible in itertools.product([0, 1], repeat=len(seen)):
            fits = torch.tensor([all(kind[i] == v for i, v in zip(seen, visible, strict=True)) for kind in kinds])
            exact += chance * (share[fits, None] * u[fits]).sum(0).norm().item()
    x_0, z = kinds.repeat_interleave(counts, 0), u.repeat_interleave(counts, 0)
    found = attainable_cosine(process, x_0, Representation(z), [t], noise(len(x_0)), draws=20)
    assert found.upper.item() == pytest.approx(exact, abs=5 * found.upper_error.item() + 1e-3)


def slow_likelihood(process: UniformDiscrete, x_t: Tensor, x_0: Tensor, t: float) -> float:
    product = 1.0
    for now, clean in zip(x_t.tolist(), x_0.tolist(), strict=True):
        product *= (1 - t) * (now == clean) + t / process.num_tokens
    return product


def test_the_posterior_of_uniform_diffusion_and_of_a_product() -> None:
    process, t = UniformDiscrete(3), 0.4
    x_0 = torch.tensor(list(itertools.product(range(3), repeat=2)))
    x_t = x_0[[1, 5]]
    slow = torch.tensor([[slow_likelihood(process, now, clean, t) for clean in x_0] for now in x_t])
    everyone = torch.ones(2, 9, dtype=torch.bool)
    weights = posterior(log_likelihood(process, x_t, x_0, t), everyone)
    torch.testing.assert_close(weights.float(), slow / slow.sum(1, keepdim=True))
    place = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    both = Product({"a": process, "b": Interpolant()})
    together = log_likelihood(both, {"a": x_t, "b": place[:2]}, {"a": x_0, "b": place}, t)
    apart = log_likelihood(process, x_t, x_0, t) + log_likelihood(Interpolant(), place[:2], place, t)
    torch.testing.assert_close(together, apart)


def test_padding_and_other_groups_do_not_count() -> None:
    generator = torch.Generator().manual_seed(2)
    x_0, z = torch.randn(30, 4, 2, generator=generator), torch.randn(30, 4, 3, generator=generator)
    mask = torch.ones(30, 4, dtype=torch.bool)
    mask[10:, 3] = False
    x_0[10:, 3] = torch.nan  # whatever padding holds
    z[10:, 3] = torch.nan
    found = attainable_cosine(Interpolant(), x_0, Representation(z), [0.6], noise(30), mask=mask)
    alone = [
        attainable_cosine(Interpolant(), x_0[part, :n], Representation(z[part, :n]), [0.6], NoiseSource(0, positions))
        for part, n, positions in ((slice(0, 10), 4, range(10)), (slice(10, 30), 3, range(10, 30)))
    ]
    for bound in ("upper", "lower"):
        whole = (10 * getattr(alone[0], bound) + 20 * getattr(alone[1], bound)) / 30
        torch.testing.assert_close(getattr(found, bound), whole, atol=1e-6, rtol=1e-5)
    group = torch.arange(30) // 15
    of_class = attainable_cosine(Interpolant(), x_0[:, :3], Representation(z[:, :3]), [0.9], noise(30), group=group)
    of_all = attainable_cosine(Interpolant(), x_0[:, :3], Representation(z[:, :3]), [0.9], noise(30))
    assert of_class.upper > of_all.upper


class Through(nn.Module):
    """Its hidden state is what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Identity()
        self.drop = nn.Dropout(0.9)

    def forward(self, x_t: Tensor, t: Tensor, c: object = None) -> Tensor:
        return self.drop(self.block(x_t))


def test_a_models_own_cosine_by_time() -> None:
    generator = torch.Generator().manual_seed(5)
    x_0, z = torch.randn(6, 3, 2, generator=generator), torch.randn(6, 3, 4, generator=generator)
    mask = torch.tensor([[True, True, False], [True, True, True], [True, False, False]] * 2)
    net, objective = Through(), Objective(Interpolant(), [Latent("z", "block", 2, 4, layers=1)])
    batches = [Batch(x_0[part], mask=mask[part], z={"z": Representation(z[part])}) for part in (slice(2), slice(2, 6))]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = cosine_by_time(objective, net, "z", batches, TIMES, seed=9)
    assert torch.equal(before, torch.get_rng_state())
    assert net.training
    sources = [NoiseSource(9, [position]) for position in range(6)]
    net.eval()
    for place, t in enumerate(TIMES):
        cosines = []
        for item, source in enumerate(sources):
            length = int(mask[item].sum())
            corrupted = Interpolant().corrupt(x_0[item : item + 1], torch.tensor([t]), source, mask[item : item + 1])
            with Tap(net, ["block"]) as tap:
                net(corrupted.x_t, corrupted.t)
            told = objective.readouts["z"].projector(tap["block"])[0, :length]
            cosines.append(F.cosine_similarity(told, z[item, :length], dim=-1).mean())
        assert found.mean[place].item() == pytest.approx(torch.stack(cosines).mean().item(), abs=1e-5)


def test_inputs_that_cannot_be_asked_about() -> None:
    x_0, z = torch.zeros(4, 1), Representation(torch.ones(4, 2))
    with pytest.raises(InputError, match="noise streams"):
        attainable_cosine(Interpolant(), x_0, z, [0.5], noise(3))
    with pytest.raises(InputError, match="one-hot"):
        attainable_cosine(Interpolant(), x_0, Representation(torch.zeros(4, dtype=torch.long)), [0.5], noise(4))
    with pytest.raises(InputError, match="register"):
        log_likelihood(object(), x_0, x_0, 0.5)
    objective = Objective(Interpolant(), [Latent("k", "block", 1, 3, Categorical(), "global")])
    batch = Batch(x_0, z={"k": Representation(torch.zeros(4, dtype=torch.long))})
    with pytest.raises(InputError, match="one-hot"):
        cosine_by_time(objective, Through(), "k", [batch], [0.5])
    with pytest.raises(InputError, match="no representation"):
        cosine_by_time(objective, Through(), "k", [Batch(x_0)], [0.5])
