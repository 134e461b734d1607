"""What `train --dry-run` prints: the cost of a run, measured on a throw-away copy; nothing is written."""

from collections.abc import Sequence
from pathlib import Path

from reed_core.train.estimate import Estimate, Measure, estimate_training

from reed_molecule.dataset import MoleculeSet
from reed_molecule.latents import BatchLatents, build_latents, open_sources
from reed_molecule.recipe import Recipe
from reed_molecule.start import Start
from reed_molecule.training import Told, build_objective, recipe_process, training_data


def training_estimate(recipe: Recipe, begin: Start, folder: Path, device: str) -> Estimate:
    """Disk, memory, hours and batch of the run of a recipe; its latents are read as the run would read them.

    Args:
        recipe: The recipe.
        begin: Where it starts.
        folder: The run, to see whether its disk has room.
        device: Where it would train.

    Raises:
        InputError: If the data or a cache cannot be read.
    """
    model = begin.model
    known = MoleculeSet.read(recipe.data, "train")
    data = training_data(recipe, known, model.config.scale, model.config.conditions)
    told = BatchLatents(open_sources(recipe.active, known, Path(recipe.cache), None)) if recipe.active else None

    def pairs(items: Sequence[int]) -> float:
        return float(len(items) * int(known.sizes[list(items)].max()) ** 2)

    return estimate_training(
        model,
        build_objective(
            recipe,
            recipe_process(recipe, model.vocabulary),
            build_latents(recipe.active, model.config.network, known.vocabulary),
        ),
        Told(data, told),
        recipe.train,
        unit="molecules",
        measure=Measure("pairs of atoms", pairs),
        device=device,
        folder=folder,
    )
