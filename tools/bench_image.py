"""What a guided training step of SiT costs beside the peers', and how many pictures a second are drawn.

    uv run tools/bench_image.py --only step                                 SiT-S/2, 256 tokens, ViT-S/14 as encoder
    uv run tools/bench_image.py --only step --encoder mobilenetv2_100 --at 3
    uv run tools/bench_image.py --only step --batch 256 --rounds 20 --precision bf16 --device cuda
    uv run tools/bench_image.py --only draw --steps 4 --batch 4

`step` compares with a re-implementation of REPA's and REED's step (`image_bench/peers.py`): a loop over the samples for
the alignment loss, and the encoder in every step. `bare` is the network, the projector and the encoder alone, which
both share: theirs over bare is the most that theirs over ours can be. Figures are CPU seconds on one thread, steps in
turn, and ratios within a round; on a GPU the process spins while it waits, so that they are the clock's.
"""

import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import typer
from bench_train import middle
from reed_core.console import run
from reed_core.errors import InputError

PARTS = ("step", "draw")
RATIOS = (
    ("theirs_online", "ours_online", "theirs over ours, both with the encoder in the step"),
    ("theirs_cached", "ours_cached", "theirs over ours, both from a cache"),
    ("theirs_online", "bare_online", "theirs over the parts that both share, with the encoder: the most"),
    ("theirs_cached", "bare_cached", "theirs over the parts that both share, from a cache: the most"),
    ("theirs_online", "ours_cached", "theirs with the encoder (they have no cache) over ours from a cache"),
)


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"{' or '.join(PARTS)}; both by default.")] = None,
    size: Annotated[str, typer.Option(help="Of SiT: S, B, L or XL.")] = "S",
    encoder: Annotated[str, typer.Option(help="Any model of timm, with random weights.")] = "vit_small_patch14_dinov2",
    at: Annotated[int, typer.Option(help="Block or stage of the encoder that is read.")] = -1,
    batch: Annotated[int, typer.Option(help="Pictures of a step, or drawn at once.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds; one more warms up.", min=2)] = 5,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="fp32 or bf16.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    steps: Annotated[int, typer.Option(help="Steps of a drawing.", min=1)] = 50,
    cfg: Annotated[float, typer.Option(help="Scale of guidance of a drawing.")] = 4.0,
    depth: Annotated[int | None, typer.Option(help="Blocks, in place of the size's own.")] = None,
) -> None:
    """Measures both."""
    import torch
    from image_bench import drawing
    from image_bench import steps as training
    from reed_image.network import preset

    wanted = only or list(PARTS)
    if set(wanted) - set(PARTS):
        raise InputError(f"--only {', '.join(set(wanted) - set(PARTS))}: expected one of {', '.join(PARTS)}")
    torch.set_num_threads(1)
    config = preset(size, 2, **({} if depth is None else {"depth": depth}))
    if "step" in wanted:
        length = (rounds + 1) * len(training.ARMS)
        with tempfile.TemporaryDirectory() as folder, typer.progressbar(length=length, label="steps") as bar:
            found = training.timed(
                config, (encoder, at), batch, rounds, precision, device, Path(folder), lambda: bar.update(1)
            )
        typer.echo(f"SiT-{size}/2, {config.tokens} tokens, {batch} pictures a step, {precision}, {device}; {encoder}")
        for name, values in found.items():
            typer.echo(f"  {name:14s} {middle(values)} s a step, {batch / median(values):.3g} pictures/s")
        for slow, fast, label in RATIOS:
            ratios = [above / below for above, below in zip(found[slow], found[fast], strict=True)]
            typer.echo(f"  {middle(ratios)}  {label}")
    if "draw" in wanted:
        length = (rounds + 1) * 2 * len(drawing.SAMPLERS)
        with typer.progressbar(length=length, label="drawings") as bar:
            drawn = drawing.timed(config, batch, steps, cfg, rounds, precision, device, lambda: bar.update(1))
        typer.echo(f"SiT-{size}/2, {batch} pictures at once, {steps} steps, {precision}, {device}")
        typer.echo("  sampler  guidance  evaluations   pictures/s")
        for one in drawn:
            rates = [batch / value for value in one.seconds]
            typer.echo(f"  {one.sampler:8s} {one.scale:7g} {one.evaluations:12d}   {middle(rates)}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
