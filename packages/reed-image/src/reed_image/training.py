"""Runs a recipe: builds model, objective, latents and data, trains, draws grids on the way, and saves weights.

The held-out loss draws its times and noise from fixed streams, so that runs can be compared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from reed_core.denoiser import submodule
from reed_core.errors import InputError
from reed_core.hub import from_pretrained, save_pretrained
from reed_core.noise import NoiseSource, mix_seed
from reed_core.objective import Objective
from reed_core.train import Batch, DataSource, Trainer, parallel
from reed_core.train.claim import claim_folder
from reed_core.train.estimate import Estimate, Stored, estimate_training
from reed_core.train.initial import Initial, settings_that_differ, take_over
from torch import nn

from reed_image.autoencoder import AutoencoderSpec
from reed_image.autoencoder.load import PIXELS
from reed_image.data import Prepared, open_prepared, training_data
from reed_image.grid import write_grid
from reed_image.latents import build_latents, open_latents, plan_of
from reed_image.latents.store import Opened
from reed_image.model import ImageModel, ModelConfig
from reed_image.network import Condition
from reed_image.recipe import Recipe
from reed_image.sample import Decoder, Request, decoder_of, draw

VALIDATION_BATCHES = 8
_VALIDATION = 0x76616C69


@dataclass(frozen=True)
class Told:
    """Pictures whose class is told the network, but for those where it is withheld.

    Attributes:
        data: The pictures; their condition is a class number, or None.
        classes: Number of classes of the network; 0 tells none.
        drop: Probability that a picture's class is withheld.
    """

    data: DataSource
    classes: int
    drop: float = 0.0

    def plan(self, epoch: int) -> Sequence[Sequence[int]]:
        """That of the data."""
        return self.data.plan(epoch)

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        """That of the data, told as a `Condition`; what is withheld depends on the sample's place in the run alone."""
        batch = self.data.batch(items, noise)
        if not self.classes:
            return replace(batch, c=None)
        c = Condition(batch.c)
        return replace(batch, c=c.dropped(noise.uniform(()) < self.drop) if self.drop else c)


@dataclass(frozen=True)
class Start:
    """A model before its first step.

    Attributes:
        model: The model.
        initial: What was taken over from `init` and what is random.
        differ: Settings of the network that are others than those of the weights.
        unknown: Classes of the data that the weights do not know by name.
    """

    model: ImageModel
    initial: Initial
    differ: tuple[str, ...]
    unknown: tuple[str, ...]


def config_of(recipe: Recipe, prepared: Prepared) -> ModelConfig:
    """What the model of a recipe is.

    Raises:
        InputError: If network and pictures do not fit together.
    """
    network = recipe.network.of(prepared)
    names = prepared.manifest.classes
    return ModelConfig(
        network=network,
        path=recipe.path,
        prediction=recipe.prediction,
        autoencoder=_autoencoder(recipe, prepared),
        class_names=names if len(names) == network.classes else (),
    )


def start(recipe: Recipe, prepared: Prepared) -> Start:
    """The model a recipe starts from: random weights, replaced by those of `recipe.init` where name and shape agree.

    Raises:
        InputError: If the weights cannot be read, or are of another path or prediction.
    """
    config = config_of(recipe, prepared)
    torch.manual_seed(recipe.train.seed)
    model = ImageModel(config)
    if recipe.init is None:
        return Start(model, take_over(model, {}), (), ())
    given = from_pretrained(ImageModel, Path(recipe.init))
    if (given.config.path, given.config.prediction) != (config.path, config.prediction):
        raise InputError(
            f"{recipe.init} predicts {given.config.prediction} on the {given.config.path} path, the recipe says "
            f"{config.prediction} on the {config.path} path; set both as the weights have them"
        )
    differ = settings_that_differ(given.config.network, config.network)
    unknown = [f"class {name}" for name in config.class_names if name not in given.config.class_names]
    return Start(model, take_over(model, given.state_dict()), tuple(differ), tuple(unknown))


def build_objective(recipe: Recipe, model: ImageModel, opened: Opened) -> Objective:
    """The objective of a recipe: plain diffusion, REPA with one latent, REED with several.

    Raises:
        InputError: If a latent reads a module that is not there.
    """
    for spec in recipe.active:
        submodule(model, spec.tap)
    latents = build_latents(recipe.active, opened.forms, model.config.network)
    return Objective(model.process, latents, recipe.curriculum.curriculum() if latents else None)


def open_data(recipe: Recipe, prepared: Prepared, opened: Opened, classes: int) -> Told:
    """The training data of a recipe.

    Raises:
        InputError: If there are fewer pictures than a batch holds.
    """
    pictures = prepared.manifest.pictures
    if pictures < recipe.batch_size:
        raise InputError(f"{prepared.folder} holds {pictures} pictures; set batch_size to {pictures} or less")
    data = training_data(prepared, recipe.batch_size, seed=recipe.train.seed, latents=opened.values)
    return Told(data, classes if data.labels is not None else 0, recipe.drop)


def run_recipe(recipe: Recipe, folder: Path, device: str = "cpu", progress: bool = True) -> ImageModel:
    """Trains a recipe to its end, resuming what the folder holds; under torchrun, on all its processes.

    Args:
        recipe: The recipe.
        folder: The run: `config.json`, `log.jsonl`, `checkpoints/`, `samples/`, and at the end `weights/`.
        device: Where to train.
        progress: Show a progress bar.

    Returns:
        The model with averaged weights.

    Raises:
        InputError: If data, a cache or the autoencoder is missing, or the folder holds a run of another recipe.
    """
    folder = Path(folder)
    prepared = open_prepared(recipe.data)
    valid = None if recipe.valid is None else _held_out(recipe.valid, prepared)
    model = start(recipe, prepared).model
    network = model.config.network
    shuffle = recipe.train.seed if recipe.shuffle else None
    opened = open_latents(recipe.active, prepared, Path(recipe.cache), network.grid, shuffle)
    objective = build_objective(recipe, model, opened)
    data = open_data(recipe, prepared, opened, network.classes)
    decode = decoder_of(model.config) if recipe.sampling.num else None
    if parallel.is_main():
        claim_folder(folder, recipe)

    def measure(denoiser: nn.Module) -> dict[str, float]:
        assert isinstance(denoiser, ImageModel)
        assert valid is not None
        return {"valid_loss": held_out_loss(denoiser, valid, recipe.batch_size, recipe.train.seed)}

    sample = None if decode is None else _grids(recipe, decode)
    trainer = Trainer(model, objective, data, recipe.train, folder, None if valid is None else measure, device, sample)
    trainer.fit(progress)
    if parallel.is_main():
        save_pretrained(model, folder / "weights")
    return model


@torch.no_grad()
def held_out_loss(model: ImageModel, prepared: Prepared, batch_size: int, seed: int) -> float:
    """The mean denoising loss over some pictures, at fixed times and noise.

    Args:
        model: The model, in evaluation mode.
        prepared: Pictures that are not trained on; of many, some batches spread evenly.
        batch_size: Pictures at once.
        seed: Of times and noise.
    """
    device, process = next(model.parameters()).device, model.process
    total, count = 0.0, 0
    for items, noise in _questions(prepared, batch_size, mix_seed(seed, _VALIDATION)):
        x_0 = prepared.latents(items, NoiseSource(mix_seed(noise.seed, 1), noise.positions)).to(device)
        t = process.sample_time(noise).to(device)
        at = process.corrupt(x_0, t, noise)
        c = Condition(prepared.labels_of(items).to(device)) if model.config.network.classes else None
        total += float(process.loss(model(at.x_t, t, c), at).sum())
        count += len(items)
    return total / count


def training_estimate(recipe: Recipe, folder: Path, device: str = "cpu") -> Estimate:
    """The cost of `run_recipe`; writes nothing. Caches that are not there yet are stood in for.

    Args:
        recipe: The recipe.
        folder: The run.
        device: Where to train.

    Raises:
        InputError: If data or weights are missing.
    """
    prepared = open_prepared(recipe.data)
    model = start(recipe, prepared).model
    network, root = model.config.network, Path(recipe.cache)
    opened = open_latents(recipe.active, prepared, root, network.grid, blanks=True)
    plans = [plan_of(spec, prepared, root, network.grid) for spec in recipe.active]
    return estimate_training(
        model,
        build_objective(recipe, model, opened),
        open_data(recipe, prepared, opened, network.classes),
        recipe.train,
        unit="pictures",
        device=device,
        folder=folder,
        also=[
            Stored(
                f"cache of {plan.spec.name} ({plan.spec.format})",
                sum(path.stat().st_size for path in plan.folder.glob("*.safetensors")),
                "there" if plan.complete else "to be written first, by reed-image featurize, whose --dry-run says more",
                written=False,
            )
            for plan in plans
        ],
    )


def _autoencoder(recipe: Recipe, prepared: Prepared) -> AutoencoderSpec | None:
    """What decodes: that of the data, by the name the recipe prefers; None where data are plain pixels."""
    spec = prepared.manifest.autoencoder
    if spec.name == PIXELS and set(spec.shift) == {0.0} and set(spec.scale) == {1.0}:
        return None
    return spec if recipe.autoencoder is None else spec.model_copy(update={"name": recipe.autoencoder, "weights": ""})


def _held_out(folder: str, trained: Prepared) -> Prepared:
    """Prepared pictures of the same kind as those that are trained on."""
    found = open_prepared(folder)
    mine, theirs = trained.manifest, found.manifest
    if (mine.autoencoder, mine.recipe.size, mine.classes) != (theirs.autoencoder, theirs.recipe.size, theirs.classes):
        raise InputError(
            f"{folder} and {trained.folder} differ in autoencoder, normalisation, size or classes; prepare both alike"
        )
    return found


def _questions(prepared: Prepared, batch_size: int, seed: int) -> Iterator[tuple[list[int], NoiseSource]]:
    """Batches of pictures as they are, not mirrored, with the noise of their numbers."""
    items = range(0, len(prepared), prepared.copies)
    starts = range(0, len(items), batch_size)
    for begin in starts[:: max(1, len(starts) // VALIDATION_BATCHES)]:
        some = list(items[begin : begin + batch_size])
        yield some, NoiseSource(seed, some)


def _grids(recipe: Recipe, decode: Decoder) -> Callable[[nn.Module, Path], None]:
    """What draws the grid of a run."""
    spec = recipe.sampling

    def sample(denoiser: nn.Module, folder: Path) -> None:
        assert isinstance(denoiser, ImageModel)
        scale = spec.cfg if denoiser.config.network.classes else 1.0
        request = Request(spec.num, seed=spec.seed, steps=spec.steps, sampler=spec.sampler, scale=scale)
        decode.to(next(denoiser.parameters()).device)
        found = [decode(drawn.x) for drawn in draw(denoiser, request)]
        decode.to("cpu")
        write_grid(torch.cat(found), folder / "grid.png", _columns(spec.num, denoiser.config.network.classes))

    return sample


def _columns(num: int, classes: int) -> int | None:
    """A column for each class, where they are few."""
    return classes if 1 < classes <= min(num, 16) else None
