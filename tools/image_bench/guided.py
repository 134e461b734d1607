"""One arm of tools/bench_image_guidance.py: its recipe, its training, and the Frechet distance on the way.

The distance is of pictures that the averaged weights draw, 8-bit as files hold them, to held-out pictures, in the
features of a network that guides nobody. Picture i is drawn from the same noise, of the same class, at every point of
every run, so that runs differ by their weights alone.
"""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from reed_core.hub import save_pretrained
from reed_core.train import Trainer
from reed_core.train.claim import claim_folder
from reed_core.train.config import read_config
from reed_image.autoencoder import load_autoencoder
from reed_image.data import Prepared, open_prepared, open_source, prepare
from reed_image.evaluation import collect
from reed_image.latents import featurize, open_latents, plan_of
from reed_image.metrics.features import Extractor
from reed_image.metrics.gaussian import Gaussian, frechet_distance
from reed_image.metrics.pictures import Pictures, Squares, of_model, of_prepared
from reed_image.model import ImageModel
from reed_image.recipe import Recipe, recipe_path
from reed_image.sample import Request, decoder_of
from reed_image.training import build_objective, open_data, start
from torch import nn

from image_bench.steps import LOW

FIGURE = "fd"
AT_ONCE = 100


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Waits until no other process prepares the same folder."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def settings(arm: str, names: Sequence[str], samples: int, warmup: float, fade: float) -> list[str]:
    """What makes an arm of a recipe, as assignments.

    Args:
        arm: "none", "repa", "reed" or "shuffled".
        names: Names of the recipe's latents.
        samples: The budget.
        warmup: Share of it over which the denoising weight rises from 0 to 1, where there is a curriculum.
        fade: Share of it after which the alignment weight has fallen to 0 along a cosine; 0 never.
    """
    if arm == "none":
        return ["latents=[]"]
    if arm == "repa":
        listed = ", ".join(f'"{name}"' for name in names[1:])
        return [f"without=[{listed}]"]
    chosen = [f"curriculum.denoising_warmup={warmup * samples:g}"]
    if fade:
        chosen += ['curriculum.alignment="cosine"', f"curriculum.alignment_end={fade * samples:g}"]
    return chosen + (["shuffle=true"] if arm == "shuffled" else [])


def made_ready(out: Path, train: str, test: str, size: int, recipe: str, overrides: Sequence[str]) -> Recipe:
    """Prepares both sets of pictures as pixels and writes the caches of all latents; what is there is kept.

    Args:
        out: The folder of everything.
        train: Pictures to train on.
        test: Pictures to compare with.
        size: Their side.
        recipe: A recipe file, or the name of one.
        overrides: Settings of the recipe.

    Returns:
        The recipe with all its latents, on these pictures.
    """
    with alone(out):
        for name, source in (("train", train), ("test", test)):
            prepare(open_source(source), out / name, load_autoencoder("pixels"), size=size)
        places = [f"data={out / 'train'}", f"cache={out / 'cache'}"]
        found = read_config(Recipe, recipe_path(recipe), [*places, *overrides])
        prepared = open_prepared(out / "train")
        grid = found.network.of(prepared).grid
        for spec in found.active:
            plan = plan_of(spec, prepared, out / "cache", grid)
            if not plan.complete:
                featurize(plan, prepared)
    return found


def features(pictures: Pictures, judge: Extractor) -> Gaussian:
    """Mean and covariance of the features of some pictures."""
    return collect(Squares(pictures), [judge], AT_ONCE, keep=False)[0].gaussian


def distance(judge: Extractor, test: Prepared, request: Request, precision: str) -> Callable[[nn.Module], Any]:
    """What measures a model: {"fd": the Frechet distance of what it draws to the test pictures}.

    Args:
        judge: The network that looks.
        test: The pictures to compare with.
        request: What is drawn.
        precision: Of the network while it draws: that of the training.
    """
    reference, low = features(of_prepared(test), judge), LOW[precision]

    def measure(denoiser: nn.Module) -> dict[str, float]:
        assert isinstance(denoiser, ImageModel)
        kind = next(denoiser.parameters()).device.type
        with torch.autocast(kind, low, enabled=low is not None):
            drawn = of_model(denoiser, decoder_of(denoiser.config), request, "samples")
            return {FIGURE: frechet_distance(features(drawn, judge), reference)}

    return measure


def train(recipe: Recipe, folder: Path, measure: Callable[[nn.Module], Any], device: str, progress: bool) -> None:
    """Trains one arm to its end, resuming what is there; figures go to its log, weights into `folder/weights`."""
    prepared = open_prepared(recipe.data)
    model = start(recipe, prepared).model
    network = model.config.network
    shuffle = recipe.train.seed if recipe.shuffle else None
    opened = open_latents(recipe.active, prepared, Path(recipe.cache), network.grid, shuffle)
    objective = build_objective(recipe, model, opened)
    data = open_data(recipe, prepared, opened, network.classes)
    claim_folder(folder, recipe)
    Trainer(model, objective, data, recipe.train, folder, measure, device).fit(progress)
    save_pretrained(model, folder / "weights")
