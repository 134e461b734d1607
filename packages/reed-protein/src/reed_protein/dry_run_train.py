"""What `train --dry-run` and `featurize --dry-run` say: the work, the hours, the memory and the disk of a recipe."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from reed_core.representation.estimate import estimate_encoding
from reed_core.train.estimate import Estimate, Measure, Stored, estimate_training, size

from reed_protein.dataset import Chains, TrainingData
from reed_protein.latents import Plan, make_latents, open_sources, plan_of
from reed_protein.latents.spec import StoredSpec
from reed_protein.latents.store import builder_of
from reed_protein.network import UNKNOWN_TOKEN
from reed_protein.recipe import Recipe, open_chains
from reed_protein.training import build_objective, start

_LOOKED_AT = 512


def training_estimate(recipe: Recipe, folder: Path, device: str = "cpu") -> Estimate:
    """The cost of `run_recipe`; writes nothing.

    Latents whose cache is not there yet are stood in for, so an estimate can come before `featurize`.

    Args:
        recipe: The recipe.
        folder: The run.
        device: Where to train.

    Raises:
        InputError: If data or weights are missing.
    """
    chains = open_chains(recipe.train_set)
    neighbours, lengths = recipe.network.neighbours, chains.lengths
    plans = plans_of(recipe, chains)
    shuffle = recipe.train.seed if recipe.shuffle else None
    sources = open_sources(recipe.active, chains, Path(recipe.cache), neighbours, shuffle, blanks=True)
    data = TrainingData(
        chains, recipe.train.seed, recipe.batch_residues, recipe.jitter, make_latents(sources) if sources else None
    )

    def residues(items: Sequence[int]) -> float:
        return float(lengths[list(items)].max() * len(items))

    network = start(recipe).network
    return estimate_training(
        network,
        build_objective(recipe),
        data,
        recipe.train,
        unit="chains",
        measure=Measure("residues, padding included", residues),
        device=device,
        folder=folder,
        also=[
            Stored(
                f"cache of {plan.spec.name} ({plan.spec.format})",
                plan.bytes,
                "there" if plan.complete else "to be written first, by reed-protein featurize",
                written=False,
            )
            for plan in plans
        ],
    )


def cache_report(plan: Plan, chains: Chains, part: tuple[int, int], device: str) -> str:
    """The cost of writing one cache, or this worker's part of it; writes nothing.

    Args:
        plan: The cache.
        chains: The chains.
        part: (i, n): the i-th of n parts, i from 0.
        device: Where the encoder runs.
    """
    spec = plan.spec
    head = (
        f"{spec.name}: {plan.folder} ({'complete' if plan.complete else 'to be written'}): {plan.chains} chains, "
        f"{plan.rows} residues, {spec.level} level, width {spec.dim_of}, {spec.format}, {plan.shards} shards, "
        f"{size(plan.bytes)}"
    )
    if plan.complete:
        return head
    if not spec.within_reach():
        return f"{head}\n  time  not measured: the encoder would be downloaded first"
    found = estimate_encoding(
        builder_of(plan, chains, device),
        chains.lengths.tolist(),
        plan.bytes,
        name=spec.name,
        unit="chains",
        measure="residues",
        part=part,
        device=device,
    )
    return "\n".join([head, *(f"  {line}" for line in found.table().splitlines())])


def plans_of(recipe: Recipe, chains: Chains) -> list[Plan]:
    """The caches that a recipe trains with."""
    stored = [spec for spec in recipe.active if isinstance(spec, StoredSpec)]
    return [plan_of(spec, chains, Path(recipe.cache), recipe.network.neighbours) for spec in stored]


def unknown_to_weights(chains: Chains) -> list[str]:
    """What chains hold that no weights of this family know: residues of no known type.

    Args:
        chains: The chains; of many, some spread evenly are read.
    """
    places = np.unique(np.linspace(0, len(chains) - 1, min(len(chains), _LOOKED_AT)).astype(int)).tolist()
    tokens = torch.cat([chains.chain(place).tokens for place in places])
    count = int((tokens >= UNKNOWN_TOKEN).sum())
    if not count:
        return []
    among = f"{len(tokens)} residues" + (f" of {len(places)} chains looked at" if len(places) < len(chains) else "")
    return [f"{count} of {among} are of no known type (seen as unknown, never scored)"]
