import pytest
import torch
from core.bound_models import generator, models, randn
from reed_core.bound.divergence import kl_bound, reveal_cost, reveal_saving, tv_bound
from reed_core.bound.joint import expected_log_joint, log_joint_by_reveal
from reed_core.bound.kernels import CategoricalKernel, GaussianKernel
from reed_core.bound.solvable import reference
from reed_core.bound.solvable.categorical import CategoricalModel
from reed_core.bound.solvable.gaussian import GaussianModel
from reed_core.bound.solvable.model import SolvableModel, exact_bound, laws_by_reveal, naive_law
from reed_core.bound.terms import BoundTerms, bound_terms, draw_kept, split_squared_error
from reed_core.errors import InputError
from reed_core.reveal import PointMass, Uniform, survival_on_grid
from torch import Tensor

FORBIDDEN = -torch.inf


@pytest.fixture(params=["gaussian", "categorical"])
def model(request: pytest.FixtureRequest) -> SolvableModel:
    return models()[request.param]


def test_kept_is_certain_at_the_ends() -> None:
    assert draw_kept(torch.ones(500), generator()).all()
    assert not draw_kept(torch.zeros(500), generator()).any()


def test_squared_errors_split() -> None:
    e, e_u, e_c = randn(3, 10, 4)
    A = torch.linspace(0, 1, 10, dtype=torch.float64)
    split = split_squared_error(e, e_u, e_c, A)
    assert torch.allclose(split.kept, split.mixed + split.disagreement)
    assert torch.allclose(split.kept[0], (e[0] - e_u[0]).square().sum())
    assert torch.allclose(split.kept[-1], (e[-1] - e_c[-1]).square().sum())
    variance = 0.7  # the disagreement is -log Z in units of 2 sigma^2
    hybrid = GaussianKernel.isotropic(e_u, variance).hybrid(GaussianKernel.isotropic(e_c, variance), A)
    assert torch.allclose(split.disagreement / (2 * variance), -hybrid.log_normaliser)


def test_path_with_an_impossible_step_is_impossible_only_when_that_step_counts() -> None:
    prior, alignment, given = torch.tensor(-1.0), torch.full((3,), -2.0), torch.full((3,), -3.0)
    alone = torch.tensor([-1.0, FORBIDDEN, -1.0])
    by_reveal = log_joint_by_reveal(prior, alignment, alone, given)
    assert by_reveal.tolist() == [-torch.inf, -10.0, -12.0]
    assert expected_log_joint(prior, alignment, alone, given, torch.tensor([0.0, 0.5, 0.5])) == -11.0


class TestBound:
    def test_terms_add_up_with_the_normaliser_subtracted(self) -> None:
        parts = dict(zip(("denoising", "alignment", "log_normaliser"), randn(3, 5, 4), strict=True))
        terms = BoundTerms(prior=randn(5, seed=4), reconstruction=randn(5, seed=5), **parts)
        total = terms.prior + terms.reconstruction
        for t in range(4):
            total = total + terms.denoising[:, t] + terms.alignment[:, t] - terms.log_normaliser[:, t]
        assert torch.allclose(terms.total, total)

    def test_a_batch_of_points_is_a_loop(self, model: SolvableModel) -> None:
        heads, alpha = model.perturbed(generator(3)), Uniform().on_grid(model.steps)
        paths = model.sample(3, generator(4))
        x_0, z = paths.x[0, 0], paths.z[0]

        def terms(x: Tensor) -> BoundTerms:
            return bound_terms(
                prior=model.noised(x_0).kl(heads.prior).expand(len(x)),
                reconstruction=-heads.conditional(x[:, :1], z).log_prob(x_0)[:, 0],
                posterior=model.posterior(x[:, 1:], x_0),
                unconditional=heads.unconditional(x[:, 1:], first=2),
                conditional=heads.conditional(x[:, 1:], z, first=2),
                alignment=-heads.alignment(x).log_prob(z),
                alpha=alpha,
            )

        together = terms(paths.x[:, 1:])
        assert together.denoising.shape == (3, model.steps)
        assert (together.denoising[:, 0] == 0).all()
        assert (together.log_normaliser <= 1e-12).all()
        for i in range(3):
            assert torch.allclose(terms(paths.x[i : i + 1, 1:]).total, together.total[i : i + 1])

    def test_is_the_evidence_for_exact_heads_whatever_alpha(self, model: SolvableModel) -> None:
        paths = model.sample(1, generator(3))
        evidence = -model.log_data(paths.x[:, 0], paths.z)[0]
        for density in (Uniform(), PointMass(), PointMass(0.5), PointMass(0.0)):
            total = exact_bound(model, model.exact, paths.x[0, 0], paths.z[0], density.on_grid(model.steps)).total
            assert torch.allclose(total, evidence)

    def test_is_above_the_evidence_for_other_heads(self, model: SolvableModel) -> None:
        heads, alpha = model.perturbed(generator(3)), Uniform().on_grid(model.steps)
        paths = model.sample(5, generator(4))
        laws = laws_by_reveal(model, heads)
        for x_0, z in zip(paths.x[:, 0], paths.z, strict=True):
            likely = [reference.log_prob(model.as_kernel(law), model.outcome(x_0, z)) for law in laws]
            evidence = torch.logsumexp(alpha.log() + torch.stack(likely), 0)
            assert exact_bound(model, heads, x_0, z, alpha).total > -evidence

    def test_refuses_an_alpha_that_is_no_density(self, model: SolvableModel) -> None:
        paths = model.sample(1, generator(3))
        with pytest.raises(InputError, match="sums to 1"):
            exact_bound(model, model.exact, paths.x[0, 0], paths.z[0], torch.ones(model.steps, dtype=torch.float64))


class TestDivergence:
    def test_bound_is_linear_in_alpha(self) -> None:
        e_z, e_u, e_c = randn(3, 6).abs()
        prior, steps = torch.tensor(0.3, dtype=torch.float64), 6
        points = [kl_bound(prior, e_z, e_u, e_c, alpha) for alpha in torch.eye(steps, dtype=torch.float64)]
        alpha = torch.softmax(randn(steps, seed=2), 0)
        assert torch.allclose(kl_bound(prior, e_z, e_u, e_c, alpha), alpha @ torch.stack(points))

    def test_equals_the_kl_of_paths(self) -> None:
        model = GaussianModel.random(generator(1), steps=3, dim=2, schedule="preserving")
        heads = model.perturbed(generator(2))
        errors, alpha = reference.head_errors(model, heads), Uniform().on_grid(3)
        assert torch.allclose(kl_bound(**errors, alpha=alpha), alpha @ reference.path_kl(model, heads))

    def test_pinsker_is_sharp_for_two_near_coins_and_holds_for_any(self) -> None:
        fair = CategoricalKernel(torch.tensor([0.5, 0.5], dtype=torch.float64).log())
        for bias in (1e-3, 0.1, 0.4):
            coin = CategoricalKernel(torch.tensor([0.5 + bias, 0.5 - bias], dtype=torch.float64).log())
            assert bias <= tv_bound(coin.kl(fair)) + 1e-12
        near = CategoricalKernel(torch.tensor([0.501, 0.499], dtype=torch.float64).log())
        assert float(tv_bound(near.kl(fair))) == pytest.approx(1e-3, rel=1e-5)

    def test_revealing_earlier_costs_what_it_saves(self, model: SolvableModel) -> None:
        known, costs = model.information(), []
        for at in (0.0, 0.5, 1.0):
            alpha = PointMass(at).on_grid(model.steps)
            costs.append(reveal_cost(known.entropy, known.entropy_clean, alpha))
            assert torch.allclose(costs[-1], reveal_saving(known.gain, alpha))
        assert costs[0] < costs[1] < costs[2]


def test_drawn_chains_follow_their_laws() -> None:
    """D13 by drawing, kernel by kernel: reveal-ancestral gives q(x_0, z), z up front gives something else."""
    count, steps = 40000, 4
    model = CategoricalModel.random(generator(5), steps=steps, states=3, latents=2)
    heads, noise = model.exact, generator(6)
    A = survival_on_grid(PointMass(0.25).on_grid(steps))

    def drawn(tau: Tensor, naive: bool) -> Tensor:
        x = CategoricalKernel(heads.prior.log_probs.expand(count, -1)).sample(noise)[:, None]
        z = torch.zeros_like(x)
        for t in range(steps, 0, -1):
            z = torch.where(tau[:, None] == t, heads.alignment(x, first=t).sample(noise), z)
            alone, given = heads.unconditional(x, first=t), heads.conditional(x, z, first=t)
            if naive:
                x = alone.hybrid(given, A[t - 1]).kernel.sample(noise)
            else:
                x = torch.where(tau[:, None] >= t, given.sample(noise), alone.sample(noise))
        return torch.bincount(model.outcome(x, z).flatten(), minlength=6).double() / count

    def sigmas(share: Tensor, law: Tensor) -> Tensor:
        p = law.flatten()
        return ((share - p) / (p * (1 - p) / count).sqrt()).abs().max()

    tau = torch.ceil(Uniform().sample((count,), noise) * steps).clamp(min=1)
    up_front = drawn(torch.full((count,), steps), naive=True)
    assert sigmas(drawn(tau, naive=False), model.data_law()) < 5
    assert sigmas(up_front, naive_law(model, heads, A)) < 5
    assert sigmas(up_front, model.data_law()) > 10
