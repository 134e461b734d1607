"""Guided against unguided training of a small SiT on CIFAR-10, at one budget: the Frechet distance against pictures.

    uv run tools/bench_image_guidance.py --out runs/image --samples 64000
    uv run tools/bench_image_guidance.py --out runs/image --samples 64000 --arms none,reed    (and, beside it,
    uv run tools/bench_image_guidance.py --out runs/image --samples 64000 --arms repa,shuffled)
    uv run tools/bench_image_guidance.py --out runs/image --samples 64000 --read              (prints the tables again)

    none        no latent
    repa        the first latent of the recipe (MobileNetV2's maps, patch by patch), at constant weight
    reed        both latents (the second, edges and colours of the whole picture, two blocks later), with a curriculum:
                the denoising weight rises from 0 over the first --warmup of the budget, and if --fade is set alignment
                ends, along a cosine, at that share of it
    shuffled    as reed, each picture taught the z of another one
Runs of one seed share the initial network, order, times and noise. Finished runs are kept, stopped ones go on, and
several processes may share the work. The distance (`image_bench/guided.py`) is of --num pictures to all test pictures,
in the features of --judge. `fd` is no FID, and it is biased: only figures of one --num compare.

`steps` is the share of its own run after which an arm is as good as another at its end, between marks by a straight
line. All runs end their schedule of learning rates at one place, so the share understates what a shorter one reaches.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from reed_core.console import run
from reed_core.errors import InputError
from seeds import spread, steps_to

ARMS = ("none", "repa", "reed", "shuffled")
Curves = dict[str, dict[int, list[dict[str, Any]]]]


def read(out: Path, arms: list[str], seeds: list[int], samples: int) -> Curves:
    """The evaluations of every run that reached its end, by arm and seed."""
    from image_bench.guided import FIGURE
    from reed_core.train.log import read_log

    found: Curves = {}
    for arm in arms:
        for seed in seeds:
            log = out / f"{arm}_{seed}" / "log.jsonl"
            lines = [line for line in read_log(log) if FIGURE in line] if log.exists() else []
            if lines and lines[-1]["samples"] >= samples:
                found.setdefault(arm, {})[seed] = lines
    return found


def table(curves: Curves) -> str:
    """The distance of each arm along its run, and against `none` and `repa` of the same seeds; Markdown."""
    if not curves:
        return "no finished run"
    marks = [line["samples"] for line in next(iter(next(iter(curves.values())).values()))]
    others = [arm for arm in ("none", "repa") if arm in curves]
    head = [*map(str, marks), *(f"minus {arm} | steps to {arm}'s end, %" for arm in others)]
    lines = ["FD after so many pictures, mean ± deviation over seeds; less is better", ""]
    lines += [f"| arm | seeds | {' | '.join(head)} |", "|" + "---|" * (2 + len(marks) + 2 * len(others))]
    for arm, runs in curves.items():
        cells = [spread([each[place]["fd"] for each in runs.values()], 2) for place in range(len(marks))]
        for other in others:
            same = [seed for seed in runs if seed in curves[other]]
            if arm == other or not same:
                cells += ["", ""]
                continue
            ends = [curves[other][seed][-1]["fd"] for seed in same]
            cells.append(spread([runs[seed][-1]["fd"] - end for seed, end in zip(same, ends, strict=True)], 2))
            shares = [
                steps_to([line["samples"] / samples for line in lines_], [line["fd"] for line in lines_], end)
                for lines_, samples, end in [
                    (runs[seed], runs[seed][-1]["samples"], end) for seed, end in zip(same, ends, strict=True)
                ]
            ]
            some = [share for share in shares if share is not None]
            cells.append(f"{spread(some, 0, 100.0)} ({len(some)} of {len(shares)})" if some else "never")
        lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="Folder of pictures, caches and runs.")],
    samples: Annotated[int, typer.Option(help="Pictures to train on.", min=1)] = 64000,
    arms: Annotated[str, typer.Option(help="Which, by commas.")] = ",".join(ARMS),
    seeds: Annotated[str, typer.Option(help="Seeds, by commas.")] = "0,1,2",
    points: Annotated[int, typer.Option(help="Evaluations of a run, at equal distances.", min=1)] = 4,
    num: Annotated[int, typer.Option(help="Pictures drawn at each.", min=2)] = 2000,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.", min=1)] = 20,
    sampler: Annotated[str, typer.Option(help="euler, heun or sde.")] = "euler",
    cfg: Annotated[float, typer.Option(help="Scale of guidance while drawing; 1 is none.")] = 1.0,
    warmup: Annotated[float, typer.Option(help="Share of the budget, of the curriculum.")] = 0.05,
    fade: Annotated[float, typer.Option(help="Share of the budget after which alignment has ended; 0 never.")] = 0.0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the recipe: --set network.width=128")
    ] = None,
    recipe: Annotated[str, typer.Option(help="A recipe file, or the name of one.")] = "cifar10-small",
    train: Annotated[str | None, typer.Option(help="Pictures to train on; CIFAR-10 of REED_DATA.")] = None,
    test: Annotated[str | None, typer.Option(help="Pictures to compare with; likewise.")] = None,
    size: Annotated[int, typer.Option(help="Their side.", min=1)] = 32,
    judge: Annotated[str, typer.Option(help="The network that looks, as reed-image evaluate takes it.")] = "resnet20",
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
    only_read: Annotated[bool, typer.Option("--read", help="Train nothing; print what is there.")] = False,
) -> None:
    """Trains every arm that is not there yet, one after the other, and prints the table."""
    chosen, wanted = arms.split(","), [int(seed) for seed in seeds.split(",")]
    if set(chosen) - set(ARMS):
        raise InputError(f"unknown arm {', '.join(sorted(set(chosen) - set(ARMS)))}; arms are {', '.join(ARMS)}")
    if not only_read:
        import torch
        from image_bench import guided
        from reed_core.train.config import read_config
        from reed_image.data import open_prepared
        from reed_image.latents.spec import data_path
        from reed_image.metrics.extractor import open_extractor
        from reed_image.recipe import Recipe, recipe_path
        from reed_image.sample import Request

        torch.set_num_threads(threads)
        sources = [
            given or str(data_path(f"image/cifar10_{part}.parquet"))
            for given, part in ((train, "train"), (test, "test"))
        ]
        every = max(1, samples // points)
        common = [f"data={out / 'train'}", f"cache={out / 'cache'}", "sampling.num=0"]
        common += [f"train.samples={samples}", f"train.evaluate_every={every}", f"train.checkpoint_every={every}"]
        common += set_ or []
        full = guided.made_ready(out, sources[0], sources[1], size, recipe, common)
        names = [spec.name for spec in full.latents]
        kind: Any = sampler
        request = Request(num, steps=steps, sampler=kind, scale=cfg)
        measure = guided.distance(
            open_extractor(judge, device=device), open_prepared(out / "test"), request, full.train.precision
        )
        for seed in wanted:
            for arm in chosen:
                if read(out, [arm], [seed], samples):
                    continue
                own = [f"train.seed={seed}", *guided.settings(arm, names, samples, warmup, fade)]
                made = read_config(Recipe, recipe_path(recipe), [*common, *own])
                guided.train(made, out / f"{arm}_{seed}", measure, device, not quiet)
    typer.echo(table(read(out, list(ARMS), wanted, samples)))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
