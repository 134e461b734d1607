"""One run of the guidance bench: a recipe trained with molecules drawn along the way, and their figures kept.

It is what `reed_molecule.training.run_recipe` does, with a sampler: at some places of the run molecules are drawn from
the averaged weights, numbered 0, 1, ... under one seed, so that the runs compared draw the same sizes and the same
noise. Their figures go to `samples/<molecules seen>/figures.json`, and the evaluations to `log.jsonl`.
"""

import json
from pathlib import Path
from typing import Any

from reed_core.files import write_text
from reed_core.train import Trainer
from reed_core.train.claim import claim_folder
from reed_core.train.log import read_log
from reed_molecule.dataset import MoleculeSet, TrainingData
from reed_molecule.generate import Generator, Request
from reed_molecule.known import Known
from reed_molecule.latents import BatchLatents, build_latents, open_sources
from reed_molecule.process import molecule_process
from reed_molecule.recipe import Recipe
from reed_molecule.start import config_of, started
from reed_molecule.training import Told, build_objective, validation_losses
from torch import nn

from molecule_bench.judge import figures

FIGURES = "figures.json"
DONE = "done"
SAMPLING_SEED = 20_000


def train_arm(recipe: Recipe, folder: Path, drawn: int, steps: int, device: str = "cpu", progress: bool = True) -> None:
    """Trains a recipe to its end, resuming what the folder holds, and draws molecules every `train.sample_every`.

    Args:
        recipe: The recipe.
        folder: The run.
        drawn: Molecules at each place.
        steps: Steps of each.
        device: Where.
        progress: Show a progress bar.
    """
    claim_folder(folder, recipe)
    sets = [MoleculeSet.read(recipe.data, split) for split in ("train", "valid")]
    config, known = config_of(recipe, sets[0]), Known.of(sets[0].identities)
    seed = recipe.train.seed
    data, valid = (TrainingData(each, seed, recipe.batch_pairs, config.scale, rotate=False) for each in sets)
    model = started(recipe, config).model
    weights = {str(name): weight for name, weight in recipe.weights.items()}
    process = molecule_process(model.vocabulary, recipe.discrete, time_weight=recipe.time_weight, weights=weights)
    latents = build_latents(recipe.active, config.network, sets[0].vocabulary)
    sources = open_sources(recipe.active, sets[0], Path(recipe.cache), seed if recipe.shuffle else None)
    objective = build_objective(recipe, process, latents)

    def measure(network: nn.Module) -> dict[str, float]:
        # The same questions to every run, whatever its seed.
        return validation_losses(network, process, Told(valid), 0)

    def draw(network: nn.Module, into: Path) -> None:
        assert network is model
        found = Generator(model, known).draw(Request(drawn, steps, SAMPLING_SEED))
        write_text(into / FIGURES, json.dumps(figures([one.item for one in found.samples], known)) + "\n")

    told = Told(data, BatchLatents(sources) if latents else None)
    Trainer(model, objective, told, recipe.train, folder, measure, device, draw).fit(progress)
    write_text(folder / DONE, "")


def read_arm(folder: Path) -> dict[int, dict[str, Any]] | None:
    """What was measured of a run, by molecules seen; None if it has not reached its end.

    A batch passes a mark by some molecules, other ones for every seed; the figures stand at the mark itself.
    """
    if not (folder / DONE).exists():
        return None
    each = json.loads((folder / "config.json").read_text(encoding="utf-8"))["train"]["evaluate_every"]
    found: dict[int, dict[str, Any]] = {
        line["samples"] // each * each: line for line in read_log(folder / "log.jsonl") if "valid_loss" in line
    }
    for path in sorted((folder / "samples").glob(f"*/{FIGURES}")):
        line = found.setdefault(int(path.parent.name) // each * each, {})
        line.update(shares(json.loads(path.read_text(encoding="utf-8"))))
    return dict(sorted(found.items()))


def shares(counts: dict[str, Any]) -> dict[str, float]:
    """Shares in percent of the counts of drawn molecules, and their strain."""
    drawn, atoms = counts["drawn"], counts["atoms"]
    found = {
        "atom_stable": 100 * counts["atoms_bonds"] / atoms,
        "molecule_stable": 100 * counts["molecules_bonds"] / drawn,
        "molecule_stable_distances": 100 * counts["molecules_distances"] / drawn,
        "valid": 100 * counts["valid"] / drawn,
        "connected": 100 * counts["connected"] / drawn,
    }
    return found if counts["strain"] is None else {**found, "strain": counts["strain"]}
