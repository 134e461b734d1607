"""Guided against unguided training of the molecular denoiser, at one budget, with the controls.

    uv run tools/bench_molecule_guidance.py --data qm9.npz --out runs/guided --samples 100000
    uv run tools/bench_molecule_guidance.py --data qm9.npz --out runs/guided --arms none,guided --seeds 0    (a part)
    uv run tools/bench_molecule_guidance.py --out runs/guided --read                        (prints the tables again)

The recipe is qm9-guided.toml at a shorter length: guidance fades out over the first 80 %, the learning rate rises over
the first 5 % and falls over the last 40 %. Runs of one seed share initial network, order, times and noise; all share
the questions of the validation and the sizes and noise of the molecules drawn.

    none        no latent
    guided      symmetry functions, graph distances, RDKit descriptors
    shuffled    the same three, each molecule taught the z of another one of its size
    without_X   one latent left out
Finished runs are kept, a stopped one goes on. Several processes may share the arms and seeds; the cache of descriptors
is written first (minutes), so start the others when the first one trains. `--set` changes the recipe of all arms:
--set train.precision=bf16 --set train.compile=true --set network.self_condition=true.

Figures are of the averaged weights: losses per field on the validation split (the first is their weighted sum), and of
the molecules drawn the stability in both conventions, validity, and the median strain by MMFF94s. `steps` is the share
of its run after which an arm is as good as `none` at its end, between marks by a straight line. All runs end their
schedule at the same place, so a curve in mid-run has not had its low learning rates yet: the share understates what a
shorter schedule would reach, for guided and shuffled arms alike.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from reed_core.cli_options import Set
from reed_core.console import run
from reed_core.errors import InputError
from seeds import spread, steps_to

LATENTS = ("symmetry", "graph_distance", "rdkit")
ARMS: dict[str, list[str]] = {
    "none": ["latents=[]"],
    "guided": [],
    "shuffled": ["shuffle=true"],
    **{f"without_{name}": [f'without=["{name}"]'] for name in LATENTS},
}
USUAL = ("none", "guided", "shuffled")
# name in the log, heading, digits, and whether less is better
COLUMNS = (
    ("valid_loss", "validation loss", 4, True),
    ("valid_coords", "of it, coordinates", 4, True),
    ("valid_types", "of it, types", 4, True),
    ("valid_charges", "of it, charges", 4, True),
    ("valid_bonds", "of it, bonds", 4, True),
    ("atom_stable", "stable atoms, % (bonds, corrected)", 2, False),
    ("molecule_stable", "stable molecules, % (bonds, corrected)", 1, False),
    ("molecule_stable_distances", "stable molecules, % (distances, EDM table)", 1, False),
    ("valid", "valid, %", 1, False),
    ("connected", "connected, %", 1, False),
    ("strain", "strain, kcal/mol, median", 1, True),
)
Curve = dict[int, dict[str, Any]]
Curves = dict[str, dict[int, Curve]]


def settings_of(samples: int, points: int, draws: int, cache: Path, data: str) -> list[str]:
    """The overrides of the recipe for a run of some length."""
    each = max(1, samples // points)
    return [
        f"data={data}",
        f"cache={cache}",
        f"alignment_end={samples * 8 // 10 + 1}",
        f"train.samples={samples}",
        f"train.warmup={samples // 20}",
        f"train.evaluate_every={each}",
        f"train.checkpoint_every={each}",
        f"train.sample_every={max(1, samples // draws)}",
    ]


def read(out: Path, seeds: Sequence[int]) -> Curves:
    """Every run that reached its end, by arm and seed."""
    from molecule_bench.guided import read_arm

    found: Curves = {}
    for arm in ARMS:
        for seed in seeds:
            curve = read_arm(out / f"{arm}_{seed}")
            if curve:
                found.setdefault(arm, {})[seed] = curve
    lengths = {max(curve) for runs in found.values() for curve in runs.values()}
    if len(lengths) > 1:
        raise InputError(f"{out} holds runs of different lengths: {', '.join(map(str, sorted(lengths)))} molecules")
    return found


def shared_marks(curves: Curves, name: str) -> list[int]:
    """The places where a figure was measured in every run."""
    marks = [{at for at, line in curve.items() if name in line} for runs in curves.values() for curve in runs.values()]
    return sorted(set.intersection(*marks))


def reached(curve: Curve, goal: float, name: str, lower: bool) -> float | None:
    """The share of its run after which a curve is as good as a goal; None if never."""
    seen = [(at, line[name]) for at, line in curve.items() if name in line]
    sign = 1.0 if lower else -1.0
    return steps_to([at / max(curve) for at, _ in seen], [sign * value for _, value in seen], sign * goal)


def table(curves: Curves, name: str, heading: str, digits: int, lower: bool) -> list[str]:
    """The table of one figure, in Markdown."""
    marks = shared_marks(curves, name)
    if not marks:
        return []
    lines = ["", f"{heading}, after so many molecules", ""]
    lines += [f"| arm | seeds | {' | '.join(map(str, marks))} | minus none, same seed | steps, % of none |"]
    lines += ["|" + "---|" * (len(marks) + 4)]
    base, end = curves.get("none", {}), marks[-1]
    for arm, runs in curves.items():
        cells = [spread([curve[at][name] for curve in runs.values()], digits) for at in marks]
        same = [seed for seed in runs if seed in base]
        gain = spread([runs[seed][end][name] - base[seed][end][name] for seed in same], digits) if same else "-"
        shares = [reached(runs[seed], base[seed][end][name], name, lower) for seed in same]
        some = [share for share in shares if share is not None]
        steps = f"{spread(some, 0, 100.0)} ({len(some)} of {len(shares)})" if some else "never" if same else "-"
        lines += [f"| {arm} | {len(runs)} | {' | '.join(cells)} | {gain} | {steps} |"]
    return lines


def chosen(text: str, known: Sequence[str]) -> list[str]:
    """Arms by commas."""
    names = [name for name in text.split(",") if name]
    if not names or set(names) - set(known):
        raise InputError(f"--arms {text}: expected some of {', '.join(known)}, by commas")
    return names


def main(
    out: Annotated[Path, typer.Option(help="Folder of the runs.")],
    data: Annotated[str, typer.Option(help="Prepared set of molecules.")] = "qm9.npz",
    samples: Annotated[int, typer.Option(help="Molecules to train on.", min=10)] = 100_000,
    arms: Annotated[str, typer.Option(help=f"By commas, of {', '.join(ARMS)}.")] = ",".join(USUAL),
    seeds: Annotated[str, typer.Option(help="By commas.")] = "0,1,2",
    points: Annotated[int, typer.Option(help="Evaluations of a run.", min=1)] = 8,
    draws: Annotated[int, typer.Option(help="Places of a run where molecules are drawn.", min=1)] = 4,
    drawn: Annotated[int, typer.Option(help="Molecules drawn there.", min=1)] = 256,
    steps: Annotated[int, typer.Option(help="Steps of each.", min=1)] = 50,
    recipe: Annotated[str, typer.Option(help="The guided recipe.")] = "qm9-guided",
    set_: Set = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 1,
    only_read: Annotated[bool, typer.Option("--read", help="Train nothing; print what is there.")] = False,
) -> None:
    """Trains the arms that are not there yet, one after the other, and prints the tables of all that is there."""
    names, wanted = chosen(arms, list(ARMS)), [int(seed) for seed in seeds.split(",")]
    if not only_read:
        import torch
        from molecule_bench.guided import train_arm
        from reed_core.train.config import read_config
        from reed_molecule.cli_featurize import featurize
        from reed_molecule.recipe import Recipe, recipe_path

        cache = out / "cache"
        common = [*settings_of(samples, points, draws, cache, data), *(set_ or ())]
        path = recipe_path(recipe)
        featurize(str(path), set_=[f"cache={cache}", f"data={data}"], threads=threads)
        torch.set_num_threads(threads)
        for seed in wanted:
            for name in names:
                made = read_config(Recipe, path, [*common, f"train.seed={seed}", *ARMS[name]])
                typer.echo(f"{name}, seed {seed}", err=True)
                train_arm(made, out / f"{name}_{seed}", drawn, steps, device)
    curves = read(out, sorted({*wanted, *_seeds_in(out)}))
    if not curves:
        raise InputError(f"{out} holds no finished run; run the tool without --read first")
    for name, heading, digits, lower in COLUMNS:
        typer.echo("\n".join(table(curves, name, heading, digits, lower)))


def _seeds_in(out: Path) -> list[int]:
    """The seeds of the runs of a folder."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*/config.json"))
    return sorted({int(settings["train"]["seed"]) for settings in found if "train" in settings})


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
