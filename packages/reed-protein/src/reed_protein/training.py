"""Runs a recipe: builds network, objective, latents and data, trains, and saves weights."""

from dataclasses import dataclass
from pathlib import Path

import torch
from reed_core import presets
from reed_core.hub import from_pretrained, save_pretrained
from reed_core.objective import Objective
from reed_core.process import Masked
from reed_core.train import Trainer, parallel
from reed_core.train.claim import claim_folder
from reed_core.train.initial import Initial, settings_that_differ, take_over
from torch import nn

from reed_protein.dataset import ChainSet, TrainingData
from reed_protein.evaluation import evaluate
from reed_protein.latents import build_latents, make_latents, open_sources
from reed_protein.latents.spec import weights_folder
from reed_protein.network import MASK_TOKEN, NUM_TOKENS, InverseFolding
from reed_protein.recipe import Recipe, open_chains


def build_objective(recipe: Recipe) -> Objective:
    """The objective of a recipe: `presets.reed` with latents, `presets.none` without."""
    process = Masked(NUM_TOKENS, MASK_TOKEN, recipe.time_weight)
    if not recipe.active:
        return presets.none(process)
    latents = build_latents(recipe.active, recipe.network)
    return presets.reed(process, latents, recipe.denoising_warmup, recipe.alignment_end, scope=recipe.curriculum_scope)


@dataclass(frozen=True)
class Start:
    """A network before its first step.

    Attributes:
        network: The network.
        initial: What was taken over from `init` and what is random; everything is, without it.
        differ: Settings of the network that are others than those of the weights.
    """

    network: InverseFolding
    initial: Initial
    differ: tuple[str, ...]

    @property
    def random(self) -> tuple[str, ...]:
        """Names of the parameters with random values."""
        return self.initial.random


def start(recipe: Recipe) -> Start:
    """The network a recipe starts from: random weights, replaced by those of `recipe.init` where name and shape agree.

    Raises:
        InputError: If the weights cannot be read.
    """
    torch.manual_seed(recipe.train.seed)
    network = InverseFolding(recipe.network)
    if recipe.init is None:
        return Start(network, take_over(network, {}), ())
    given = from_pretrained(InverseFolding, weights_folder(recipe.init))
    differ = settings_that_differ(given.config, recipe.network)
    return Start(network, take_over(network, given.state_dict()), tuple(differ))


def run_recipe(recipe: Recipe, folder: Path, device: str = "cpu", progress: bool = True) -> InverseFolding:
    """Trains a recipe to its end, resuming what the folder holds; under torchrun, on all its processes.

    Args:
        recipe: The recipe.
        folder: The run: `config.json`, `log.jsonl`, `checkpoints/`, and at the end `weights/`.
        device: Where to train.
        progress: Show a progress bar.

    Returns:
        The network with averaged weights.

    Raises:
        InputError: If the data is missing, or the folder holds a run of another recipe.
    """
    folder = Path(folder)
    if parallel.is_main():
        claim_folder(folder, recipe)
    chains, valid = open_chains(recipe.train_set), open_chains(recipe.valid_set)
    held_out = valid if isinstance(valid, ChainSet) else ChainSet.of(valid)
    network = start(recipe).network
    objective = build_objective(recipe)
    shuffle = recipe.train.seed if recipe.shuffle else None
    sources = open_sources(recipe.active, chains, Path(recipe.cache), recipe.network.neighbours, shuffle)
    make = make_latents(sources) if sources else None
    data = TrainingData(chains, recipe.train.seed, recipe.batch_residues, recipe.jitter, make)

    def measure(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, InverseFolding)
        found = evaluate(model, held_out)
        return {
            "median_recovery": found.median_recovery,
            "mean_recovery": found.mean_recovery,
            "pooled_recovery": found.pooled_recovery,
            "perplexity_any_order": found.perplexity_any_order,
            "perplexity_elbo": found.perplexity_elbo,
            "perplexity_one_shot": found.perplexity_one_shot,
        }

    Trainer(network, objective, data, recipe.train, folder, measure, device).fit(progress)
    if parallel.is_main():
        save_pretrained(network, folder / "weights")
    return network
