"""Several latents: the geometric mean of kernels, weights of sets, log p^(tau) of tuples, the bound, samplers."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from core.bound_models import categorical, gaussian, generator, models, part, randn
from reed_core.bound.hybrid import mix_many, mix_predictions
from reed_core.bound.kernels import CategoricalKernel
from reed_core.bound.many import denoising_by_set, expected_denoising_of_sets, geometric_mean
from reed_core.bound.solvable import reference, several_reference
from reed_core.bound.solvable.model import exact_bound
from reed_core.bound.solvable.several import (
    SeveralModel,
    exact_many_bound,
    laws_by_tuple,
    many_naive_law,
    many_reveal_ancestral_law,
)
from reed_core.bound.solvable.several_categorical import SeveralCategorical
from reed_core.bound.solvable.several_gaussian import SeveralGaussian
from reed_core.bound.tuples import (
    all_tuples,
    count_tuples,
    draw_weights,
    earlier_sets,
    expected_log_joint_of_tuples,
    log_joint_by_tuple,
    marginals,
    revealed_sets,
    set_weights,
)
from reed_core.coupling import Independent, Nested
from reed_core.errors import InputError
from reed_core.reveal import Beta, PointMass, Uniform, survival_on_grid
from torch import Tensor

STEPS = 3
MODELS: dict[str, Callable[[], SeveralModel]] = {
    "gaussian": lambda: SeveralGaussian.random(generator(1), STEPS, 2, "anisotropic", (1, 2)),
    "separate": lambda: SeveralGaussian.separate(generator(2), STEPS, 3, 2),
    "categorical": lambda: SeveralCategorical.random(generator(3), STEPS, 3, (2, 3)),
    "three": lambda: SeveralCategorical.random(generator(4), STEPS, 3, (2, 2, 2)),
}


def weights_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.softmax(randn(*shape, seed=seed), -1)


def tables(latents: int, steps: int = STEPS) -> dict[str, Tensor]:
    """A table of each kind, for latents that are revealed coarse to fine."""
    alphas = torch.stack([Beta(3.0 - latent, 1.0 + latent).on_grid(steps) for latent in range(latents)])
    user = torch.rand((steps,) * latents, generator=generator(5), dtype=torch.float64) ** 2
    return {
        "independent": Independent().on_grid(alphas),
        "nested": Nested().on_grid(alphas),
        "user": user / user.sum(),
    }


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> SeveralModel:
    return MODELS[request.param]()


@pytest.fixture(params=["independent", "nested", "user"])
def table(request: pytest.FixtureRequest, model: SeveralModel) -> Tensor:
    return tables(model.latents)[request.param]


@pytest.mark.parametrize("make", [gaussian, categorical])
class TestGeometricMean:
    def test_of_two_is_the_hybrid(self, make: Callable[..., Any]) -> None:
        alone, given = make(6, seed=3), make(6, seed=5)
        A = torch.linspace(0, 1, 6, dtype=torch.float64)
        one, other = alone.hybrid(given, A), geometric_mean([alone, given], torch.stack([1 - A, A], -1))
        assert torch.allclose(one.log_normaliser, other.log_normaliser, atol=1e-14)
        assert torch.allclose(one.kernel.kl(other.kernel), torch.zeros(6, dtype=torch.float64), atol=1e-12)

    @pytest.mark.parametrize("count", [1, 3, 4, 8])
    def test_is_the_weighted_product_over_its_normaliser(self, make: Callable[..., Any], count: int) -> None:
        kernels, w = [make(6, seed=10 * i) for i in range(count)], weights_of(6, count)
        mean, x = geometric_mean(kernels, w), make(6, seed=7).sample(generator())
        product_of = (w * torch.stack([kernel.log_prob(x) for kernel in kernels], -1)).sum(-1)
        assert torch.allclose(mean.kernel.log_prob(x) + mean.log_normaliser, product_of)
        assert torch.allclose(mean.log_normaliser, reference.log_product_mass(kernels, w), atol=1e-10)
        assert (mean.log_normaliser <= 1e-14).all()

    def test_the_order_does_not_matter(self, make: Callable[..., Any]) -> None:
        kernels, w = [make(6, seed=10 * i) for i in range(4)], weights_of(6, 4)
        here, there = geometric_mean(kernels, w), geometric_mean(kernels[::-1], w.flip(-1))
        assert torch.allclose(here.log_normaliser, there.log_normaliser)
        assert torch.allclose(here.kernel.kl(there.kernel), torch.zeros(6, dtype=torch.float64), atol=1e-11)

    def test_all_weight_on_one_is_that_one_whatever_the_place(self, make: Callable[..., Any]) -> None:
        kernels = [make(4, seed=10 * i) for i in range(4)]
        mean = geometric_mean(kernels, torch.eye(4, dtype=torch.float64))
        assert mean.log_normaliser.tolist() == pytest.approx([0.0] * 4, abs=1e-12)
        for i in range(4):
            assert float(part(mean.kernel, i).kl(part(kernels[i], i))) == pytest.approx(0.0, abs=1e-12)

    def test_the_expected_cost_of_a_drawn_set_needs_no_normaliser(self, make: Callable[..., Any]) -> None:
        """THEORY D14 for several latents; and one draw of the set is unbiased, being one term of the sum."""
        posterior, kernels, w = make(6, seed=1), [make(6, seed=10 * i) for i in range(4)], weights_of(6, 4)
        mean = geometric_mean(kernels, w)
        expected = expected_denoising_of_sets(posterior, kernels, w)
        assert torch.allclose(posterior.kl(mean.kernel) - mean.log_normaliser, expected)
        costs = denoising_by_set(posterior, kernels)
        assert torch.allclose((w * costs).sum(-1), expected)
        drawn = torch.multinomial(w, 20000, replacement=True, generator=generator())
        shown = costs.gather(-1, drawn)
        assert ((shown.mean(-1) - expected).abs() < 5 * shown.std(-1) / math.sqrt(20000)).all()

    def test_weights_align_with_the_first_axes(self, make: Callable[..., Any]) -> None:
        kernels, w = [make(2, 3, seed=10 * i) for i in range(4)], weights_of(2, 4)
        wide = w[:, None].expand(2, 3, 4)
        assert torch.allclose(geometric_mean(kernels, w).log_normaliser, geometric_mean(kernels, wide).log_normaliser)
        expected = expected_denoising_of_sets(kernels[0], kernels, w)
        assert torch.allclose(expected, expected_denoising_of_sets(kernels[0], kernels, wide))

    def test_each_kernel_has_a_weight(self, make: Callable[..., Any]) -> None:
        for count in (0, 2):
            with pytest.raises(InputError, match="one weight for each"):
                geometric_mean([make(6)] * count, weights_of(6, 3))


def test_a_ban_counts_only_where_its_weight_does() -> None:
    free = CategoricalKernel(torch.tensor([0.3, 0.7, 0.0], dtype=torch.float64).log())
    banned = CategoricalKernel(torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64).log())
    w = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    wide = [CategoricalKernel(kernel.log_probs.expand(3, 3)) for kernel in (free, banned, free)]
    probs = geometric_mean(wide, w).kernel.log_probs.exp()
    assert torch.allclose(probs[[0, 2]], free.log_probs.exp().expand(2, 3))
    assert torch.allclose(probs[1], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))


def test_mixing_many_is_mixing_two_and_aligns_with_the_first_axes() -> None:
    alone, given, A = randn(4, 3, seed=1), randn(4, 3, seed=2), torch.linspace(0, 1, 4, dtype=torch.float64)
    mixed = mix_many(torch.stack([alone, given], -1), torch.stack([1 - A, A], -1))
    assert torch.allclose(mixed, mix_predictions(alone, given, A))


class TestWeights:
    """Against enumeration: every tuple looked at on its own."""

    @pytest.mark.parametrize("kind", ["independent", "nested", "user"])
    @pytest.mark.parametrize("latents", [1, 2, 3])
    def test_weights_are_chances(self, latents: int, kind: str) -> None:
        table = tables(latents)[kind]
        w, v = torch.zeros(STEPS, 2**latents), torch.zeros(latents, STEPS, 2**latents)
        for times in product(range(1, STEPS + 1), repeat=latents):
            chance = table[tuple(time - 1 for time in times)]
            for t in range(1, STEPS + 1):
                w[t - 1, sum(1 << i for i, time in enumerate(times) if time >= t)] += chance
            order = sorted(range(latents), key=lambda i: (-times[i], i))
            for place, i in enumerate(order):
                v[i, times[i] - 1, sum(1 << other for other in order[:place])] += chance
        assert torch.allclose(set_weights(table).float(), w)
        assert torch.allclose(draw_weights(table).float(), v)

    @pytest.mark.parametrize("kind", ["independent", "nested", "user"])
    def test_weights_sum_to_what_they_should(self, kind: str) -> None:
        table = tables(3)[kind]
        alphas, w, v = marginals(table), set_weights(table), draw_weights(table)
        assert torch.allclose(w.sum(-1), torch.ones(STEPS, dtype=torch.float64))
        assert w[0].tolist() == pytest.approx([0.0] * 7 + [1.0])
        assert torch.allclose(v.sum(-1), alphas)
        A = torch.stack([survival_on_grid(alpha) for alpha in alphas], -1)
        members = (torch.arange(8)[:, None] >> torch.arange(3) & 1).double()
        assert torch.allclose(w @ members, A)
        for i in range(3):
            assert (v[i, :, members[:, i] > 0] == 0).all()

    def test_of_two_revealed_at_once_the_first_listed_comes_first(self) -> None:
        tuples = torch.tensor([[2, 2, 2], [1, 3, 3], [3, 1, 2]])
        assert earlier_sets(tuples).tolist() == [[0, 1, 3], [6, 0, 2], [0, 5, 1]]
        assert revealed_sets(tuples, 3).tolist() == [[7, 7, 0], [7, 6, 6], [7, 5, 1]]

    def test_tuples_are_in_the_order_of_a_flattened_table(self) -> None:
        table = tables(3)["user"]
        places = all_tuples(3, STEPS) - 1
        assert torch.equal(table[tuple(places.unbind(-1))], table.flatten())

    def test_draws_are_counted_in_their_steps(self) -> None:
        times = torch.tensor([[0.0, 1.0], [0.2, 0.21], [0.4, 0.6], [0.4, 0.6]])
        counted = count_tuples(times, 5)
        assert counted[0, 4] == counted[0, 1] == 0.25
        assert counted[1, 2] == 0.5

    @pytest.mark.parametrize(
        "table",
        [torch.ones(3, 3), torch.ones(2, 3) / 6, torch.tensor([1.5, -0.5]), torch.tensor(1.0), torch.zeros(0)],
    )
    def test_what_is_no_table_is_refused(self, table: Tensor) -> None:
        for read in (set_weights, draw_weights, marginals):
            with pytest.raises(InputError, match="sums to 1"):
                read(table)


class TestModels:
    def test_every_tuple_is_the_process_for_exact_heads(self, model: SeveralModel) -> None:
        """THEORY D9."""
        paths = model.base.sample(4, generator())
        joints = several_reference.by_tuple(several_reference.path_values(model, model.exact, paths))
        assert len(joints) == STEPS**model.latents
        assert torch.allclose(joints, model.base.log_forward(paths).expand_as(joints))

    def test_joints_of_tuples_and_their_mean(self, model: SeveralModel, table: Tensor) -> None:
        paths = model.base.sample(4, generator())
        values = several_reference.path_values(model, model.perturbed(generator(6)), paths)
        truth = several_reference.by_tuple(values)
        denoising, alignment = values.stacked()
        for latent, row in enumerate(values.alignment):  # where l is in R there is no head, and nothing may be read
            alignment[:, latent, :, [not said for said in row]] = math.nan
        assert torch.allclose(log_joint_by_tuple(values.ends, denoising, alignment), truth.mT)
        expected = expected_log_joint_of_tuples(values.ends, denoising, alignment, table)
        assert torch.allclose(expected, table.flatten() @ truth)

    def test_bound_is_the_evidence_for_exact_heads(self, model: SeveralModel, table: Tensor) -> None:
        paths = model.base.sample(1, generator(3))
        total = exact_many_bound(model, model.exact, paths.x[0, 0], paths.z[0], table).total
        assert torch.allclose(total, -model.base.log_data(paths.x[:, 0], paths.z)[0])

    def test_bound_is_the_mean_cost_of_tuples_and_above_the_evidence(self, model: SeveralModel, table: Tensor) -> None:
        heads, paths = model.perturbed(generator(3)), model.base.sample(2, generator(4))
        kernels = [model.base.as_kernel(law) for law in laws_by_tuple(model, heads)]
        for x_0, z in zip(paths.x[:, 0], paths.z, strict=True):
            found = exact_many_bound(model, heads, x_0, z, table)
            truth = table.flatten() @ several_reference.by_tuple(several_reference.set_costs(model, heads, x_0, z))
            assert torch.allclose(found.total, truth)
            assert (found.log_normaliser <= 1e-12).all()
            likely = [reference.log_prob(kernel, model.base.outcome(x_0, z)) for kernel in kernels]
            assert found.total > -torch.logsumexp(table.flatten().log() + torch.stack(likely), 0)

    def test_reveal_ancestral_is_exact_and_z_up_front_is_not(self, model: SeveralModel, table: Tensor) -> None:
        data = model.base.data_law()
        laws = laws_by_tuple(model, model.exact)
        assert torch.allclose(laws, laws[:1].expand_as(laws))
        found = many_reveal_ancestral_law(model, model.exact, table)
        assert torch.allclose(found, data)
        heads = model.perturbed(generator(3))
        mixed = torch.tensordot(table.flatten(), laws_by_tuple(model, heads), 1)
        assert torch.allclose(many_reveal_ancestral_law(model, heads, table), mixed)
        truth = model.base.as_kernel(data)
        naive = model.base.as_kernel(many_naive_law(model, model.exact, table))
        assert reference.kl(truth, naive) > 1e-5
        always = torch.zeros_like(table)
        always.view(-1)[-1] = 1.0
        naive = model.base.as_kernel(many_naive_law(model, model.exact, always))
        assert reference.kl(truth, naive).abs() < 1e-12

    def test_latents_revealed_together_are_one_latent(self, model: SeveralModel) -> None:
        """A nested coupling of equal densities is the bound of one latent, z in one piece."""
        alpha = Beta(2.0, 3.0).on_grid(STEPS)
        paths = model.base.sample(1, generator(3))
        x_0, z = paths.x[0, 0], paths.z[0]
        together = exact_many_bound(model, model.exact, x_0, z, Nested().on_grid(alpha.expand(model.latents, -1)))
        one = exact_bound(model.base, model.base.exact, x_0, z, alpha)
        for name in ("prior", "reconstruction", "denoising", "alignment", "log_normaliser"):
            assert torch.allclose(getattr(together, name), getattr(one, name)), name


def test_one_latent_is_the_single_bound() -> None:
    for base in models().values():
        several: Any = SeveralCategorical(base, (2,)) if hasattr(base, "data") else SeveralGaussian(base, (1,))
        paths, alpha = base.sample(1, generator(3)), Uniform().on_grid(base.steps)
        x_0, z = paths.x[0, 0], paths.z[0]
        found = exact_many_bound(several, several.exact, x_0, z, alpha)
        assert torch.allclose(found.denoising, exact_bound(base, base.exact, x_0, z, alpha).denoising)


class TestConditionalIndependence:
    """z_1 and z_2 independent given x_t: only the A^l matter, not how the reveal times hang together."""

    alphas = torch.stack([Beta(2.0, 1.0).on_grid(STEPS), Uniform().on_grid(STEPS)])

    def scores(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """grad log p(x_t) + sum_l A^l grad log p(z_l|x_t) by autograd, and mixed scores under two couplings."""
        model: Any = MODELS[name]()
        paths = model.base.sample(5, generator(7))
        x, z = paths.x[:, 1:], paths.z[:, None].expand(-1, STEPS, -1)
        A = torch.stack([survival_on_grid(alpha) for alpha in self.alphas], -1)

        def log_density(y: Tensor) -> Tensor:
            given = [
                reference.log_prob(model.exact.alignment[i][0](y, z), model.part(z, i)) for i in range(model.latents)
            ]
            return reference.log_prob(model.noisy(z, 0), y) + (A * torch.stack(given, -1)).sum(-1)

        each = torch.stack([model.noisy(z, revealed).score(x) for revealed in range(4)], -1)
        found = [mix_many(each, set_weights(c.on_grid(self.alphas))[None]) for c in (Independent(), Nested())]
        return reference.gradient(log_density, x), found[0], found[1]

    def test_score_is_a_sum_over_latents_whatever_the_coupling(self) -> None:
        truth, independent, nested = self.scores("separate")
        assert torch.allclose(independent, truth)
        assert torch.allclose(nested, truth)

    def test_it_is_not_when_they_depend_on_each_other(self) -> None:
        truth, independent, nested = self.scores("gaussian")
        assert (independent - truth).abs().max() > 1e-3
        assert (independent - nested).abs().max() > 1e-3

    def test_the_hybrid_is_the_same_under_every_coupling(self) -> None:
        model: Any = MODELS["separate"]()
        x = model.base.sample(5, generator(7)).x[:, 1:]
        z = randn(5, STEPS, 2)
        kernels = [head(x, z) for head in model.exact.denoising]
        one, other = (
            geometric_mean(kernels, set_weights(c.on_grid(self.alphas))[None]).kernel for c in (Independent(), Nested())
        )
        assert torch.allclose(one.kl(other), torch.zeros(5, STEPS, dtype=torch.float64), atol=1e-12)


def test_a_latent_that_is_there_from_the_start_leaves_the_bound_of_the_other() -> None:
    """Revealing z_1 at noise (p(z_1), then everything given z_1) costs its own prior head and nothing else."""
    model = MODELS["gaussian"]()
    paths = model.base.sample(1, generator(3))
    x_0, z = paths.x[0, 0], paths.z[0]
    heads = model.perturbed(generator(3))
    alphas = torch.stack([PointMass(1.0).on_grid(STEPS), Uniform().on_grid(STEPS)])
    independent, nested = (exact_many_bound(model, heads, x_0, z, c.on_grid(alphas)) for c in (Independent(), Nested()))
    for name in ("denoising", "alignment", "log_normaliser"):
        assert torch.allclose(getattr(independent, name), getattr(nested, name)), name
