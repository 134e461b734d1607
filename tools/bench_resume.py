"""Kills training with SIGKILL at random moments, resumes it, and compares the end with a run that was left alone.

    uv run tools/bench_resume.py                                   (20 kills; 600 steps are trained twice)
    uv run tools/bench_resume.py --quick                           (3 kills)
    uv run tools/bench_resume.py --processes 2 --parallel fsdp     (torchrun, gloo: all processes killed)
    uv run tools/bench_resume.py --domain protein                  (reed-protein train on the chains of REED_DATA)

Checkpoints are written every step, so that many kills hit a writer: `writing` counts those that left an unfinished
checkpoint, or an old one half removed, behind. After every kill the newest checkpoint must be whole. At the end
weights, averages, optimiser state, counters and log must be those of the uninterrupted run, bit for bit. Exit code 1
if anything is not so.
"""

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from reed_core.console import run
from reed_core.errors import InputError

TOOLS = Path(__file__).parent
RECIPE = "packages/reed-protein/src/reed_protein/recipes/reed-protein-small.toml"
STEPS = {"toy": 30, "protein": 6}
"""Steps of a run for each kill."""
SAMPLES = {"toy": 4, "protein": 4}
"""Samples of a step, about."""


def programs(domain: str, processes: int, parallel: str, samples: int) -> Callable[[Path], list[str]]:
    """The command that trains in a folder."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    if domain == "toy":
        options = ["--samples", str(samples), "--every", "1", "--parallel", parallel]
        return lambda folder: [*start, str(TOOLS / "resume_bench" / "toy.py"), str(folder), *options]
    settings = [f"train.{name}" for name in (f"samples={samples}", "checkpoint_every=1", "log_every=1")]
    settings += [f"train.parallel={parallel}"]
    options = [*(part for setting in settings for part in ("--set", setting)), "--threads", "1"]
    recipe = str(TOOLS.parent / RECIPE)
    return lambda folder: [*start, "-m", "reed_protein.cli", "train", recipe, "--out", str(folder), *options]


def main(
    kills: Annotated[int, typer.Option(help="How often to kill.", min=1)] = 20,
    quick: Annotated[bool, typer.Option("--quick", help="3 kills.")] = False,
    domain: Annotated[str, typer.Option(help="toy or protein.")] = "toy",
    processes: Annotated[int, typer.Option(help="Processes that train together.", min=1)] = 1,
    parallel: Annotated[str, typer.Option(help="ddp or fsdp, for several processes.")] = "ddp",
    seed: Annotated[int, typer.Option(help="Draws the moments.")] = 0,
) -> None:
    """Kills a run again and again and compares its end with that of one left alone."""
    from resume_bench.compare import differences
    from resume_bench.kill import EndedError, run_and_kill, run_to_end

    if domain not in STEPS:
        raise InputError(f"unknown domain {domain}; choose toy or protein")
    if domain == "protein" and not os.environ.get("REED_DATA"):
        raise InputError("REED_DATA is not set; give the folder of the protein chains")
    kills = 3 if quick else kills
    command = programs(domain, processes, parallel, kills * STEPS[domain] * SAMPLES[domain])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    rng, wrong, writing, killed = random.Random(seed), 0, 0, 0
    began = time.monotonic()
    typer.echo(f"{domain}, {processes} process{'es, ' + parallel if processes > 1 else ''}, {kills} kills\n")
    typer.echo("kill  newest checkpoint  whole  while writing")
    with tempfile.TemporaryDirectory() as place:
        whole, resumed = Path(place) / "whole", Path(place) / "killed"
        try:
            seconds = run_to_end(command(whole), environment, whole / "checkpoints")
            for number in range(kills):
                checkpoints = resumed / "checkpoints"
                left = run_and_kill(command(resumed), environment, checkpoints, seconds / kills, rng)
                killed, writing, wrong = killed + 1, writing + left.writing, wrong + (not left.readable)
                word = "yes" if left.readable else f"NO: {left.damaged}"
                typer.echo(f"{number + 1:4}  {left.newest:17}  {word:5}  {'yes' if left.writing else 'no'}")
            run_to_end(command(resumed), environment, resumed / "checkpoints")
        except EndedError as error:
            typer.echo(f"after {killed} kills the run ended by itself with code {error.code}\n{error.said}", err=True)
            raise typer.Exit(1) from error
        found = differences(whole, resumed)
    typer.echo(f"\nkills {killed}, while writing {writing}, newest checkpoint not whole {wrong}")
    typer.echo(f"end identical to the uninterrupted run: {'NO: ' + ', '.join(found[:9]) if found else 'yes'}")
    typer.echo(f"{time.monotonic() - began:.0f} s, {seconds:.1f} s of them the training of the uninterrupted run")
    if found or wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
