"""Runs a recipe: builds model, objective, latents and data, trains, draws grids on the way, and saves weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from reed_core.denoiser import submodule
from reed_core.errors import InputError
from reed_core.hub import from_pretrained, save_pretrained
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.train import Batch, DataSource, Trainer, parallel
from reed_core.train.claim import claim_folder
from reed_core.train.estimate import Estimate, Stored, estimate_training
from reed_core.train.initial import Initial, settings_that_differ, take_over
from torch import nn

from reed_image.beside import (
    Beside,
    Caches,
    beside_pictures,
    fit_scales,
    needs_caches,
    open_caches,
    plans_of,
    prompts_of,
)
from reed_image.bundled import weights_folder
from reed_image.data import Prepared, open_prepared, training_data
from reed_image.data.training import ITEM, X
from reed_image.grid import write_grid
from reed_image.held_out import held_out_beside, held_out_loss, open_held_out
from reed_image.latents import build_latents
from reed_image.latents.store import Opened
from reed_image.model import ImageModel, ModelConfig
from reed_image.prompts import Prompts, read_prompts
from reed_image.recipe import Recipe
from reed_image.recipe_model import config_of
from reed_image.sample import Decoder, Request, decoder_of, draw
from reed_image.told import share, told_latents


@dataclass(frozen=True)
class Told:
    """Pictures whose class is told the network, but for those where it is withheld.

    Attributes:
        data: The pictures; their condition is a class number, or None.
        classes: Number of classes of the network; 0 tells none.
        drop: Probability that a picture's class and text are withheld.
        beside: What else belongs to them.
    """

    data: DataSource
    classes: int
    drop: float = 0.0
    beside: Beside = field(default_factory=Beside)

    def plan(self, epoch: int) -> Sequence[Sequence[int]]:
        """That of the data."""
        return self.data.plan(epoch)

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        """That of the data, told as a `Condition`; what is withheld depends on the sample's place in the run alone."""
        batch = self.data.batch(items, noise)
        numbers: list[int] = []
        if self.beside.numbered:
            numbers = batch.x_0[ITEM].tolist()
            batch = replace(batch, x_0=self.beside.state(batch.x_0[X], numbers))
        c = self.beside.condition(batch.c if self.classes else None, numbers)
        if c is None:
            return replace(batch, c=None)
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


def start(recipe: Recipe, prepared: Prepared, caches: Caches | None = None) -> Start:
    """The model a recipe starts from: random weights, replaced by those of `recipe.init` where name and shape agree.

    Args:
        recipe: The recipe.
        prepared: The pictures.
        caches: As of `config_of`.

    Raises:
        InputError: If the weights cannot be read, or are of another path or prediction.
    """
    if caches is None and needs_caches(recipe):
        caches = open_caches(recipe, prepared)
    config = config_of(recipe, prepared, caches)
    torch.manual_seed(recipe.train.seed)
    model = ImageModel(config)
    if caches is not None:
        fit_scales(recipe, model, caches.latents.values, len(prepared))
    if recipe.init is None:
        return Start(model, take_over(model, {}), (), ())
    given = from_pretrained(ImageModel, weights_folder(recipe.init))
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
    for spec in recipe.scored:
        submodule(model, spec.tap)
    asked = [spec for spec in recipe.scored if spec.injection == "implicit"]
    latents = build_latents(asked, opened.forms, model.config.network)
    latents += told_latents(model.config.told, model.config.network)
    objective = Objective(model.process, latents, recipe.curriculum.curriculum() if latents else None)
    return share(objective, model.generators) if model.config.told else objective


def open_data(recipe: Recipe, prepared: Prepared, opened: Opened, classes: int, beside: Beside | None = None) -> Told:
    """The training data of a recipe.

    Args:
        recipe: The recipe.
        prepared: The pictures.
        opened: The caches of its latents.
        classes: Number of classes of the network.
        beside: What else belongs to the pictures.

    Raises:
        InputError: If there are fewer pictures than a batch holds.
    """
    pictures = prepared.manifest.pictures
    if pictures < recipe.batch_size:
        raise InputError(f"{prepared.folder} holds {pictures} pictures; set batch_size to {pictures} or less")
    beside = beside or Beside()
    latents = {spec.name: opened.values[spec.name] for spec in recipe.scored}
    data = training_data(prepared, recipe.batch_size, seed=recipe.train.seed, latents=latents, numbered=beside.numbered)
    return Told(data, classes if data.labels is not None else 0, recipe.drop, beside)


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
    valid = None if recipe.valid is None else open_held_out(recipe.valid, prepared)
    caches = open_caches(recipe, prepared, recipe.train.seed if recipe.shuffle else None)
    model = start(recipe, prepared, caches).model
    network = model.config.network
    objective = build_objective(recipe, model, caches.latents)
    data = open_data(
        recipe,
        prepared,
        caches.latents,
        network.classes,
        beside_pictures(recipe, caches.latents.values, caches.text, model),
    )
    theirs = Beside() if valid is None else held_out_beside(recipe, valid, model)
    decode = decoder_of(model.config) if recipe.sampling.num else None
    prompts = _prompts(recipe, model.config, caches, prepared) if recipe.sampling.num else None
    if parallel.is_main():
        claim_folder(folder, recipe)

    def measure(denoiser: nn.Module) -> dict[str, float]:
        assert isinstance(denoiser, ImageModel)
        assert valid is not None
        return {"valid_loss": held_out_loss(denoiser, valid, recipe.batch_size, recipe.train.seed, theirs)}

    sample = None if decode is None else _grids(recipe, decode, prompts)
    trainer = Trainer(model, objective, data, recipe.train, folder, None if valid is None else measure, device, sample)
    trainer.fit(progress)
    if parallel.is_main():
        save_pretrained(model, folder / "weights")
    return model


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
    caches = open_caches(recipe, prepared, blanks=True)
    model = start(recipe, prepared, caches).model
    plans = [plan for plan, _ in plans_of(recipe)]
    return estimate_training(
        model,
        build_objective(recipe, model, caches.latents),
        open_data(
            recipe,
            prepared,
            caches.latents,
            model.config.network.classes,
            beside_pictures(recipe, caches.latents.values, caches.text, model),
        ),
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


def _prompts(recipe: Recipe, config: ModelConfig, caches: Caches, prepared: Prepared) -> Prompts | None:
    """The texts of the grids: those of the recipe, or captions of the data."""
    if caches.text is None:
        return None
    if recipe.sampling.texts:
        return read_prompts(config, recipe.sampling.texts)
    return prompts_of(caches.text, prepared, recipe.sampling.num)


def _grids(recipe: Recipe, decode: Decoder, prompts: Prompts | None) -> Callable[[nn.Module, Path], None]:
    """What draws the grid of a run."""
    spec = recipe.sampling

    def sample(denoiser: nn.Module, folder: Path) -> None:
        assert isinstance(denoiser, ImageModel)
        scale = spec.cfg if denoiser.config.network.classes or prompts is not None else 1.0
        request = Request(
            spec.num, seed=spec.seed, steps=spec.steps, sampler=spec.sampler, scale=scale, prompts=prompts
        )
        decode.to(next(denoiser.parameters()).device)
        found = [decode(drawn.x) for drawn in draw(denoiser, request)]
        decode.to("cpu")
        write_grid(torch.cat(found), folder / "grid.png", _columns(spec.num, denoiser.config.network.classes))

    return sample


def _columns(num: int, classes: int) -> int | None:
    """A column for each class, where they are few."""
    return classes if 1 < classes <= min(num, 16) else None
