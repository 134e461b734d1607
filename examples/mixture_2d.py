"""A 2-D mixture, learned without a latent, with one, and with the same one shuffled.

Prints a table and draws a picture:

    x         48 Gaussians of width 0.06: six around each of eight points of a circle
    z         128 random Fourier features of x_0, cosine head: what a frozen random network sees, no labels
    arms      no latent; z of another sample (it says nothing about x); z. The same initial weights, data, order, times,
              noise and number of steps in all three; the projector is thrown away after training
    error     E |v - v*|^2 per coordinate on held-out data; v* = E[v | x_t] is known exactly for a mixture, so 0 is
              perfect. (The training loss compares with eps - x_0 of one draw; no network can bring that to 0)
    strays    share of samples (Heun, averaged weights) more than three widths away from every centre; 1.1 % of the data
    distance  energy distance between samples and held-out data; coarse: it hardly sees the small rings

    python examples/mixture_2d.py --out mixture_2d.png        (needs matplotlib)
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from jaxtyping import Float
from reed_core import console, presets
from reed_core.errors import InputError
from reed_core.files import write_with
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from reed_core.representation import ModuleEncoder
from reed_core.sample import integrate
from reed_core.train.ema import Ema
from torch import Tensor, nn
from torch.nn import functional as F

ARMS = ("no latent", "shuffled", "guided")
POINTS, BATCH, RATE = 16384, 128, 3e-3
PROCESS = Interpolant()


class Mixture:
    """Equally likely Gaussians of one width in the plane."""

    def __init__(self) -> None:
        outer, inner = (torch.arange(count) * (2 * math.pi / count) for count in (8, 6))
        ring = torch.stack([outer.cos(), outer.sin()], -1)
        small = torch.stack([inner.cos(), inner.sin()], -1)
        self.centres = (1.4 * ring[:, None] + 0.32 * small).flatten(0, 1)
        self.width = 0.06

    def sample(self, count: int, seed: int) -> Float[Tensor, "n 2"]:
        """Draws points."""
        generator = torch.Generator().manual_seed(seed)
        which = torch.randint(len(self.centres), (count,), generator=generator)
        return self.centres[which] + self.width * torch.randn(count, 2, generator=generator)

    def velocity(self, x_t: Float[Tensor, "n 2"], t: Float[Tensor, "n"]) -> Float[Tensor, "n 2"]:
        """E[eps - x_0 | x_t] = (x_t - E[x_0 | x_t]) / t of the linear path, by Bayes' rule over the Gaussians."""
        signal, noise = (1 - t)[:, None], t[:, None]
        variance = (signal * self.width) ** 2 + noise**2
        away = x_t[:, None] - signal[..., None] * self.centres
        share = torch.softmax(-away.square().sum(-1) / (2 * variance), -1)
        within = signal * self.width**2 / variance * torch.einsum("nk,nkd->nd", share, away)
        return (x_t - share @ self.centres - within) / noise

    def strays(self, points: Float[Tensor, "n 2"]) -> float:
        """Share of points more than three widths away from every centre."""
        return (torch.cdist(points, self.centres).amin(1) > 3 * self.width).float().mean().item()


class Block(nn.Module):
    """One residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, hidden: Tensor) -> Tensor:
        """The hidden state after this block."""
        return hidden + self.layers(hidden)


class Denoiser(nn.Module):
    """A small residual network that predicts the velocity; nothing in it knows of latents."""

    def __init__(self, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.inlet = nn.Linear(2 + 2 * 4 + 2 * 8, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.outlet = nn.Linear(width, 2)

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        """The velocity at x_t [b, 2] and t [b]."""
        place = torch.cat([x_t * math.pi / 2, x_t * math.pi], -1)
        clock = t[:, None] * torch.arange(1, 9, device=t.device) * math.pi / 2
        features = [x_t, place.sin(), place.cos(), clock.sin(), clock.cos()]
        return self.outlet(self.blocks(self.inlet(torch.cat(features, -1))))


class Fourier(nn.Module):
    """Random Fourier features: sin and cos of random projections."""

    def __init__(self, dim: int = 128, scale: float = 8.0) -> None:
        super().__init__()
        frequency = scale * torch.randn(2, dim // 2, generator=torch.Generator().manual_seed(5))
        self.frequency = nn.Parameter(frequency)

    def forward(self, x: Tensor) -> Tensor:
        """The features of x [b, 2], [b, dim]."""
        phase = x @ self.frequency
        return torch.cat([phase.sin(), phase.cos()], -1)


ENCODER = ModuleEncoder("fourier", Fourier(), dim=128, level="global")
LATENT = Latent("fourier", tap="blocks.1", tap_dim=64, dim=128, level="global", weight=10.0, layers=1)


@dataclass(frozen=True)
class Arm:
    """What one training run starts from."""

    denoiser: Denoiser
    objective: Objective
    x: Float[Tensor, "n 2"]
    z: Float[Tensor, "n 128"] | None


class Curve(NamedTuple):
    """What was measured at each mark, and the last samples."""

    error: list[float]
    strays: list[float]
    distance: list[float]
    samples: Tensor


def set_up(arm: str, seed: int) -> Arm:
    """Data, latent, network and objective of an arm; everything but the latent is the same for a seed."""
    x = Mixture().sample(POINTS, 1000 + seed)
    z = ENCODER(x).z
    if arm == "shuffled":
        z = z[torch.randperm(POINTS, generator=torch.Generator().manual_seed(2000 + seed))]
    torch.manual_seed(seed)
    denoiser = Denoiser()
    if arm == "no latent":
        return Arm(denoiser, presets.none(PROCESS), x, None)
    return Arm(denoiser, presets.repa(PROCESS, LATENT), x, z)


def train(arm: str, seed: int, steps: int, marks: Sequence[int], count: int) -> Curve:
    """Trains one arm, in one thread; measures at the marks with `count` samples."""
    torch.set_num_threads(1)
    run = set_up(arm, seed)
    net, objective, curve = run.denoiser, run.objective, Curve([], [], [], torch.empty(0))
    optimizer = torch.optim.Adam([*net.parameters(), *objective.parameters()], lr=RATE, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50, (steps - step) / (0.3 * steps))
    )
    ema = Ema(net, 0.99)
    order = torch.randint(POINTS, (steps, BATCH), generator=torch.Generator().manual_seed(3000 + seed))
    for step in range(steps):
        items, n = order[step], step * BATCH
        z = None if run.z is None else {LATENT.name: Representation(run.z[items])}
        loss = objective(net, run.x[items], NoiseSource(seed, range(n, n + BATCH)), z=z, n=n)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
        ema.update(step + 1)
        if step + 1 in marks:
            ema.swap()
            curve = measure(net, curve, count)
            ema.swap()
    return curve


@torch.no_grad()
def measure(net: Denoiser, before: Curve, count: int) -> Curve:
    """Adds one mark to a curve. Held-out data, times and noise are the same for all arms and seeds."""
    mixture, noise = Mixture(), NoiseSource(4000, range(2 * count))
    held_out = mixture.sample(2 * count, 4000)
    corrupted = PROCESS.corrupt(held_out, PROCESS.sample_time(noise), noise)
    exact = mixture.velocity(corrupted.x_t, corrupted.t)
    error = (net(corrupted.x_t, corrupted.t) - exact).square().mean().item()
    samples = integrate(PROCESS, net, PROCESS.prior(held_out[:count], NoiseSource(5000, range(count))), steps=20)
    distance = energy_distance(samples, held_out[count:])
    return Curve(
        [*before.error, error], [*before.strays, mixture.strays(samples)], [*before.distance, distance], samples
    )


def energy_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|, unbiased: 0 in expectation if a and b are of one distribution."""
    same = [F.pdist(points).mean() for points in (a, b)]
    return (2 * torch.cdist(a, b).mean() - same[0] - same[1]).item()


def spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the first axis (the seeds); 0 for a single seed."""
    return values.mean(0), values.std(0, correction=1 if len(values) > 1 else 0)


def steps_to(curve: Sequence[float], marks: Sequence[int], level: float) -> float:
    """The number of steps at which a falling curve first reaches a level, linear between marks; inf if it does not."""
    for i, value in enumerate(curve):
        if value <= level:
            share = 0.0 if i == 0 else (curve[i - 1] - level) / (curve[i - 1] - value)
            return marks[i] if i == 0 else marks[i - 1] + share * (marks[i] - marks[i - 1])
    return math.inf


def report(curves: dict[str, list[Curve]], marks: Sequence[int]) -> str:
    """The table: each measure at each mark, and the steps to the error that the arm without a latent ends with."""
    shown = [i for i in range(len(marks)) if i == 0 or i % 2 == 1]
    lines = [f"mean +- standard deviation of {len(curves[ARMS[0]])} seeds"]
    for name, unit in (("error", "x 1000"), ("strays", "%"), ("distance", "x 1000")):
        lines += ["", f"{f'{name}, {unit}':17s}" + "".join(f"{f'step {marks[i]}':>15s}" for i in shown)]
        for arm in ARMS:
            mean, deviation = spread(torch.tensor([getattr(curve, name) for curve in curves[arm]]))
            factor = 100 if unit == "%" else 1000
            cells = (f"{factor * mean[i]:.1f} +- {factor * deviation[i]:.1f}" for i in shown)
            lines.append(f"{arm:17s}" + "".join(f"{cell:>15s}" for cell in cells))
    lines += ["", f"steps to the error of '{ARMS[0]}' at step {marks[-1]}, seed by seed"]
    for arm in ARMS[1:]:
        pairs = zip(curves[arm], curves[ARMS[0]], strict=True)
        needed = [steps_to(curve.error, marks, plain.error[-1]) for curve, plain in pairs]
        lines.append(f"{arm:17s}" + ", ".join("not reached" if math.isinf(n) else f"{n:.0f}" for n in needed))
    return "\n".join(lines)


def draw(curves: dict[str, list[Curve]], marks: Sequence[int], out: Path) -> None:
    """Draws learning curves with their spread, and the last samples of the first seed.

    Raises:
        InputError: If matplotlib is missing, or the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("matplotlib is not installed; pip install matplotlib") from error
    colours, mixture = dict(zip(ARMS, ("#7a7a7a", "#d98200", "#0a5fb4"), strict=True)), Mixture()
    figure = Figure(figsize=(11, 6.9), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    panels = (("error", "error of the velocity", 1), ("strays", "samples off every mode, %", 100))
    for axes, (name, label, factor) in zip(top.subplots(1, 2), panels, strict=True):
        for arm in ARMS:
            mean, deviation = spread(factor * torch.tensor([getattr(curve, name) for curve in curves[arm]]))
            style = "--" if arm == "shuffled" else "-"
            axes.plot(marks, mean, style, color=colours[arm], label=arm, marker="o", markersize=3)
            axes.fill_between(marks, mean - deviation, mean + deviation, color=colours[arm], alpha=0.25, linewidth=0)
        axes.set(xlabel="training steps", ylabel=label, ylim=(0, None))
        if name == "strays":
            axes.axhline(100 * mixture.strays(mixture.sample(POINTS, 6000)), color="black", lw=1, ls=":", label="data")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    clouds = {"data": mixture.sample(len(curves[ARMS[0]][0].samples), 6000)}
    clouds |= {arm: curves[arm][0].samples for arm in ARMS}
    for axes, (name, points) in zip(bottom.subplots(1, 4), clouds.items(), strict=True):
        axes.scatter(*points.T, s=1.5, color=colours.get(name, "black"), alpha=0.5, linewidths=0)
        axes.set(title=name, xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), aspect="equal", xticks=[], yticks=[])
    top.suptitle(f"a mixture of {len(mixture.centres)} Gaussians; mean and spread of {len(curves[ARMS[0]])} seeds")
    write_with(out, lambda aside: figure.savefig(aside, dpi=110))


app = typer.Typer(add_completion=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="The picture, a PNG file.")] = Path("mixture_2d.png"),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per arm.")] = 3,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    steps: Annotated[int, typer.Option(min=10, help="Training steps.")] = 1600,
    quick: Annotated[bool, typer.Option("--quick", help="A trial run: 40 steps, two seeds, few samples.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
) -> None:
    """A 2-D mixture learned without a latent, with a shuffled one and with one: a table and a picture."""
    if quick:
        steps, seeds = 40, 2
    count, marks = 200 if quick else 2000, [max(1, steps * part // 8) for part in range(1, 9)]
    runs = [(arm, seed, steps, marks, count) for seed in range(first_seed, first_seed + seeds) for arm in ARMS]
    if workers == 1:
        found = [train(*run) for run in runs]
    else:
        with ProcessPoolExecutor(min(workers, len(runs)), get_context("spawn")) as pool:
            found = list(pool.map(train, *zip(*runs, strict=True)))
    curves: dict[str, list[Curve]] = {arm: [] for arm in ARMS}
    for (arm, *_), curve in zip(runs, found, strict=True):
        curves[arm].append(curve)
    print(report(curves, marks))
    draw(curves, marks, out)


if __name__ == "__main__":
    console.run(app)
