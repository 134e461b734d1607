"""The figures of docs/theory.md, drawn from reed_core's own functions on models whose every distribution is known.

    uv run tools/theory_figures.py --out docs/figures --seed 0

Writes

    theory_reveal.png      reveal densities alpha(t) and their survivals A(t)
    theory_hybrid.png      p_u, p_c and their hybrid p~; -log Z between its bounds as A runs from 0 to 1      (D5)
    theory_terms.png       what alignment pays and denoising saves (D8); the terms of the bound for several alpha (D4)
    theory_samplers.png    q(x_0, z) and what the naive chain draws; its bias as the number of steps grows    (D13)
    theory_cosine.png      the best attainable cosine at each t, of a coarse and of a fine latent             (D11)

Nothing is trained. --seed draws the random model of theory_terms and the samples of theory_cosine; the others have no
random number. Needs matplotlib.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from reed_core.console import run
from reed_core.errors import InputError

if TYPE_CHECKING:
    from reed_core.bound.solvable.categorical import CategoricalModel
    from reed_core.bound.solvable.gaussian import GaussianModel
    from reed_core.bound.solvable.model import Heads
    from reed_core.reveal import RevealDensity
    from torch import Tensor

BLUE, RED, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"  # Okabe, Ito
GREY, LIGHT = "#6b6b6b", "#c4c4c4"
TIME = "diffusion time t  (0 = data, 1 = noise)"
STEPS = 24


def draw_reveal(figure: Any, seed: int) -> None:
    """Reveal densities and their survivals."""
    import torch
    from reed_core.reveal import Beta, Cosine, Cutoff, PointMass, Uniform

    t = torch.linspace(0.0, 1.0, 1001, dtype=torch.float64)
    left, right = figure.subplots(1, 2)
    curves: dict[str, tuple[RevealDensity, str, str]] = {
        "Uniform()": (Uniform(), BLUE, "-"),
        "Beta(1, 2)": (Beta(1.0, 2.0), RED, "-"),
        "Beta(2, 1)": (Beta(2.0, 1.0), GREEN, "-"),
        "Cosine()": (Cosine(), ORANGE, "--"),
        "Cutoff(0.3, 0.8)": (Cutoff(0.3, 0.8), PINK, "-"),
    }
    for label, (reveal, colour, style) in curves.items():
        left.plot(t, reveal.density(t), style, color=colour, linewidth=2)
        right.plot(t, reveal.survival(t), style, color=colour, linewidth=2, label=label)
    atom = PointMass(1.0)
    left.annotate("", (1.0, 2.35), (1.0, 0.0), arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 2})
    left.text(0.975, 2.22, "PointMass(1.0)", ha="right", va="center")
    right.plot(t, atom.survival(t), color="black", linewidth=2, label="PointMass(1.0)")
    left.set(xlabel=TIME, ylabel=r"reveal density $\alpha(t)$", xlim=(0, 1.03), ylim=(0, 2.4))
    right.set(xlabel=TIME, ylabel=r"survival $A(t) = P(\tau \geq t)$", xlim=(0, 1.03), ylim=(0, 1.03))
    right.legend(frameon=False, loc="lower left", fontsize=9)


def draw_hybrid(figure: Any, seed: int) -> None:
    """The hybrid of two Gaussians of unlike width, and its normaliser."""
    import torch
    from reed_core.bound.divergence import normaliser_bounds
    from reed_core.bound.kernels import GaussianKernel

    def gaussian(mean: float, deviation: float) -> GaussianKernel:
        return GaussianKernel.isotropic(torch.tensor([mean], dtype=torch.float64), deviation**2)

    alone, given = gaussian(-1.0, 0.9), gaussian(1.2, 0.45)
    left, right = figure.subplots(1, 2)
    x = torch.linspace(-4.0, 3.2, 721, dtype=torch.float64)
    shades = {0.25: SKY, 0.5: GREEN, 0.75: ORANGE}
    curves = {r"$p_u$": (alone, BLUE, 2.5), r"$p_c$": (given, RED, 2.5)}
    curves |= {rf"$\tilde p$, A = {A:g}": (alone.hybrid(given, A).kernel, shade, 1.5) for A, shade in shades.items()}
    for label, (kernel, colour, width) in curves.items():
        left.plot(x, kernel.log_prob(x[:, None]).exp(), color=colour, linewidth=width, label=label)
    left.set(xlabel=r"$x_{t-1}$", ylabel="density", xlim=(-4, 3.2), ylim=(0, None))
    left.legend(frameon=False, loc="upper left", fontsize=9)
    A = torch.linspace(0.0, 1.0, 201, dtype=torch.float64)
    many, more = (GaussianKernel(k.mean.expand(201, 1), k.covariance.expand(201, 1, 1)) for k in (alone, given))
    cost, bounds = -many.hybrid(more, A).log_normaliser, normaliser_bounds(many, more, A)
    right.fill_between(A, bounds.lower, bounds.upper, color=GREY, alpha=0.18, linewidth=0)
    right.plot(A, bounds.upper, "--", color=GREY, label=r"$\min\{A\,KL(p_u|p_c),\ (1-A)\,KL(p_c|p_u)\}$")
    right.plot(A, cost, color="black", linewidth=2.5, label=r"$-\log Z$")
    right.plot(A, bounds.lower, ":", color=GREY, linewidth=2, label=r"$2\,\min(A, 1-A)\,B$")
    for value, shade in shades.items():
        right.plot(value, -alone.hybrid(given, value).log_normaliser, "o", color=shade, markersize=8)
    right.set(xlabel="survival A", ylabel="nats", xlim=(0, 1), ylim=(0, float(bounds.upper.max()) * 1.35))
    right.legend(frameon=False, loc="upper left", fontsize=9)


def draw_terms(figure: Any, seed: int) -> None:
    """D8 as a staircase, D4 as bars of one height."""
    import torch
    from reed_core.bound.divergence import reveal_cost, reveal_saving
    from reed_core.bound.solvable.categorical import CategoricalModel
    from reed_core.reveal import Beta, PointMass, Uniform

    model = CategoricalModel.random(torch.Generator().manual_seed(seed), STEPS, states=8, latents=4)
    known = model.information()
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    entropy = torch.cat([known.entropy_clean[None], known.entropy])
    saved = torch.cat([torch.zeros(1, dtype=torch.float64), known.gain.cumsum(0)])
    t = torch.arange(STEPS + 1) / STEPS
    left.step(t, known.entropy_clean + saved, where="mid", color=GREEN, linewidth=1.5)
    left.plot(t, entropy, "o", color=RED, markersize=4)
    left.axhline(float(known.entropy_clean), color=GREY, linewidth=1, linestyle=":")
    left.text(0.99, float(known.entropy_clean) - 0.01, r"$H(z|x_0)$", ha="right", va="top", color=GREY)
    at = PointMass(0.5).on_grid(STEPS)
    floor, paid = float(known.entropy_clean), float(reveal_cost(known.entropy, known.entropy_clean, at))
    left.annotate("", (0.5, floor + paid), (0.5, floor), arrowprops={"arrowstyle": "<->", "linewidth": 1.2})
    both = f"{paid:.2f} nats:\npaid by alignment at\n" + r"$\tau=0.5$, and saved by" + "\ndenoising below it"
    left.text(0.53, floor + 0.45 * paid, both, va="center", fontsize=9)
    left.plot([], [], "o", color=RED, markersize=4, label=r"$H(z|x_t)$")
    left.plot([], [], color=GREEN, label=r"$H(z|x_0)+\sum_{s\leq t} I(x_{s-1};z|x_s)$")
    left.legend(frameon=False, loc="upper center", fontsize=9, bbox_to_anchor=(0.5, 1.19), ncols=2)
    left.set(xlabel=TIME, ylabel="nats", xlim=(-0.02, 1.02), ylim=(floor - 0.12, None))
    alphas: dict[str, RevealDensity] = {
        "atom at\ndata": PointMass(0.0),
        "Beta\n(1, 3)": Beta(1.0, 3.0),
        "uniform": Uniform(),
        "Beta\n(3, 1)": Beta(3.0, 1.0),
        "atom at\nnoise": PointMass(1.0),
    }
    columns = {label: mean_terms(model, model.exact, alpha.on_grid(STEPS)) for label, alpha in alphas.items()}
    uniform = Uniform().on_grid(STEPS)
    columns["uniform,\nimplicit"] = mean_terms(model, untold(model.exact), uniform)
    bottom = torch.zeros(len(columns))
    shades = (GREY, SKY, GREEN, ORANGE, RED)
    names = ("prior", "reconstruction", r"denoising  $KL(q|\tilde p)$", r"$-\log Z$", "alignment")
    heights = torch.stack(list(columns.values()))
    for name, shade, part in zip(names, shades, heights.T, strict=True):
        right.bar(list(columns), part, 0.72, bottom, color=shade, label=name)
        bottom = bottom + part
    total = float(-(model.data * model.data.log()).sum())
    right.axhline(total, color="black", linewidth=1.2, linestyle="--")
    right.text(-0.42, total + 0.04, r"$H(x_0,z)$", va="bottom")
    gap = float(reveal_saving(known.gain, uniform))
    right.annotate("", (5, total + gap), (5, total), arrowprops={"arrowstyle": "<->", "linewidth": 1.2})
    right.text(4.5, total + 0.5 * gap, f"{gap:.2f}:\nnot saved", ha="right", va="center", fontsize=9)
    right.tick_params(axis="x", labelsize=8.5, length=0)
    right.set(ylabel=r"$L_{VB}^z$, nats", ylim=(0, 1.14 * float(heights.sum(1).max())))
    right.legend(frameon=False, loc="upper center", fontsize=8.5, ncols=3, bbox_to_anchor=(0.48, 1.19))


def mean_terms(model: "CategoricalModel", heads: "Heads", alpha: "Tensor") -> "Tensor":
    """The terms of the bound averaged over q(x_0, z): prior, reconstruction, denoising, -log Z, alignment."""
    import torch
    from reed_core.bound.solvable.model import exact_bound

    total = torch.zeros(5, dtype=torch.float64)
    pairs = torch.cartesian_prod(*map(torch.arange, model.data.shape))
    for (x_0, z), chance in zip(pairs, model.data.flatten(), strict=True):
        terms = exact_bound(model, heads, x_0, z, alpha)
        parts = (terms.prior, terms.reconstruction, terms.denoising, -terms.log_normaliser, terms.alignment)
        total = total + chance * torch.stack([part.sum() for part in parts])
    return total


def untold(heads: "Heads") -> "Heads":
    """Implicit injection: the denoiser never sees z, so that p_c = p_u."""
    from dataclasses import replace

    from reed_core.bound.solvable.categorical import TableHead

    alone, latents = heads.unconditional.log_probs, heads.alignment.log_probs.shape[-1]
    return replace(heads, conditional=TableHead(alone[:, :, None].expand(-1, -1, latents, -1)))


def draw_samplers(figure: Any, seed: int) -> None:
    """D13: the law of (x_0, z) by ellipses, and the divergence from q over the number of steps."""
    import torch
    from reed_core.bound.solvable.model import naive_law, reveal_ancestral_law
    from reed_core.reveal import Beta, PointMass, Uniform, survival_on_grid

    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    model = line(256)
    uniform = Uniform().on_grid(256)
    laws = {
        r"data $q(x_0,z)$": (model.data_law(), LIGHT, "-", 6.0),
        "reveal-ancestral": (reveal_ancestral_law(model, model.exact, uniform), BLUE, "-", 1.5),
        "naive chain": (naive_law(model, model.exact, survival_on_grid(uniform)), RED, "-", 1.5),
    }
    angle = torch.linspace(0.0, 2.0 * math.pi, 201, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()])
    for label, (law, colour, style, width) in laws.items():
        root = torch.linalg.cholesky(model.as_kernel(law).covariance)
        for radius in (1.0, 2.0):
            x, z = radius * root @ circle
            left.plot(x, z, style, color=colour, linewidth=width, label=label if radius == 1.0 else None)
    left.set(xlabel=r"$x_0$", ylabel="z", aspect="equal", xlim=(-2.6, 2.6), ylim=(-3.0, 3.7))
    left.legend(frameon=False, loc="upper left", fontsize=9)
    counts = [2**power for power in range(1, 10)]
    alphas: dict[str, tuple[RevealDensity, str, str]] = {
        r"naive, Beta(1, 2), $A=(1-t)^2$": (Beta(1.0, 2.0), ORANGE, "^"),
        r"naive, uniform, $A=1-t$": (Uniform(), RED, "o"),
        r"naive, Beta(2, 1), $A=1-t^2$": (Beta(2.0, 1.0), PINK, "v"),
        r"naive, atom at noise, $A=1$": (PointMass(1.0), GREEN, "x"),
    }
    for label, (reveal, colour, marker) in alphas.items():
        bias = [divergence(count, reveal, naive=True) for count in counts]
        right.plot(counts, bias, marker=marker, color=colour, label=label, linewidth=1.5, markersize=6)
    exact = [divergence(count, Uniform(), naive=False) for count in counts]
    right.plot(counts, exact, marker="s", color=BLUE, label="reveal-ancestral, uniform", linewidth=1.5, markersize=3.5)
    right.set(xscale="log", xlabel="number of steps T", ylim=(-0.012, None))
    right.set_ylabel(r"KL($q(x_0,z)$ | what is drawn), nats")
    right.set_xticks(counts, [str(count) for count in counts])
    right.minorticks_off()
    right.legend(frameon=False, loc="upper left", fontsize=9, bbox_to_anchor=(0.44, 0.79))


def line(steps: int) -> "GaussianModel":
    """x_0 ~ N(0, 1), z = x_0 + N(0, 0.1) on the linear path x_t = (1-t) x_0 + t eps, cut into steps."""
    import torch
    from reed_core.bound.solvable.gaussian import GaussianModel

    t = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
    scale = (1.0 - t[1:]) / (1.0 - t[:-1])
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    noise = (t[1:] ** 2 - (scale * t[:-1]) ** 2)[:, None, None]
    return GaussianModel(zero, one, one, zero, 0.1 * one, scale, noise)


def divergence(steps: int, reveal: "RevealDensity", naive: bool) -> float:
    """KL from q(x_0, z) to what a sampler with exact heads draws, in nats."""
    from reed_core.bound.solvable.model import naive_law, reveal_ancestral_law
    from reed_core.reveal import survival_on_grid

    model, alpha = line(steps), reveal.on_grid(steps)
    if naive:
        law = naive_law(model, model.exact, survival_on_grid(alpha))
    else:
        law = reveal_ancestral_law(model, model.exact, alpha)
    return float(model.as_kernel(model.data_law()).kl(model.as_kernel(law)))


def draw_cosine(figure: Any, seed: int) -> None:
    """The ceiling of two latents of a mixture of mixtures: bounds from samples, and the truth."""
    import torch
    from reed_core.diagnose import attainable_cosine
    from reed_core.latent import Representation
    from reed_core.noise import NoiseSource
    from reed_core.process import Interpolant

    process, count = Interpolant(), 400
    generator = torch.Generator().manual_seed(seed)
    ring = [torch.arange(n, dtype=torch.float64) * (2 * math.pi / n) for n in (8, 6)]
    outer, inner = (torch.stack([a.cos(), a.sin()], -1) for a in ring)
    centres, width = (1.4 * outer[:, None] + 0.32 * inner).flatten(0, 1), 0.06
    directions = {"coarse": outer.repeat_interleave(6, 0), "fine": inner.repeat(8, 1)}

    def points(number: int) -> "tuple[Tensor, Tensor]":
        which = torch.randint(48, (number,), generator=generator)
        noise = torch.randn(number, 2, generator=generator, dtype=torch.float64)
        return which, centres[which] + width * noise

    def truth(time: "Tensor", direction: "Tensor") -> float:
        """E|E[u|x_t]|, by the posterior over the 48 Gaussians, at draws of x_t."""
        x_0 = points(8000)[1]
        x_t = (1 - time) * x_0 + time * torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
        variance = ((1 - time) * width) ** 2 + time**2
        share = torch.softmax(-torch.cdist(x_t, (1 - time) * centres).square() / (2 * variance), -1)
        return float((share @ direction).norm(dim=-1).mean())

    times = torch.linspace(0.01, 0.99, 41, dtype=torch.float64)
    which, x_0 = points(count)
    axes = figure.subplots()
    for (name, direction), colour in zip(directions.items(), (BLUE, RED), strict=True):
        z = Representation(direction[which])
        found = attainable_cosine(process, x_0, z, times.tolist(), NoiseSource(seed, range(count)), draws=8)
        low, high = found.lower - found.lower_error, found.upper + found.upper_error
        label = f"{name}: bounds from {count} samples, ± 1 SE"
        axes.fill_between(times, low.clamp(min=0.0), high, color=colour, alpha=0.3, linewidth=0, label=label)
        exact = [truth(time, direction) for time in times]
        axes.plot(times, exact, color=colour, linewidth=1.5, label=f"{name}: truth")
    axes.set(xlabel=TIME, ylabel="best attainable mean cosine with z", xlim=(0, 1), ylim=(0, 1.03))
    axes.legend(frameon=False, loc="upper right", fontsize=9)


FIGURES: dict[str, tuple[Callable[[Any, int], None], tuple[float, float]]] = {
    "theory_reveal.png": (draw_reveal, (8.4, 3.4)),
    "theory_hybrid.png": (draw_hybrid, (8.4, 3.5)),
    "theory_terms.png": (draw_terms, (9.4, 4.2)),
    "theory_samplers.png": (draw_samplers, (8.8, 4.0)),
    "theory_cosine.png": (draw_cosine, (6.8, 3.7)),
}

app = typer.Typer(add_completion=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder of the pictures, made if need be.")] = Path("docs/figures"),
    seed: Annotated[int, typer.Option(help="Seed of the random model and of the samples.")] = 0,
) -> None:
    """Draws the figures of docs/theory.md."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("matplotlib is not installed; pip install matplotlib") from error
    from reed_core.files import write_with

    out.mkdir(parents=True, exist_ok=True)
    style = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
    with matplotlib.rc_context({**style, "grid.alpha": 0.25, "axes.axisbelow": True}):
        for name, (draw, size) in FIGURES.items():
            figure = Figure(figsize=size, layout="constrained", facecolor="white")
            draw(figure, seed)
            write_with(out / name, lambda aside, figure=figure: figure.savefig(aside, dpi=120))
            print(out / name)


if __name__ == "__main__":
    run(app)
