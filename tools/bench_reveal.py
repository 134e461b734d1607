"""THEORY D13 on a trained model: reveal-ancestral sampling against the hybrid chain with z drawn up front.

    uv run tools/bench_reveal.py --seeds 0,1,2        (about 4 minutes on one core)

x is the 48-component mixture of tools/preset_bench, z the ring a point belongs to (8 classes). One network is trained
with z told with probability A(t) = 1 - t (explicit, uniform reveal) and a head p(z | x_t). From the same weights and
the same noise it then samples, with the same number of steps:

    reveal-ancestral   tau ~ alpha, p_u down to tau, z ~ p(z | x_tau), p_c from there (exact for exact heads)
    naive hybrid       z ~ p(z | x_1) first, then p~ = p_u^(1-A) p_c^A all the way (biased unless A = 1)
    unconditional      p_u alone: what the network itself gets wrong
and prints moments of (x, z) beside those of the data; mu_z is the centre of ring z:

    E|x|^2, E x.mu_z, share of x in ring z, share of strays (away from every component), energy distance of x
"""

import math
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated

import typer
from reed_core.console import run

if TYPE_CHECKING:
    from torch import Tensor

FIGURES = ("E|x|^2", "E x.mu_z", "in ring z, %", "strays, %", "distance x1000")


def figures(x: "Tensor", z: "Tensor | None", data: "Tensor") -> list[float]:
    """The moments of some samples; those of (x, z) are not a number without z."""
    import torch
    from preset_bench.measure import energy_distance
    from preset_bench.tasks import Rings

    rings = Rings()
    ring = rings.centres.reshape(8, 6, 2).mean(1)
    away = torch.cdist(x, rings.centres)
    strays = 100 * float((away.amin(1) > 3 * rings.WIDTH).float().mean())
    along = agree = float("nan")
    if z is not None:
        along = float((x * ring[z]).sum(-1).mean())
        agree = 100 * float((away.argmin(1) // 6 == z).float().mean())
    return [float(x.square().sum(-1).mean()), along, agree, strays, 1000 * energy_distance(x, data)]


def run_seed(seed: int, steps: int, samples: int, scale: float) -> dict[str, list[float]]:
    """Trains one model and samples it in every way."""
    from dataclasses import replace

    import torch
    from preset_bench.arms import Arm, coarse, told
    from preset_bench.measure import train
    from preset_bench.tasks import PROCESS, TASKS
    from reed_core.noise import NoiseSource
    from reed_core.objective import Objective
    from reed_core.reveal import Uniform
    from reed_core.sample import Hybrid, ReadoutSource, ancestral, draw_latents, reveal_ancestral

    task = TASKS["mixture"](seed)
    torch.manual_seed(seed)
    latent = replace(coarse(task, tap="blocks.0"), injection="explicit", reveal=Uniform())
    network, objective = told(task, [latent]), Objective(PROCESS, [latent])
    arm = Arm(lambda task: (network, objective), {"coarse": "coarse"})
    train(task, arm, network, objective, arm.values(task, seed), seed, scale)[2].swap()
    network.eval()
    source = ReadoutSource(objective, network)

    def fresh() -> "tuple[NoiseSource, Tensor]":
        noise = NoiseSource(5000 + seed, range(samples))
        return noise, PROCESS.prior(torch.zeros(samples, 2), noise)

    held_out, other = task.held_out[:samples], task.held_out[samples : 2 * samples]
    found = {"data": figures(held_out, task.seen_held_out["coarse"][:samples], other)}
    noise, start = fresh()
    drawn = reveal_ancestral(PROCESS, network, source, objective.latents, start, steps, noise)
    found["reveal-ancestral"] = figures(drawn.x, drawn.z["coarse"].z, held_out)
    noise, start = fresh()
    with torch.no_grad():
        z = draw_latents(PROCESS, source, objective.latents, start, noise)
        naive = ancestral(PROCESS, Hybrid(network, z, {"coarse": latent.reveal.survival}), start, steps, noise)
        found["naive hybrid"] = figures(naive, z["coarse"].z, held_out)
        noise, start = fresh()
        found["unconditional"] = figures(ancestral(PROCESS, network, start, steps, noise), None, held_out)
    return found


def main(
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    steps: Annotated[int, typer.Option(help="Sampling steps.", min=2)] = 128,
    samples: Annotated[int, typer.Option(help="Samples, at most 2048.", min=16, max=2048)] = 2048,
    scale: Annotated[float, typer.Option(help="Training steps as a multiple of the task's.", min=0.0)] = 4.0,
) -> None:
    """Prints the table."""
    import torch
    from rich.progress import track

    torch.set_num_threads(1)
    numbers = [int(seed) for seed in seeds.split(",")]
    results = [run_seed(seed, steps, samples, scale) for seed in track(numbers, "models", transient=True)]
    typer.echo(f"{steps} steps, {samples} samples, seeds {seeds}; mean ± standard deviation over seeds\n")
    typer.echo("| | " + " | ".join(FIGURES) + " |\n" + "|---" * (len(FIGURES) + 1) + "|")
    for name in results[0]:
        row = []
        for index in range(len(FIGURES)):
            values = [result[name][index] for result in results]
            if math.isnan(values[0]):
                row.append("")
                continue
            deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            row.append(f"{mean(values):.2f}{deviation}")
        typer.echo(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
