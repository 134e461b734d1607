"""Guided against unguided training of the inverse-folding network, at one budget, with the controls.

    uv run tools/bench_protein_guidance.py --out runs/ablate --seeds 1,2,3      (18 runs of 8 to 9 minutes on one core)
    uv run tools/bench_protein_guidance.py --out runs/ablate --read             (prints the tables again)

The recipe is reed-protein-guided.toml, at 3,676 chains (two epochs) instead of 9,190; guidance fades out over the first
80 %, the learning rate falls over the last 30 %. Runs of one seed share initial network, order, times and noise.

    none        no latent
    reed        identity, teacher and contact
    shuffled    the same three, each chain taught the z of another one
    without_X   one latent left out
The teacher is the bundled network, which saw 42,000 chains of the same set: what `reed` gains by it is distillation.
Figures are of the averaged weights on the 90 validation chains. `steps` is the share of its own run after which an arm
is as good as `none` at its end, between marks by a straight line. All runs end their schedule at the same place, so a
curve in mid-run has not had its low learning rates yet: the share understates what a shorter schedule would reach, for
guided and shuffled arms alike.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from reed_core.console import run
from reed_core.errors import InputError
from seeds import spread, steps_to

LATENTS = ("identity", "teacher", "contact")
ARMS: dict[str, list[str]] = {
    "none": ["latents=[]"],
    "reed": [],
    "shuffled": ["shuffle=true"],
    **{f"without_{name}": [f'without=["{name}"]'] for name in LATENTS},
}
PERPLEXITY, RECOVERY = "perplexity_any_order", "mean_recovery"
Curves = dict[str, dict[int, list[dict[str, Any]]]]


def read(out: Path, seeds: list[int], budget: int) -> Curves:
    """The evaluations of every run that reached its end, by arm and seed."""
    from reed_core.train.log import read_log

    found: Curves = {}
    for arm in ARMS:
        for seed in seeds:
            log = out / f"{arm}_{seed}" / "log.jsonl"
            lines = [line for line in read_log(log) if RECOVERY in line] if log.exists() else []
            if lines and lines[-1]["samples"] >= budget:
                found.setdefault(arm, {})[seed] = lines
    return found


def tables(curves: Curves) -> str:
    """Both tables, in Markdown."""
    if "none" not in curves:
        raise InputError("no finished run of the arm none; run the tool without --read first")
    lines = []
    for name, digits, factor in ((RECOVERY, 2, 100.0), (PERPLEXITY, 3, 1.0)):
        marks = [line["samples"] for line in next(iter(curves["none"].values()))]
        unit = "mean recovery, %" if name == RECOVERY else "any-order perplexity"
        lines += ["", f"{unit} after about so many chains", ""]
        lines += [f"| arm | seeds | {' | '.join(map(str, marks))} | minus none, same seed | steps, % of none |"]
        lines += ["|" + "---|" * (len(marks) + 4)]
        for arm, runs in curves.items():
            values = [[lines_[place][name] for lines_ in runs.values()] for place in range(len(marks))]
            same = [seed for seed in runs if seed in curves["none"]]
            gains = [runs[seed][-1][name] - curves["none"][seed][-1][name] for seed in same]
            sign = -1.0 if name == RECOVERY else 1.0
            reached = [
                steps_to(
                    [line["samples"] / runs[seed][-1]["samples"] for line in runs[seed]],
                    [sign * line[name] for line in runs[seed]],
                    sign * curves["none"][seed][-1][name],
                )
                for seed in same
            ]
            some = [share for share in reached if share is not None]
            steps = f"{spread(some, 0, 100.0)} ({len(some)} of {len(reached)})" if some else "never"
            cells = [spread(each, digits, factor) for each in values]
            lines += [f"| {arm} | {len(runs)} | {' | '.join(cells)} | {spread(gains, digits, factor)} | {steps} |"]
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the runs; those that are finished are kept.")],
    seeds: Annotated[str, typer.Option(help="Seeds, by commas.")] = "1,2,3",
    budget: Annotated[int, typer.Option(help="Chains to train on.")] = 3676,
    arm: Annotated[list[str] | None, typer.Option(help="Only these arms.")] = None,
    only_read: Annotated[bool, typer.Option("--read", help="Train nothing; print what is there.")] = False,
) -> None:
    """Trains every arm that is not there yet, one after the other, and prints the tables."""
    if arm and set(arm) - set(ARMS):
        raise InputError(f"unknown arm {', '.join(sorted(set(arm) - set(ARMS)))}; arms are {', '.join(ARMS)}")
    wanted = [int(seed) for seed in seeds.split(",")]
    if not only_read:
        from importlib.resources import files

        import torch
        from reed_core.train.config import read_config
        from reed_protein.cli_featurize import featurize
        from reed_protein.recipe import Recipe
        from reed_protein.training import run_recipe

        torch.set_num_threads(1)
        path = Path(str(files("reed_protein") / "recipes" / "reed-protein-guided.toml"))
        quarter = budget // 4
        common = [f"train.samples={budget}", f"train.evaluate_every={quarter}", f"train.checkpoint_every={quarter}"]
        common += [f"alignment_end={budget * 8 // 10 + 1}", f"cache={out / 'cache'}"]
        featurize(path, set_=[f"cache={out / 'cache'}"])
        for seed in wanted:
            for name in arm or ARMS:
                recipe = read_config(Recipe, path, [*common, f"train.seed={seed}", *ARMS[name]])
                run_recipe(recipe, out / f"{name}_{seed}")
    typer.echo(tables(read(out, wanted, budget)))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
