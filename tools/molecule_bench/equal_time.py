"""Ours and EGNN nf 64 trained for equal CPU time on the same molecules with the same loss, then sampled.

First a few training steps of both are timed in turn, which tells how many molecules each sees in its minutes, schedule
of learning rates and all; the plan is kept in `plan.json`, so that a run that is stopped goes on with it. CPU seconds
of training are counted apart from evaluations and across stops, and printed: they say how equal the time was. The EGNN
has its first linear map split (`molecule_bench.egnn`): the same function, and more steps in its time than as published.

Ours is sampled in 20, 50 and 100 steps, the EGNN in 1,000, both by the same sampler from averaged weights; molecules
are drawn in parts that are kept.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from protein_bench.clock import seconds
from reed_core import presets
from reed_core.errors import InputError
from reed_core.files import write_text
from reed_core.train import TrainConfig, Trainer
from reed_core.train.log import read_log
from reed_molecule.build import Failure, FailureKind
from reed_molecule.dataset import MoleculeSet, TrainingData
from reed_molecule.generate import Generator, Request
from reed_molecule.known import Known
from reed_molecule.model import MoleculeModel
from reed_molecule.molecule import Molecule
from reed_molecule.training import Told, validation_losses
from torch import nn

from molecule_bench.arms import OURS, SMALL, SPLIT, asked_of, config_of, model_of, our_network, training
from molecule_bench.judge import figures, percent

EGNN = SMALL + SPLIT
ARMS = {OURS: "ours", EGNN: "egnn"}
STEPS = {OURS: (20, 50, 100), EGNN: (1000,)}
PART, SEED = 128, 7
CHECKPOINTS = 5
CPU = "cpu_seconds"


@dataclass(frozen=True)
class Settings:
    """What makes a comparison.

    Attributes:
        data: A prepared set.
        minutes: CPU minutes of training of each.
        rates: Learning rates of ours and of the EGNN.
        precision: "fp32" or "bf16", of both.
        compiled: Whether the loss of both is compiled.
        pairs: Pairs of a batch.
        quick: Toy networks and steps.
    """

    data: str
    minutes: float
    rates: tuple[float, ...]
    precision: str
    compiled: bool
    pairs: int
    quick: bool = False

    def __post_init__(self) -> None:
        if len(self.rates) != 2 or self.minutes <= 0:
            raise InputError(f"rates {self.rates}, {self.minutes} minutes: expected two rates and a time")


class Spent:
    """CPU seconds of training, without evaluations, across stops: what the log says, and those of this process.

    Args:
        log: The log of the run.
        samples: Molecules seen by the checkpoint that is resumed.
    """

    def __init__(self, log: Path, samples: int) -> None:
        lines = [line for line in read_log(log) if CPU in line and line["samples"] <= samples] if log.exists() else []
        self.before = float(lines[-1][CPU]) if lines else 0.0
        self.start = time.process_time()

    def read(self) -> float:
        """So far."""
        return self.before + time.process_time() - self.start

    def leave_out(self, since: float) -> None:
        """Forgets what was spent since `read` said so."""
        self.start += self.read() - since


def plan_of(settings: Settings, known: MoleculeSet, out: Path) -> dict[str, int]:
    """How many molecules each arm sees; timed once, kept."""
    path, wanted = out / "plan.json", json.loads(json.dumps(asdict(settings)))
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["settings"] != wanted:
            raise InputError(f"{out} holds a comparison of other settings; choose another --out, or remove the folder")
        return {arm: int(count) for arm, count in held["molecules"].items()}
    config = config_of(known, our_network(True, settings.quick))
    asked = asked_of(known, config.scale, settings.pairs, 4)
    steps = {
        arm: training(model_of(config, arm, settings.quick), asked, settings.precision, settings.compiled)
        for arm in ARMS
    }
    found = seconds(steps, 3, lambda: None)
    seen = sum(len(one.positions) for one in asked)
    molecules = {arm: max(1, int(60 * settings.minutes * seen / median(values))) for arm, values in found.items()}
    write_text(path, json.dumps({"settings": wanted, "molecules": molecules}, indent=2) + "\n")
    return molecules


def trained(settings: Settings, arm: str, samples: int, folder: Path) -> tuple[MoleculeModel, list[dict[str, Any]]]:
    """An arm at the end of its run, which is resumed where it stands, and the evaluations of its log."""
    sets = [MoleculeSet.read(settings.data, split) for split in ("train", "valid")]
    config = config_of(sets[0], our_network(True, settings.quick))
    model = model_of(config, arm, settings.quick)
    process = model.process
    data, valid = (TrainingData(one, 0, settings.pairs, config.scale, rotate=False) for one in sets)
    each = max(1, samples // (2 if settings.quick else CHECKPOINTS))
    train = TrainConfig(
        samples=samples,
        learning_rate=settings.rates[list(ARMS).index(arm)],
        warmup=samples // 20,
        decay=0.4,
        precision=settings.precision,  # type: ignore[arg-type]
        compile=settings.compiled,
        checkpoint_every=each,
        evaluate_every=each,
    )
    held = max((int(path.name) for path in (folder / "checkpoints").glob("[0-9]*")), default=0)
    spent = Spent(folder / "log.jsonl", held)

    def measure(network: nn.Module) -> dict[str, float]:
        so_far = spent.read()
        losses = validation_losses(network, process, Told(valid), 0)
        spent.leave_out(so_far)
        return {**losses, CPU: so_far}

    Trainer(model, presets.none(process), Told(data), train, folder, measure).fit()
    return model.eval(), [line for line in read_log(folder / "log.jsonl") if CPU in line]


def drawn_items(
    model: MoleculeModel, known: Known, molecules: int, steps: int, folder: Path
) -> list[Molecule | Failure]:
    """Molecules of a model, drawn in parts that are kept."""
    items: list[Molecule | Failure] = []
    for first in range(0, molecules, PART):
        path = folder / f"{steps}_{first}.json"
        if not path.is_file():
            drawn = Generator(model, known).draw(Request(min(PART, molecules - first), steps, SEED + first))
            write_text(path, json.dumps([_written(one.item) for one in drawn.samples]) + "\n")
        items += [_read(one) for one in json.loads(path.read_text(encoding="utf-8"))]
    return items


def compare(settings: Settings, out: Path, molecules: int) -> str:
    """Trains what is not trained yet, draws what is not drawn yet, and returns the tables.

    Args:
        settings: The comparison.
        out: Its folder.
        molecules: Molecules drawn from each.
    """
    known = MoleculeSet.read(settings.data, "train")
    plan, seen = plan_of(settings, known, out), Known.of(known.identities)
    rows = [
        "",
        f"equal-time, {Path(settings.data).name}, {settings.minutes:g} CPU minutes each, {settings.precision}",
        "",
    ]
    rows += ["| arm | weights | molecules seen | CPU minutes | validation loss | coords | types | charges | bonds |"]
    rows += ["|" + "---|" * 9]
    models = {}
    for arm, name in ARMS.items():
        models[arm], lines = trained(settings, arm, plan[arm], out / name)
        last = lines[-1]
        losses = " | ".join(f"{last[f'valid_{field}']:.4f}" for field in ("loss", *models[arm].process.fields))
        weights = sum(value.numel() for value in models[arm].parameters())
        rows.append(f"| {arm} | {weights:,} | {last['samples']:,} | {last[CPU] / 60:.1f} | {losses} |")
    rows += ["", f"{molecules} molecules drawn of each, % with 95 % interval", ""]
    names = ("atoms, bonds", "molecules, bonds", "atoms, distances", "molecules, distances", "valid", "connected")
    rows += [f"| arm | steps | stable {' | stable '.join(names[:4])} | {' | '.join(names[4:])} | strain, kcal/mol |"]
    rows += ["|" + "---|" * 9]
    for arm, model in models.items():
        for steps in (2,) if settings.quick else STEPS[arm]:
            items = drawn_items(model, seen, molecules, steps, out / ARMS[arm] / "drawn")
            rows.append(f"| {arm} | {steps} | {row_of(figures(items, seen))} |")
    test = MoleculeSet.read(settings.data, "test")
    real = [test[place] for place in range(min(len(test), molecules))]
    return "\n".join([*rows, f"| real, test split | | {row_of(figures(real, seen))} |"])


def row_of(found: Mapping[str, Any]) -> str:
    """The cells of one row. Atoms of a molecule are not independent: their interval is that of independent ones."""
    kinds: Sequence[tuple[str, str]] = [
        ("atoms_bonds", "atoms"), ("molecules_bonds", "drawn"), ("atoms_distances", "atoms"),
        ("molecules_distances", "drawn"), ("valid", "drawn"), ("connected", "drawn"),
    ]  # fmt: skip
    cells = [percent(found[part], found[whole]) for part, whole in kinds]
    return " | ".join([*cells, "-" if found["strain"] is None else f"{found['strain']:.1f}"])


def _written(item: Molecule | Failure) -> dict[str, Any]:
    if isinstance(item, Failure):
        return {"kind": item.kind.value, "message": item.message, "atoms": item.atoms}
    return {name: getattr(item, name).tolist() for name in ("numbers", "positions", "charges", "bonds")}


def _read(values: Mapping[str, Any]) -> Molecule | Failure:
    if "kind" in values:
        return Failure(FailureKind(values["kind"]), values["message"], values["atoms"])
    return Molecule(
        numbers=np.array(values["numbers"], dtype=np.int64),
        positions=np.array(values["positions"], dtype=np.float32),
        charges=np.array(values["charges"], dtype=np.int64),
        bonds=np.array(values["bonds"], dtype=np.int64).reshape(-1, 3),
    )
