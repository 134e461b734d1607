"""The loss of pictures that are never trained on, at times and noise of fixed streams: so runs can be compared."""

from collections.abc import Iterator
from pathlib import Path

import torch
from reed_core.errors import InputError
from reed_core.noise import NoiseSource, mix_seed
from reed_core.state import map_state

from reed_image.beside import Beside, beside_pictures, shown
from reed_image.data import Prepared, open_prepared
from reed_image.latents import open_latents
from reed_image.latents.text import open_text
from reed_image.model import ImageModel
from reed_image.recipe import Recipe

VALIDATION_BATCHES = 8
_VALIDATION = 0x76616C69


def open_held_out(folder: str, trained: Prepared) -> Prepared:
    """Prepared pictures of the same kind as those that are trained on."""
    found = open_prepared(folder)
    mine, theirs = trained.manifest, found.manifest
    if (mine.autoencoder, mine.recipe.size, mine.classes) != (theirs.autoencoder, theirs.recipe.size, theirs.classes):
        raise InputError(
            f"{folder} and {trained.folder} differ in autoencoder, normalisation, size or classes; prepare both alike"
        )
    return found


def held_out_beside(recipe: Recipe, prepared: Prepared, model: ImageModel) -> Beside:
    """What stands beside held-out pictures: that which the model cannot be asked without.

    Raises:
        InputError: If a cache is missing; `featurize` writes them with those of the pictures that are trained on.
    """
    root, specs = Path(recipe.cache), shown(recipe)
    text = None if recipe.text is None else open_text(recipe.text, prepared, root)
    opened = open_latents(specs, prepared, root, model.config.network.grid)
    return beside_pictures(recipe, opened.values, text, model)


@torch.no_grad()
def held_out_loss(
    model: ImageModel, prepared: Prepared, batch_size: int, seed: int, beside: Beside | None = None
) -> float:
    """The mean denoising loss over some pictures, at fixed times and noise.

    Args:
        model: The model, in evaluation mode.
        prepared: Pictures that are not trained on; of many, some batches spread evenly.
        batch_size: Pictures at once.
        seed: Of times and noise.
        beside: What else belongs to the pictures; z that the model is told is shown.
    """
    beside = beside or Beside()
    device, process = next(model.parameters()).device, model.process
    total, count = 0.0, 0
    for items, noise in _questions(prepared, batch_size, mix_seed(seed, _VALIDATION)):
        x = prepared.latents(items, NoiseSource(mix_seed(noise.seed, 1), noise.positions))
        x_0 = map_state(lambda part: part.to(device), beside.state(x, items))
        t = process.sample_time(noise).to(device)
        at = process.corrupt(x_0, t, noise)
        c = beside.condition(prepared.labels_of(items) if model.config.network.classes else None, items)
        said = model(at.x_t, t, None if c is None else c.to(device), beside.revealed(items, device))
        total += float(process.loss(said, at).sum())
        count += len(items)
    return total / count


def _questions(prepared: Prepared, batch_size: int, seed: int) -> Iterator[tuple[list[int], NoiseSource]]:
    """Batches of pictures as they are, not mirrored, with the noise of their numbers."""
    items = range(0, len(prepared), prepared.copies)
    starts = range(0, len(items), batch_size)
    for begin in starts[:: max(1, len(starts) // VALIDATION_BATCHES)]:
        some = list(items[begin : begin + batch_size])
        yield some, NoiseSource(seed, some)
