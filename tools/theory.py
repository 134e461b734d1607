"""Check the theory (labels D1-D8, D10, D13, D14, D16) on fresh random models, through reed_core's public functions.

    uv run tools/theory.py --seed 0 --dim 4 --steps 8

Draws three linear-Gaussian models (x_0 of --dim dimensions; variance-preserving, variance-exploding and anisotropic
schedules) and two categorical ones, each with --steps steps, and prints the worst deviation of each label from an
independently computed truth, its limit and the verdict. Exits 1 if a verdict is bad.

Everything is float64. Deviations are relative to 1 + |truth|. A row marked >= is of something that has to be there: a
bias, or room between the two sides of an inequality. Truths come from `reed_core.bound.solvable.reference`
(torch.distributions, autograd, canonical parameters, products written out) and from running each reveal time alone.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from reed_core.console import run
from reed_core.errors import InputError

if TYPE_CHECKING:
    import torch
    from reed_core.bound.solvable.model import Heads
    from torch import Tensor

TOLERANCE = 1e-9
PRESENT = (
    1e-10  # what has to be there, in nats: far above rounding (1e-14), below the least bias of 2-step models (1e-8)
)
STANDARD_ERRORS = 6.0


@dataclass(frozen=True)
class Check:
    """One measured figure and the limit it is held to."""

    label: str
    what: str
    value: float
    limit: float = TOLERANCE
    at_least: bool = False

    @property
    def margin(self) -> float:
        """How far the figure is on the right side of its limit."""
        return self.value - self.limit if self.at_least else self.limit - self.value

    @property
    def passed(self) -> bool:
        """Whether the figure is finite and on the right side of its limit."""
        return math.isfinite(self.value) and self.margin >= 0


@dataclass(frozen=True)
class Setting:
    """A model, heads that contradict it and each other, reveal densities on its grid, and a source of randomness."""

    kind: str
    model: Any
    wrong: "Heads"
    alphas: "dict[str, Tensor]"
    generator: "torch.Generator"

    @functools.cached_property
    def laws(self) -> "Tensor":
        """The laws p^(tau)(x_0, z) under the wrong heads, tau = 1..T first."""
        import torch
        from reed_core.bound.solvable.model import laws_by_reveal

        return torch.stack(laws_by_reveal(self.model, self.wrong))

    def kernel_pair(self) -> "tuple[Any, Any, Tensor]":
        """Wrong p_u and p_c of every step at a few (x_t, z), and a survival for each, some of them 0 and 1."""
        nodes = self.model.joint_nodes()
        x, z = nodes.x[:6], nodes.z[:6]
        A = self.rand(*x.shape[:2])
        A[0], A[1] = 0.0, 1.0
        return self.wrong.unconditional(x), self.wrong.conditional(x, z), A

    def randn(self, *shape: int) -> "Tensor":
        """Standard normal numbers."""
        import torch

        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def rand(self, *shape: int) -> "Tensor":
        """Uniform numbers."""
        import torch

        return torch.rand(shape, generator=self.generator, dtype=torch.float64)


def deviation(measured: "Tensor", truth: "Tensor") -> float:
    """The largest |measured - truth| / (1 + |truth|); infinite when something is not a number."""
    worst = float(((measured - truth).abs() / (1.0 + truth.abs())).max())
    return math.inf if math.isnan(worst) else worst


def excess(small: "Tensor", large: "Tensor") -> float:
    """By how much `small <= large` is violated at worst, relative to 1 + |large|."""
    worst = float(((small - large) / (1.0 + large.abs())).max())
    return math.inf if math.isnan(worst) else max(worst, 0.0)


def tails(alpha: "Tensor") -> "Tensor":
    """A_t from its definition, one sum for each step."""
    return alpha.new_tensor([math.fsum(alpha[t:].tolist()) for t in range(len(alpha))])


def ours(kernel: Any, x: "Tensor") -> "Tensor":
    """The log-density that reed_core's kernel gives."""
    return kernel.log_prob(x)


def check_paths(s: Setting) -> Iterator[Check]:
    """D1, D2: log p^(tau) of a path; with exact heads for every tau, with inconsistent heads on average."""
    from reed_core.bound.joint import expected_log_joint, log_joint_by_reveal
    from reed_core.bound.solvable.reference import head_log_probs, log_joints

    paths = s.model.sample(6, s.generator)
    found = log_joint_by_reveal(**head_log_probs(s.model.exact, paths, ours))
    said, truth = head_log_probs(s.wrong, paths, ours), log_joints(s.wrong, paths)
    worst = max(deviation(expected_log_joint(**said, alpha=alpha), truth @ alpha) for alpha in s.alphas.values())
    yield Check("D1", "log p^(tau) = log q on paths, every tau", deviation(found, s.model.log_forward(paths)[:, None]))
    yield Check("D2", "E_tau log p^(tau) on paths, inconsistent heads", worst)


def check_bound(s: Setting) -> Iterator[Check]:
    """D3, D4: the bound holds for inconsistent heads, and is an equality for exact ones."""
    import torch
    from reed_core.bound.solvable import reference
    from reed_core.bound.solvable.model import exact_bound

    paths = s.model.sample(3, s.generator)
    kernels = [s.model.as_kernel(law) for law in s.laws]
    loose, tight, evidence, data = [], [], [], []
    for x_0, z in zip(paths.x[:, 0], paths.z, strict=True):
        by_reveal = torch.stack([reference.log_prob(kernel, s.model.outcome(x_0, z)) for kernel in kernels])
        for alpha in s.alphas.values():
            loose.append(exact_bound(s.model, s.wrong, x_0, z, alpha).total)
            tight.append(exact_bound(s.model, s.model.exact, x_0, z, alpha).total)
            evidence.append(-torch.logsumexp(alpha.log() + by_reveal, 0))
            data.append(-s.model.log_data(x_0[None], z[None])[0])
    above, below = torch.stack(loose), torch.stack(evidence)
    yield Check("D3", "L >= -log p^alpha(x_0, z), inconsistent heads", excess(below, above))
    yield Check("D3", "smallest slack, nats", float((above - below).min()), PRESENT, at_least=True)
    yield Check("D4", "L = -log q(x_0, z), exact heads, every alpha", deviation(torch.stack(tight), torch.stack(data)))


def check_normaliser(s: Setting) -> Iterator[Check]:
    """D5: log Z, the density it normalises, and its bounds."""
    import torch
    from reed_core.bound.divergence import normaliser_bounds
    from reed_core.bound.solvable import reference

    alone, given, A = s.kernel_pair()
    hybrid, bounds = alone.hybrid(given, A), normaliser_bounds(alone, given, A)
    cost = -reference.log_normaliser(alone, given, A)
    half = -reference.log_normaliser(alone, given, torch.full_like(A, 0.5))
    past = s.model.sample(len(A), s.generator).x[:, :-1]
    density = (1 - A) * reference.log_prob(alone, past) + A * reference.log_prob(given, past) + cost
    yield Check("D5", "log Z", deviation(-hybrid.log_normaliser, cost))
    yield Check("D5", "p~ = p_u^(1-A) p_c^A / Z at points", deviation(hybrid.kernel.log_prob(past), density))
    yield Check("D5", "B = -log int sqrt(p_u p_c)", deviation(alone.bhattacharyya(given), half))
    yield Check("D5", "0 <= 2 min(A, 1-A) B", excess(torch.zeros_like(cost), bounds.lower))
    yield Check("D5", "2 min(A, 1-A) B <= -log Z", excess(bounds.lower, cost))
    yield Check("D5", "-log Z <= min KL", excess(cost, bounds.upper))
    inside = (A > 0) & (A < 1)
    yield Check("D5", "smallest lower / upper", float((bounds.lower / bounds.upper)[inside].min()), 1e-3, at_least=True)


def check_normaliser_gaussian(s: Setting) -> Iterator[Check]:
    """D5 for Gaussians of equal variance, where everything has a closed form."""
    import torch
    from reed_core.bound.divergence import normaliser_bounds
    from reed_core.bound.kernels import GaussianKernel

    mean_u, mean_c = s.randn(2, 9, s.model.dim)
    variance, A = 0.2 + s.rand(9), s.rand(9)
    A[:3] = A.new_tensor([0.0, 0.5, 1.0])
    alone, given = GaussianKernel.isotropic(mean_u, variance), GaussianKernel.isotropic(mean_c, variance)
    hybrid, bounds = alone.hybrid(given, A), normaliser_bounds(alone, given, A)
    unit = (mean_c - mean_u).square().sum(-1) / (2 * variance)
    least = torch.minimum(A, 1 - A) * unit
    mixed = (1 - A[:, None]) * mean_u + A[:, None] * mean_c
    yield Check("D5", "equal variances: -log Z", deviation(-hybrid.log_normaliser, A * (1 - A) * unit))
    yield Check("D5", "equal variances: lower bound, sharp at 1/2", deviation(bounds.lower, 0.5 * least))
    yield Check("D5", "equal variances: upper bound", deviation(bounds.upper, least))
    yield Check("D5", "equal variances: mean of p~", deviation(hybrid.kernel.mean, mixed))
    yield Check("D5", "equal variances: covariance of p~", deviation(hybrid.kernel.covariance, alone.covariance))


def check_logits(s: Setting) -> Iterator[Check]:
    """D6 for tokens: mixed logits are those of p~."""
    from reed_core.bound.hybrid import mix_logits
    from reed_core.bound.solvable.reference import log_normaliser

    alone, given, A = s.kernel_pair()
    truth = (1 - A[..., None]) * alone.log_probs + A[..., None] * given.log_probs
    truth = truth - log_normaliser(alone, given, A)[..., None]
    yield Check("D6", "mixed token logits = log p~", deviation(mix_logits(alone.log_probs, given.log_probs, A), truth))


def check_scores(s: Setting) -> Iterator[Check]:
    """D6, D16: scores, and x_0-, eps- and v-predictions, mix convexly."""
    import torch
    from reed_core.bound.hybrid import mix_predictions
    from reed_core.bound.solvable import reference

    alone, given, A = s.kernel_pair()
    model, paths = s.model, s.model.sample(len(A), s.generator)
    past, x, z = paths.x[:, :-1], paths.x[:, 1:], paths.z[:, None].expand(-1, model.steps, -1)
    truth = reference.gradient(
        lambda y: (1 - A) * reference.log_prob(alone, y) + A * reference.log_prob(given, y), past
    )
    yield Check("D6", "score of p~", deviation(alone.hybrid(given, A).kernel.score(past), truth))
    mixed = mix_predictions(alone.score(past), given.score(past), A)
    yield Check("D6", "(1-A) score_u + A score_c = score of p~", deviation(mixed, truth))
    score = reference.gradient(
        lambda y: reference.log_prob(model.noisy(), y) + A * reference.log_prob(model.exact.alignment(y), z), x
    )
    mixed = mix_predictions(model.noisy().score(x), model.noisy(z).score(x), A)
    yield Check("D6", "mixed score = grad log p(x_t) + A grad log p(z|x_t)", deviation(mixed, score))

    # x_t = signal x_0 + root eps moves with v = d_signal x_0 + d_root root eps, whatever the derivatives are
    signal, root = model.signal[1:, None], torch.linalg.cholesky(model.spread[1:])
    d_signal, d_root = s.randn(2)
    found: dict[str, list[Tensor]] = {"x_0": [], "eps": [], "v": []}
    for x_0 in (model.denoised(x), model.denoised(x, z)):
        eps = torch.linalg.solve(root, (x - signal * x_0)[..., None])
        found["x_0"].append(x_0)
        found["eps"].append(eps[..., 0])
        found["v"].append(d_signal * x_0 + d_root * (root @ eps)[..., 0])
    eps = -(root.mT @ score[..., None])
    x_0 = (x - (root @ eps)[..., 0]) / signal
    truths = {"x_0": x_0, "eps": eps[..., 0], "v": d_signal * x_0 + d_root * (root @ eps)[..., 0]}
    for name, truth in truths.items():
        value = deviation(mix_predictions(*found[name], A), truth)
        yield Check("D16", f"mixed {name}-predictions = those of the mixed score", value)


def check_divergence(s: Setting) -> Iterator[Check]:
    """D7: KL and total variation between q and p^alpha are bounded by the errors of the heads."""
    import torch
    from reed_core.bound.divergence import kl_bound, tv_bound
    from reed_core.bound.kernels import CategoricalKernel
    from reed_core.bound.solvable import reference

    errors = reference.head_errors(s.model, s.wrong)
    alphas, laws = torch.eye(s.model.steps, dtype=torch.float64), s.laws
    if s.kind == "categorical":  # a mixture of tables is a table; a mixture of Gaussians is no Gaussian
        alphas = torch.cat([alphas, torch.stack(list(s.alphas.values()))])
        laws = torch.einsum("at,txz->axz", alphas, laws)
    bounds = torch.stack([kl_bound(**errors, alpha=alpha) for alpha in alphas])
    data = s.model.as_kernel(s.model.data_law())
    truths = torch.stack([reference.kl(data, s.model.as_kernel(law)) for law in laws])
    yield Check("D7", "KL(q || p^alpha) <= bound", excess(truths, bounds))
    yield Check("D7", "smallest slack, nats", float((bounds - truths).min()), PRESENT, at_least=True)
    if s.kind == "categorical":
        distance = 0.5 * (laws - s.model.data_law()).abs().sum((1, 2))
        yield Check("D7", "TV(q, p^alpha) <= bound", excess(distance, tv_bound(bounds)))
        coins = [CategoricalKernel(bounds.new_tensor([0.5 + e, 0.5 - e]).log()) for e in (1e-3, 0.0)]
        sharp = abs(float(tv_bound(coins[0].kl(coins[1]))) / 1e-3 - 1)
        yield Check("D7", "TV bound of two near coins / TV - 1", sharp, 1e-5)
    else:
        path_kl = reference.path_kl(s.model, s.wrong)
        sharp = max(deviation(kl_bound(**errors, alpha=alpha), alpha @ path_kl) for alpha in s.alphas.values())
        yield Check("D7", "an equality over whole paths", sharp)


def check_information(s: Setting) -> Iterator[Check]:
    """D8: revealing earlier costs in alignment what it saves in denoising."""
    from reed_core.bound.divergence import reveal_cost, reveal_saving

    known = s.model.information()
    costs = {name: reveal_cost(known.entropy, known.entropy_clean, alpha) for name, alpha in s.alphas.items()}
    worst = max(deviation(reveal_saving(known.gain, alpha), costs[name]) for name, alpha in s.alphas.items())
    yield Check("D8", "cost of alignment = saving of denoising", worst)
    yield Check("D8", "cost at noise less cost at data, nats", float(costs["noise"] - costs["data"]), PRESENT, True)


def check_presets(s: Setting) -> Iterator[Check]:
    """D10: a point mass at noise is RCG, uniform is REPA's linear A, a point mass at data is a read-out of x_1."""
    import torch
    from reed_core.bound.solvable.model import exact_bound
    from reed_core.bound.solvable.reference import head_costs
    from reed_core.reveal import PointMass, Uniform, survival_on_grid

    steps, times = s.model.steps, torch.linspace(0, 1, 101, dtype=torch.float64)
    linear = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    mass = torch.stack([torch.trapezoid(Uniform().density(times[i:]), times[i:]) for i in range(len(times))])
    yield Check("D10", "uniform: A linear on the grid", deviation(survival_on_grid(s.alphas["uniform"]), linear))
    yield Check("D10", "uniform: A(t) = int_t^1 alpha", deviation(Uniform().survival(times), mass))
    yield Check("D10", "point mass at noise: A(t) = 1", deviation(PointMass().survival(times), torch.ones_like(times)))
    paths = s.model.sample(1, s.generator)
    x_0, z = paths.x[0, 0], paths.z[0]
    costs = head_costs(s.model, s.wrong, x_0, z)
    found = {name: exact_bound(s.model, s.wrong, x_0, z, alpha).total for name, alpha in s.alphas.items()}
    always = costs.ends + costs.conditional.sum() + costs.alignment[-1]
    never = costs.ends + costs.unconditional.sum() + costs.alignment[0]
    yield Check("D10", "point mass at noise: L of RCG", deviation(found["noise"], always))
    yield Check("D10", "point mass at data: L of a read-out of x_1", deviation(found["data"], never))


def check_samplers(s: Setting) -> Iterator[Check]:
    """D13: the reveal-ancestral sampler is exact; the p~ chain with z drawn up front is not, unless A = 1."""
    import torch
    from reed_core.bound.solvable import reference
    from reed_core.bound.solvable.model import naive_law, reveal_ancestral_law
    from reed_core.reveal import survival_on_grid

    model, data = s.model, s.model.data_law()
    exact = max(deviation(reveal_ancestral_law(model, model.exact, alpha), data) for alpha in s.alphas.values())
    mixed = max(
        deviation(reveal_ancestral_law(model, s.wrong, alpha), torch.einsum("t,txz->xz", alpha, s.laws))
        for alpha in s.alphas.values()
    )
    bias = {}
    for name in ("noise", "uniform"):
        drawn = naive_law(model, model.exact, survival_on_grid(s.alphas[name]))
        bias[name] = float(reference.kl(model.as_kernel(data), model.as_kernel(drawn)))
    yield Check("D13", "reveal-ancestral draws q(x_0, z), exact heads", exact)
    yield Check("D13", "reveal-ancestral draws p^alpha, wrong heads", mixed)
    yield Check("D13", "z up front, A = 1: bias, nats", abs(bias["noise"]))
    yield Check("D13", "z up front, linear A: bias, nats", bias["uniform"], PRESENT, at_least=True)


def check_estimator(s: Setting) -> Iterator[Check]:
    """D14: keeping z with probability A_t estimates the bound without Z."""
    from reed_core.bound.solvable import reference
    from reed_core.bound.solvable.model import exact_bound
    from reed_core.bound.terms import draw_kept, expected_denoising, kept_denoising

    paths = s.model.sample(2, s.generator)
    x_0, z, late = paths.x[0, 0], paths.z[0], paths.x[:, 2:]
    costs, worst = reference.head_costs(s.model, s.wrong, x_0, z), 0.0
    for alpha in s.alphas.values():
        A = tails(alpha)
        parts = (1 - A) * costs.unconditional + A * costs.conditional + alpha * costs.alignment
        worst = max(worst, deviation(exact_bound(s.model, s.wrong, x_0, z, alpha).total, costs.ends + parts.sum()))
    yield Check("D14", "L = L without Z", worst)
    posterior, alone = s.model.posterior(late, x_0), s.wrong.unconditional(late, first=2)
    given = s.wrong.conditional(late, z, first=2)
    A = s.rand(*late.shape[:2])
    truth = (1 - A) * reference.kl(posterior, alone) + A * reference.kl(posterior, given)
    hybrid, expected = alone.hybrid(given, A), expected_denoising(posterior, alone, given, A)
    shown, hidden = (kept_denoising(posterior, alone, given, kept) for kept in (A >= 0, A < 0))
    yield Check("D14", "KL(q||p~) - log Z", deviation(posterior.kl(hybrid.kernel) - hybrid.log_normaliser, truth))
    yield Check("D14", "(1-A) KL(q||p_u) + A KL(q||p_c)", deviation(expected, truth))
    yield Check("D14", "mean of one draw of kept", deviation((1 - A) * hidden + A * shown, truth))
    chance, draws = 0.1 + 0.8 * s.rand(), 4000
    share = draw_kept(chance.expand(draws), s.generator).double().mean()
    errors = float((share - chance).abs() / (chance * (1 - chance) / draws).sqrt())
    yield Check("D14", "share of z kept, standard errors from A", errors, STANDARD_ERRORS)


def check_squared_errors(s: Setting) -> Iterator[Check]:
    """D14 in squared errors: the kept error is the mixed one plus a disagreement."""
    from reed_core.bound.terms import split_squared_error

    e, e_u, e_c = s.randn(3, 50, s.model.dim)
    A = s.rand(50)
    split = split_squared_error(e, e_u, e_c, A)
    kept = (1 - A) * (e - e_u).square().sum(-1) + A * (e - e_c).square().sum(-1)
    yield Check("D14", "squared errors: kept", deviation(split.kept, kept))
    yield Check("D14", "squared errors: mixed + disagreement = kept", deviation(split.mixed + split.disagreement, kept))


SHARED = (check_paths, check_bound, check_normaliser, check_divergence, check_information, check_presets)
SHARED += (check_samplers, check_estimator)
CHECKS = {
    "gaussian": (*SHARED, check_normaliser_gaussian, check_scores, check_squared_errors),
    "categorical": (*SHARED, check_logits),
}


def settings(seed: int, dim: int, steps: int) -> Iterator[Setting]:
    """The models of a seed, each with its own stream of random numbers."""
    import torch
    from reed_core.bound.solvable.categorical import CategoricalModel
    from reed_core.bound.solvable.gaussian import GaussianModel
    from reed_core.noise import mix_seed
    from reed_core.reveal import PointMass, Uniform

    gaussians = ("preserving", "exploding", "anisotropic")
    makers = [("gaussian", functools.partial(GaussianModel.random, dim=dim, schedule=name)) for name in gaussians]
    for states in (3, 4):
        make = functools.partial(CategoricalModel.random, states=states, latents=states - 1)
        makers.append(("categorical", make))
    for number, (kind, make) in enumerate(makers):
        generator = torch.Generator().manual_seed(mix_seed(seed, number))
        model = make(generator, steps)
        random = torch.rand(steps, generator=generator, dtype=torch.float64) ** 3
        random[int(torch.randint(steps, (), generator=generator))] = 0.0
        alphas = {
            "uniform": Uniform().on_grid(steps),
            "noise": PointMass(1.0).on_grid(steps),
            "data": PointMass(0.0).on_grid(steps),
            "middle": PointMass(0.5).on_grid(steps),
            "random": random / random.sum(),
        }
        yield Setting(kind, model, model.perturbed(generator), alphas, generator)


def measure(seed: int, dim: int, steps: int) -> list[Check]:
    """Every check on every model of a seed: the worst figure of each, in the order of the labels."""
    found: dict[tuple[str, str], list[Check]] = {}
    for setting in settings(seed, dim, steps):
        for check in CHECKS[setting.kind]:
            for row in check(setting):
                key = (row.label, f"{setting.kind}: {row.what}")
                found.setdefault(key, []).append(row)
    worst = [
        replace(min(rows, key=lambda row: (row.passed, row.margin)), what=what) for (_, what), rows in found.items()
    ]
    return sorted(worst, key=lambda row: int(row.label[1:]))


app = typer.Typer(add_completion=False)


@app.command()
def main(
    seed: Annotated[int, typer.Option(help="Seed of the random models.")] = 0,
    dim: Annotated[int, typer.Option(help="Dimension of x_0 in the Gaussian models, at least 1.")] = 4,
    steps: Annotated[int, typer.Option(help="T, the number of diffusion steps, at least 2.")] = 8,
) -> None:
    """Checks the theory on fresh random models; exits 1 when a check fails."""
    if dim < 1 or steps < 2:
        raise InputError(f"got --dim {dim} --steps {steps}; expected dim >= 1 and steps >= 2")
    checks = measure(seed, dim, steps)
    print(f"seed {seed}, {dim} dimensions, {steps} steps, float64")
    for check in checks:
        sign, verdict = (">=" if check.at_least else "<="), ("pass" if check.passed else "FAIL")
        print(f"{check.label:<4} {check.what:<64} {check.value:9.2e} {sign} {check.limit:.0e}  {verdict}")
    failed = sum(not check.passed for check in checks)
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    run(app)
