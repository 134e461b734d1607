"""What a molecule costs, ours beside an EGNN of the published sizes; everything of a part in one run, on one thread.

    uv run tools/bench_molecule.py --qm9 qm9.npz --drugs drugs.npz       (prepared sets; all parts but equal-time)
    uv run tools/bench_molecule.py --qm9 qm9.npz --only buckets          (one of the parts below)
    uv run tools/bench_molecule.py --qm9 qm9.npz --only equal-time --minutes 60 --molecules 1000 --out runs/equal

evaluation   CPU time of one evaluation of each network on the same batches, per molecule
training     molecules/s of whole training steps on the same batches (noise, loss, gradient, optimiser)
sampling     seconds per sampled molecule: ours in 20, 50 and 100 steps, EGNN nf 64 in 1,000
buckets      the share of pairs in a batch that are real, over epochs, size buckets against unsorted batches
equal-time   ours and EGNN nf 64 trained for equal CPU time on the same molecules with the same loss, then sampled;
             stopped at any time, it goes on (tools/molecule_bench/equal_time.py)

The EGNN is that of tools/molecule_bench/egnn.py, as published and with its first linear map split, which is faster and
the same function. Arms run in turn, round by round; ratios are taken within a round; medians and middle halves.
"""

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from bench_train import middle
from reed_core.console import run
from reed_core.errors import InputError

if TYPE_CHECKING:
    from reed_molecule.dataset import MoleculeSet

PARTS = ("evaluation", "training", "sampling", "buckets", "equal-time")
OUR_STEPS, EGNN_STEPS = (20, 50, 100), 1000


def sets_of(qm9: Path | None, drugs: Path | None) -> "dict[str, MoleculeSet]":
    """The training splits that were given, by name."""
    from reed_molecule.dataset import MoleculeSet

    given = {"QM9": qm9, "drug-like": drugs}
    found = {name: MoleculeSet.read(path, "train") for name, path in given.items() if path is not None}
    if not found:
        raise InputError("no molecules: give prepared sets with --qm9 and --drugs (`reed-molecule prepare` makes them)")
    return found


def show(found: dict[str, list[float]], molecules: int, of: str, rate: bool) -> None:
    """Prints one row for each arm: milliseconds a molecule or molecules a second, and the time over that of `of`."""
    for name, values in found.items():
        each = [molecules / value if rate else 1000 * value / molecules for value in values]
        against = [value / base for value, base in zip(values, found[of], strict=True)]
        print(f"  {name:30s} {middle(each):44s} {'' if name == of else middle(against)}", flush=True)


def show_costs(name: str, known: "MoleculeSet", part: str, rounds: int, pairs: int, quick: bool) -> None:
    """Prints the cost of evaluations, or of training steps."""
    from molecule_bench.arms import EGNNS, OURS, asked_of, config_of, evaluation, model_of, our_network, training
    from protein_bench.clock import seconds

    config = config_of(known, our_network(False, quick))
    asked = asked_of(known, config.scale, pairs, 2)
    models = {arm: model_of(config, arm, quick) for arm in (OURS, *EGNNS)}
    if part == "training":
        twice = config_of(known, our_network(True, quick))
        models = {OURS: models[OURS], f"{OURS}, self-conditioned": model_of(twice, OURS), **models}
    weights = {arm: sum(value.numel() for value in model.parameters()) for arm, model in models.items()}
    make = training if part == "training" else evaluation
    with typer.progressbar(length=(rounds + 1) * len(models), label=part) as bar:
        found = seconds({arm: make(model, asked) for arm, model in models.items()}, rounds, lambda: bar.update(1))
    molecules = sum(len(one.positions) for one in asked)
    sizes = " and ".join("x".join(map(str, one.batch.mask["types"].shape)) for one in asked)
    unit = "molecules/s" if part == "training" else "ms a molecule"
    print(f"\n{part}, {name}, batches of {sizes} atoms, {rounds} rounds: {unit}; time over ours")
    show(found, molecules, OURS, part == "training")
    print("  weights: " + "; ".join(f"{arm} {count:,}" for arm, count in weights.items()))


def show_sampling(name: str, known: "MoleculeSet", rounds: int, molecules: int, share: float, quick: bool) -> None:
    """Prints seconds per sampled molecule."""
    from molecule_bench.arms import OURS, SMALL, SPLIT, config_of, model_of, our_network
    from protein_bench.clock import seconds
    from reed_molecule.sample import sample

    ours, theirs = ((1, 2), 10) if quick else (OUR_STEPS, EGNN_STEPS)
    config = config_of(known, our_network(True, quick))
    models = {arm: model_of(config, arm, quick).eval() for arm in (OURS, SMALL, SMALL + SPLIT)}
    timed = max(1, round(theirs * share))
    runs = {f"{OURS}, {steps} steps": (OURS, steps, 1.0) for steps in ours}
    for arm in (SMALL, SMALL + SPLIT):
        runs[f"{arm}, {theirs} steps"] = (arm, timed, theirs / timed)
    arms = {
        label: lambda arm=arm, steps=steps: sample(models[arm], molecules, steps=steps, seed=1)
        for label, (arm, steps, _) in runs.items()
    }
    with typer.progressbar(length=(rounds + 1) * len(arms), label="sampling") as bar:
        found = seconds(arms, rounds, lambda: bar.update(1))
    scaled = {label: [value * runs[label][2] for value in values] for label, values in found.items()}
    print(f"\nsampling, {name}, {molecules} molecules of {median(known.sizes.tolist()):.0f} atoms in the median, "
          f"{rounds} rounds: ms a molecule; time over ours in {ours[-1]} steps")  # fmt: skip
    if timed != theirs:
        print(
            f"  EGNN was timed in {timed} steps, which all cost the same, and its time multiplied by {theirs / timed:g}"
        )
    show(scaled, molecules, f"{OURS}, {ours[-1]} steps", False)


def show_buckets(name: str, known: "MoleculeSet", pairs: int, epochs: int) -> bool:
    """Prints the share of real pairs; whether the size buckets keep it above 90 %."""
    from molecule_bench.padding import shares

    found = shares(known, pairs, epochs)
    print(f"\nbuckets, {name}, {len(known)} molecules, {pairs} pairs a batch, {epochs} epochs")
    for kind, mean, least, size in found:
        print(f"  {kind:14s} {100 * mean:5.1f} % of pairs are real (least {100 * least:.1f}), {size:.1f} a batch")
    return found[0][2] > 0.9


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(PARTS)}; all but the last by default.")] = None,
    qm9: Annotated[Path | None, typer.Option(help="Prepared set of small molecules.")] = None,
    drugs: Annotated[Path | None, typer.Option(help="Prepared set of drug-like molecules.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of timing.", min=2)] = 5,
    pairs: Annotated[int, typer.Option(help="Pairs of a batch, in training.", min=1)] = 21_000,
    timed_pairs: Annotated[int, typer.Option(help="Pairs of a batch that evaluations and steps are timed on.")] = 7_000,
    molecules: Annotated[int, typer.Option(help="Molecules sampled.", min=1)] = 64,
    share: Annotated[float, typer.Option(help="Share of the EGNN's sampling steps that is timed.", max=1.0)] = 0.02,
    minutes: Annotated[float, typer.Option(help="equal-time: CPU minutes of training of each.")] = 60.0,
    out: Annotated[Path | None, typer.Option(help="equal-time: folder of the runs.")] = None,
    precision: Annotated[str, typer.Option(help="equal-time: fp32 or bf16, of both.")] = "fp32",
    compiled: Annotated[bool, typer.Option(help="equal-time: compile the loss of both.")] = False,
    rates: Annotated[str, typer.Option(help="equal-time: learning rates of ours and of EGNN.")] = "1e-3,5e-4",
    quick: Annotated[bool, typer.Option("--quick", help="Toy networks, to see that it runs.")] = False,
) -> None:
    """Prints the parts asked for."""
    wanted = only or list(PARTS[:4])
    if set(wanted) - set(PARTS):
        raise InputError(f"--only {', '.join(sorted(set(wanted) - set(PARTS)))}: expected {', '.join(PARTS)}")
    import torch

    torch.set_num_threads(1)
    sets = sets_of(qm9, drugs)
    for name, known in sets.items():
        for part in ("evaluation", "training"):
            if part in wanted:
                show_costs(name, known, part, rounds, timed_pairs, quick)
        if "sampling" in wanted:
            show_sampling(name, known, rounds, molecules, share, quick)
    if "buckets" in wanted and not all([show_buckets(name, known, pairs, 3) for name, known in sets.items()]):
        print("  below 90 %")
    if "equal-time" in wanted:
        from molecule_bench.equal_time import Settings, compare

        if out is None:
            raise InputError("equal-time keeps its runs: give --out FOLDER")
        path = qm9 or drugs
        assert path is not None
        both = tuple(float(rate) for rate in rates.split(","))
        settings = Settings(str(path), minutes, both, precision, compiled, pairs, quick)
        print(compare(settings, out, molecules))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run(app)
