"""What a training step costs and where: the split of its time, cached against online encoders, our loss, MFU.

    uv run tools/bench_train.py --only split                       the parts of a step, three networks
    uv run tools/bench_train.py --only encoder --repeats 9         z from a cache, from an encoder, and none
    uv run tools/bench_train.py --only loss                        the alignment loss against a loop over samples
    uv run tools/bench_train.py --only rate --sizes S,B,L,XL --batch 256 --steps 40 --device cuda

All are ratios or shares within one run. `split` reads REED_DATA for the protein and the molecule network and leaves
them out, saying so, where there is none. `rate` is for a GPU; on a CPU its MFU is of a measured peak.
"""

import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated

import typer
from reed_core.console import run
from reed_core.errors import InputError

PARTS = ("split", "encoder", "loss", "rate")


def middle(values: list[float]) -> str:
    """Median and middle half, as text."""
    low, _, high = quantiles(values, n=4)
    return f"{median(values):.3f} (middle half {low:.3f} .. {high:.3f})"


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(PARTS)}; all by default, but rate.")] = None,
    sizes: Annotated[str, typer.Option(help="SiT sizes of `rate`, by commas; the first is that of the others.")] = "B",
    batch: Annotated[int, typer.Option(help="Images in a step.", min=1)] = 4,
    steps: Annotated[int, typer.Option(help="Steps, the first half of which warms up.", min=2)] = 6,
    repeats: Annotated[int, typer.Option(help="Pairs of measurements.", min=3)] = 9,
    device: Annotated[str, typer.Option(help="cpu or cuda, for `rate`.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 1,
    compiled: Annotated[bool, typer.Option(help="`rate`: measure the compiled step beside the eager one.")] = False,
) -> None:
    """Measures what a training step costs."""
    import torch
    from train_bench import alignment, encoder, rate, split

    wanted, names = only or list(PARTS[:3]), sizes.split(",")
    if set(wanted) - set(PARTS):
        raise InputError(f"--only {', '.join(set(wanted) - set(PARTS))}: expected one of {', '.join(PARTS)}")
    torch.set_num_threads(threads)
    if "split" in wanted:
        from reed_protein.recipe import data_path

        try:
            domains = data_path("protein/backbones_train.npz").is_file()
        except InputError:
            domains = False
            typer.echo("no REED_DATA: the protein and the molecule network are left out")
        typer.echo("share of a step, %             data  encode  forward  backward  optimiser+EMA  other   samples/s")
        for name, seen in split.readings(names[0], batch, steps, domains):
            shares = {part: 100 * value / seen.seconds for part, value in seen.split.items()}
            columns = f"{shares['data']:6.2f}{shares['encode']:8.2f}{shares['forward']:9.1f}{shares['backward']:10.1f}"
            typer.echo(
                f"{name:28s} {columns}{shares['optimiser']:15.1f}{shares['other']:7.1f}{seen.samples_per_second:12.3g}"
            )
    if "encoder" in wanted:
        with tempfile.TemporaryDirectory() as folder, typer.progressbar(length=repeats + 1, label="rounds") as bar:
            found = encoder.ratios(names[0], batch, repeats, Path(folder), lambda: bar.update(1))
        typer.echo(f"SiT-{names[0]}/2, {batch} images a step, time over that of a step without z")
        for name, values in found.items():
            typer.echo(f"  {name:7s} {middle(values)}")
        gain = [slow / fast for slow, fast in zip(found["online"], found["cached"], strict=True)]
        typer.echo(f"  online over cached {middle(gain)}")
    if "loss" in wanted:
        for count in (8, 64, 256):
            loss = alignment.ratio(count, 64, 384, repeats)
            ours, theirs = loss.operations
            typer.echo(
                f"alignment loss, {count:3d} samples of 64 tokens: time of a loop over ours {middle(loss.time)}; "
                f"operations {theirs} against {ours}; gradients differ by {loss.gap:.0e}"
            )
    if "rate" in wanted:
        typer.echo("SiT at 256 tokens          images/s    MFU, %   data wait, %")
        peak = ""
        for setting, seen in rate.readings(names, batch, steps, device, (False, True) if compiled else (False,)):
            label = f"{setting.size}/2 {'guided' if setting.guided else 'plain'}"
            label += ", compiled" if setting.compiled else ", eager"
            mfu = f"{100 * seen.mfu:10.1f}" if seen.mfu is not None else "         -"
            typer.echo(f"{label:24s}{seen.samples_per_second:11.4g}{mfu}{100 * seen.data_wait_share:15.2f}")
            peak = "" if seen.peak is None else seen.peak.source
        typer.echo(f"peak: {peak}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
