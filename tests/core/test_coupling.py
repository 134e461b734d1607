import math
from collections.abc import Sequence
from itertools import product

import pytest
import torch
from reed_core.bound.tuples import count_tuples, marginals, set_weights
from reed_core.coupling import Coupling, Independent, Nested, Sampled, check_ordered, revealed, subsets
from reed_core.errors import InputError
from reed_core.noise import NoiseSource, mix_seed
from reed_core.reveal import Beta, Cosine, Cutoff, PointMass, RevealDensity, Table, Uniform, survival_on_grid
from torch import Tensor

COUNT = 4000
KOLMOGOROV = 1.95 / math.sqrt(COUNT)  # passed by a right sampler with probability 0.999
COARSE_TO_FINE: list[list[RevealDensity]] = [
    [Uniform()],
    [Beta(2.0, 1.0), Uniform(), Cosine()],
    [Cutoff(0.5, 0.9), Cutoff(0.2, 0.6)],
    [PointMass(1.0), PointMass(0.3)],
    [PointMass(0.8), Table((1.0, 0.0, 2.0, 0.0)), PointMass(0.0)],
]
COUPLINGS: list[Coupling] = [Independent(), Nested()]


class Bulk(NoiseSource):
    """One generator for all samples: thousands of draws at once, where it does not matter whose they are."""

    def uniform(self, shape: Sequence[int]) -> Tensor:
        self._draws += 1
        stream = torch.Generator().manual_seed(mix_seed(self.seed, self._draws))
        return torch.rand(len(self), *shape, generator=stream, dtype=torch.float64)


def noise(seed: int = 0, count: int = COUNT) -> NoiseSource:
    return Bulk(seed, range(count))


def names(reveals: Sequence[RevealDensity]) -> str:
    return " ".join(type(reveal).__name__ for reveal in reveals)


def survivals(reveals: Sequence[RevealDensity], t: Tensor) -> Tensor:
    return torch.stack([reveal.survival(t) for reveal in reveals], -1)


def drawn_weights(times: Tensor, t: float) -> Tensor:
    """The share of each revealed set at t, by looking at every draw."""
    shown = revealed(times, torch.full((len(times),), t))
    code = (shown.long() << torch.arange(times.shape[1])).sum(-1)
    return torch.bincount(code, minlength=2 ** times.shape[1]).double() / len(times)


@pytest.mark.parametrize("reveals", COARSE_TO_FINE, ids=names)
@pytest.mark.parametrize("coupling", COUPLINGS, ids=["independent", "nested"])
class TestEveryCoupling:
    def test_each_time_has_its_own_distribution(self, coupling: Coupling, reveals: list[RevealDensity]) -> None:
        times = coupling.times(reveals, noise())
        assert times.shape == (COUNT, len(reveals))
        for column, reveal in zip(times.unbind(-1), reveals, strict=True):
            tau = column.sort().values
            reached = 1.0 - torch.searchsorted(tau, tau) / COUNT
            assert (reveal.survival(tau) - reached).abs().max() < KOLMOGOROV

    def test_shares_of_sets_are_the_weights(self, coupling: Coupling, reveals: list[RevealDensity]) -> None:
        times = coupling.times(reveals, noise())
        for t in (0.05, 0.3, 0.45, 0.62, 0.95):
            weights = coupling.subset_weights(survivals(reveals, torch.tensor(t, dtype=torch.float64)))
            assert weights.sum().item() == pytest.approx(1.0, abs=1e-12)
            assert (drawn_weights(times, t) - weights).abs().max() < 5 * 0.5 / math.sqrt(COUNT)

    def test_weights_give_back_each_survival(self, coupling: Coupling, reveals: list[RevealDensity]) -> None:
        t = torch.linspace(0, 1, 41, dtype=torch.float64).reshape(41, 1)
        A = survivals(reveals, t)
        weights = coupling.subset_weights(A)
        assert weights.shape == (41, 1, 2 ** len(reveals))
        assert (weights >= 0).all()
        assert torch.allclose(weights @ subsets(len(reveals)).double(), A, atol=1e-12)

    def test_table_is_that_of_draws(self, coupling: Coupling, reveals: list[RevealDensity]) -> None:
        steps = 5
        alphas = torch.stack([reveal.on_grid(steps) for reveal in reveals])
        table = coupling.on_grid(alphas)
        assert table.shape == (steps,) * len(reveals)
        assert (table >= 0).all()
        assert torch.allclose(marginals(table), alphas, atol=1e-12)
        counted = count_tuples(coupling.times(reveals, noise()), steps)
        assert (counted - table).abs().max() < 5 * 0.5 / math.sqrt(COUNT)

    def test_weights_of_the_table_are_those_of_survivals(
        self, coupling: Coupling, reveals: list[RevealDensity]
    ) -> None:
        alphas = torch.stack([reveal.on_grid(6) for reveal in reveals])
        A = torch.stack([survival_on_grid(alpha) for alpha in alphas], -1)
        assert torch.allclose(set_weights(coupling.on_grid(alphas)), coupling.subset_weights(A), atol=1e-12)

    def test_the_rest_given_one(self, coupling: Coupling, reveals: list[RevealDensity]) -> None:
        """Drawing one time and then the others given it is drawing all of them."""
        for which, reveal in enumerate(reveals):
            tau = reveal.quantile(noise(1).uniform(()).float())
            times = coupling.times_given(reveals, which, tau, noise(2))
            assert torch.equal(times[:, which], tau)
            counted, straight = (count_tuples(draws, 4) for draws in (times, coupling.times(reveals, noise(3))))
            assert (counted - straight).abs().max() < 6 * 0.5 * math.sqrt(2 / COUNT)
            for column, other in zip(times.unbind(-1), reveals, strict=True):
                ordered = column.sort().values
                reached = 1.0 - torch.searchsorted(ordered, ordered) / COUNT
                assert (other.survival(ordered) - reached).abs().max() < KOLMOGOROV

    def test_a_sample_keeps_its_times_in_any_batch(self, coupling: Coupling, reveals: list[RevealDensity]) -> None:
        together = coupling.times(reveals, NoiseSource(0, range(6)))
        alone = torch.cat([coupling.times(reveals, NoiseSource(0, [place])) for place in range(6)])
        assert torch.equal(together, alone)


def test_independent_weights_by_enumeration() -> None:
    A = [0.9, 0.5, 0.2]
    weights = Independent().subset_weights(torch.tensor(A, dtype=torch.float64))
    for code, shown in enumerate(product((False, True), repeat=3)):
        chance = math.prod(a if seen else 1 - a for a, seen in zip(A, shown[::-1], strict=True))
        assert weights[code].item() == pytest.approx(chance)


def test_nested_weights_are_prefixes() -> None:
    weights = Nested().subset_weights(torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64))
    assert torch.allclose(weights, torch.tensor([0.1, 0.4, 0, 0.3, 0, 0, 0, 0.2], dtype=torch.float64))


def test_nested_times_come_in_order_and_determine_each_other() -> None:
    reveals = [Beta(2.0, 1.0), Uniform(), Cosine()]
    times = Nested().times(reveals, noise())
    assert (times.diff(dim=-1) <= 0).all()
    again = Nested().times_given(reveals, 1, times[:, 1], noise(9))
    assert torch.allclose(again, times, atol=1e-5)


@pytest.mark.parametrize("at", [0.3, 0.7, 1.0])
def test_what_is_nested_below_an_atom_keeps_its_spread(at: float) -> None:
    """0.7 is rounded down in float32 and 0.3 up; an atom that swallows every u must leave the others free."""
    tau = torch.full((COUNT,), at)
    times = Nested().times_given([PointMass(at), Cutoff(0.0, 0.2)], 0, tau, noise(2))[:, 1].sort().values
    assert (times - torch.linspace(0, 0.2, COUNT)).abs().max() < 0.2 * KOLMOGOROV


def test_order_of_nested_latents_is_checked() -> None:
    check_ordered([Uniform(), Uniform(), Cosine()])
    crossing: list[RevealDensity] = [Cutoff(0.4, 0.6), Uniform()]
    for wrong in ([Cosine(), Uniform()], crossing):
        for call in (
            lambda reveals: check_ordered(reveals),
            lambda reveals: Nested().times(reveals, noise(count=2)),
            lambda reveals: Nested().times_given(reveals, 0, torch.rand(2), noise(count=2)),
            lambda reveals: Nested().on_grid(torch.stack([reveal.on_grid(8) for reveal in reveals])),
        ):
            with pytest.raises(InputError, match=r"reorder|coarse to fine"):
                call(wrong)
    with pytest.raises(InputError, match="coarse to fine"):
        Nested().subset_weights(torch.tensor([0.2, 0.4]))


class TestSampled:
    reveals = (Uniform(), Uniform())

    def test_draws_are_the_users(self) -> None:
        def opposite(source: NoiseSource) -> Tensor:
            u = source.uniform(()).float()
            return torch.stack([u, 1 - u], -1)

        coupling = Sampled(opposite)
        times = coupling.times(self.reveals, noise())
        assert torch.equal(times, opposite(noise()))
        weights = set_weights(count_tuples(times, 10))  # at most one of the two is revealed above 1/2
        assert (weights[5:, 3] == 0).all()
        assert weights[0, 3] == pytest.approx(1.0)
        with pytest.raises(InputError, match="no conditional"):
            coupling.times_given(self.reveals, 0, torch.rand(COUNT), noise())

    @pytest.mark.parametrize("times", [torch.rand(4, 3), torch.rand(4), torch.rand(5, 2)])
    def test_shape_is_checked(self, times: Tensor) -> None:
        with pytest.raises(InputError, match="shape"):
            Sampled(lambda source: times).times(self.reveals, noise(count=4))

    @pytest.mark.parametrize("value", [-0.1, 1.2, math.nan])
    def test_range_is_checked(self, value: float) -> None:
        with pytest.raises(InputError, match="outside"):
            Sampled(lambda source: torch.full((4, 2), value)).times(self.reveals, noise(count=4))


def test_every_coupling_meets_the_protocol() -> None:
    assert all(isinstance(coupling, Coupling) for coupling in (Independent(), Nested(), Sampled(lambda source: None)))
