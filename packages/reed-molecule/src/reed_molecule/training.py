"""Runs a recipe: builds model, objective and data, trains, and saves weights.

Without latents the objective is plain diffusion (`presets.none`), with one `presets.repa`, with several or a curriculum
`presets.reed`. Properties (`conditions`) are all hidden from a share of the molecules, for guidance, and of several
each alone, too. Validation hides none, and draws its noise from fixed streams, so that runs can be compared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from reed_core import presets
from reed_core.errors import InputError
from reed_core.hub import save_pretrained
from reed_core.latent import Latent, Representations
from reed_core.noise import NoiseSource, mix_seed
from reed_core.objective import ConditionDropout, Objective
from reed_core.process import Product
from reed_core.train import Batch, DataSource, Trainer, parallel
from reed_core.train.claim import claim_folder
from torch import nn

from reed_molecule.alignment import aligned
from reed_molecule.condition import Condition, Property
from reed_molecule.dataset import MoleculeSet, TrainingData
from reed_molecule.known import Known
from reed_molecule.latents import BatchLatents, build_latents, open_sources
from reed_molecule.model import ModelConfig, MoleculeModel
from reed_molecule.process import molecule_process
from reed_molecule.recipe import Recipe
from reed_molecule.start import config_of, started
from reed_molecule.vocabulary import Vocabulary

VALIDATION_BATCHES = 16
_VALIDATION = 0x76616C69

MakeLatents = Callable[[Sequence[int], Batch], Representations]


@dataclass(frozen=True)
class Told:
    """Training data whose batches tell the network which atoms exist, and carry latents.

    Attributes:
        data: The data.
        make: `make(items, batch)` returns the latents of these items; None when there are none.
        hide: Share of molecules from which each property alone is hidden, where there are several.
    """

    data: DataSource
    make: MakeLatents | None = None
    hide: float = 0.0

    def plan(self, epoch: int) -> Sequence[Sequence[int]]:
        """That of the data."""
        return self.data.plan(epoch)

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        """That of the data, with at least the atom mask as its condition."""
        batch = self.data.batch(items, noise)
        if batch.c is None:
            batch = replace(batch, c=Condition(batch.mask["types"]))
        told = batch.c.properties if isinstance(batch.c, Condition) else None
        if self.hide and told is not None and told.shape[1] > 1:
            batch = replace(batch, c=batch.c.without(noise.uniform(told.shape[1:]) < self.hide))
        make = self.make
        return batch if make is None else replace(batch, z=lambda: make(items, batch))


def recipe_process(recipe: Recipe, vocabulary: Vocabulary) -> Product:
    """The process that a recipe trains on, of aligned noise if it says so."""
    weights = {str(name): weight for name, weight in recipe.weights.items()}
    process = molecule_process(vocabulary, recipe.discrete, time_weight=recipe.time_weight, weights=weights)
    return aligned(process, recipe.alignment)


def training_data(recipe: Recipe, molecules: MoleculeSet, scale: float, conditions: Sequence[Property]) -> TrainingData:
    """The batches of a recipe; an equivariant network learns nothing from turned molecules."""
    return TrainingData(
        molecules,
        recipe.train.seed,
        recipe.batch_pairs,
        scale,
        rotate=False,
        conditions=tuple(conditions),
        parts=recipe.parts,
    )


def build_objective(recipe: Recipe, process: Product, latents: Sequence[Latent] = ()) -> Objective:
    """The objective of a recipe: `presets.none`, `repa` or `reed`, by the number of latents and the curriculum."""
    dropout = ConditionDropout(recipe.drop, Condition.without) if recipe.conditions and recipe.drop else None
    if not latents:
        return presets.none(process, dropout)
    if len(latents) == 1 and not recipe.denoising_warmup and recipe.alignment_end is None:
        return presets.repa(process, latents[0], dropout)
    return presets.reed(
        process, latents, recipe.denoising_warmup, recipe.alignment_end, dropout, scope=recipe.curriculum_scope
    )


@torch.no_grad()
def validation_losses(model: nn.Module, process: Product, data: DataSource, seed: int) -> dict[str, float]:
    """The mean training loss of each field, unweighted, over the first validation batches.

    Args:
        model: The denoiser, in evaluation mode.
        process: The process.
        data: Held-out data.
        seed: Of times and noise; the same seed asks the same questions.

    Returns:
        Means over molecules, as `valid_<field>`, and their weighted sum as `valid_loss`.
    """
    device = next(model.parameters()).device
    totals, count = dict.fromkeys(process.fields, 0.0), 0
    for batch, noise in _questions(data, mix_seed(seed, _VALIDATION)):
        x_0, mask = ({k: v.to(device) for k, v in fields.items()} for fields in (batch.x_0, batch.mask))
        t = process.sample_time(noise).to(device)
        at = process.corrupt(x_0, t, noise, mask)
        said = model(at.x_t, t, batch.c.to(device))
        for name, field in process.fields.items():
            totals[name] += float(field.loss(said[name], at.parts[name]).sum())
        count += len(noise)
    means = {f"valid_{name}": total / count for name, total in totals.items()}
    weighted = sum(process.weights.get(name, 1.0) * total / count for name, total in totals.items())
    return {"valid_loss": weighted, **means}


def _questions(data: DataSource, seed: int) -> Iterator[tuple[Batch, NoiseSource]]:
    """Validation batches, spread over the plan so that all sizes occur, with the noise of their items."""
    plan = data.plan(0)
    for items in islice(plan, 0, None, max(1, len(plan) // VALIDATION_BATCHES)):
        yield data.batch(items, NoiseSource(mix_seed(seed, 1), items)), NoiseSource(seed, items)


def train(
    recipe: Recipe,
    config: ModelConfig,
    data: DataSource,
    valid: DataSource,
    folder: Path,
    *,
    latents: Sequence[Latent] = (),
    make: MakeLatents | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> MoleculeModel:
    """Trains a model on data that is open already; arguments and result as in `run_recipe`.

    Args:
        recipe: The recipe.
        config: Of the model.
        data: Training data.
        valid: Held-out data.
        folder: The run.
        latents: Latents of the objective.
        make: Their values.
        device: Where to train.
        progress: Show a progress bar.

    Raises:
        InputError: If there are latents without values, the folder holds a run of another model, or the
            model is not told what the recipe says.
    """
    if latents and make is None:
        raise InputError("latents were given without their values; pass make=...")
    said = (recipe.conditions, recipe.alignment)
    if (tuple(one.name for one in config.conditions), config.alignment) != said:
        raise InputError("conditions or alignment of the model are not those of the recipe; make it by `config_of`")
    model = started(recipe, config).model
    process = recipe_process(recipe, model.vocabulary)
    objective = build_objective(recipe, process, latents)
    held_out = Told(valid)

    def measure(network: nn.Module) -> dict[str, float]:
        return validation_losses(network, process, held_out, recipe.train.seed)

    Trainer(model, objective, Told(data, make, recipe.drop), recipe.train, folder, measure, device).fit(progress)
    if parallel.is_main():
        save_pretrained(model, folder / "weights")
    return model


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    latents: Sequence[Latent] = (),
    make: MakeLatents | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> MoleculeModel:
    """Trains a recipe to its end, resuming what the folder holds; under torchrun, on all its processes.

    Args:
        recipe: The recipe.
        folder: The run: `config.json`, `log.jsonl`, `checkpoints/`, and at the end `weights/`, with the
            hashes of the molecules trained on.
        latents: Latents that the network is asked about; their taps are paths such as "network.blocks.2". None given
            takes those of the recipe.
        make: `make(items, batch)` returns the values of the latents given.
        device: Where to train.
        progress: Show a progress bar.

    Returns:
        The model with averaged weights.

    Raises:
        InputError: If the data is missing, or the folder holds a run of another recipe.
    """
    folder = Path(folder)
    if parallel.is_main():
        claim_folder(folder, recipe)
    known, held_out = (MoleculeSet.read(recipe.data, split) for split in ("train", "valid"))
    config = config_of(recipe, known)
    data, valid = (training_data(recipe, one, config.scale, config.conditions) for one in (known, held_out))
    if recipe.active and not latents:
        latents = build_latents(recipe.active, config.network, known.vocabulary)
        shuffle = recipe.train.seed if recipe.shuffle else None
        make = BatchLatents(open_sources(recipe.active, known, Path(recipe.cache), shuffle))
    model = train(recipe, config, data, valid, folder, latents=latents, make=make, device=device, progress=progress)
    if parallel.is_main():
        Known.of(known.identities).write(folder / "weights")
    return model
