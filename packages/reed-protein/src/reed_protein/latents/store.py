"""Caches of latents, one folder each, named by what is in it: `KIND-DIGEST-CHAINS`, of settings, format and chains.

Training finds a cache by its settings, without loading the encoder (`reed_core.representation.by_settings`); whoever
finds only another cache is told what sets it apart.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from reed_core.errors import InputError
from reed_core.representation import Cache, CacheBuilder
from reed_core.representation.build import PartProgress
from reed_core.representation.by_settings import (
    Stamped,
    absent,
    cache_folder,
    is_complete,
    open_by_settings,
    settings_in,
    settings_of,
)
from reed_core.representation.encoder import move_encoder
from reed_core.representation.format import SHARD_HEADER, components, row_bytes
from reed_core.representation.identity import differences
from reed_core.representation.shard import MANIFEST, Manifest

from reed_protein.dataset import Chains, CleanChains
from reed_protein.latents.spec import MARGIN, StoredSpec

SHARD_ITEMS = 128
BATCH_ITEMS = 4


@dataclass(frozen=True)
class Plan:
    """A cache to be written.

    Attributes:
        spec: The latent.
        folder: Where.
        settings: The settings, as parts of a fingerprint.
        data: The fingerprint of the chains.
        edges: Edges per residue of a pair latent.
        chains: Number of chains.
        rows: Residues, at most.
        shards: Number of files.
        bytes: Size on disk, at most.
    """

    spec: StoredSpec
    folder: Path
    settings: str
    data: str
    edges: int
    chains: int
    rows: int
    shards: int
    bytes: int

    @property
    def complete(self) -> bool:
        """Whether it is there already."""
        return is_complete(self.folder)


def plan_of(spec: StoredSpec, chains: Chains, root: Path, neighbours: int) -> Plan:
    """What `featurize` would write; loads no encoder.

    Args:
        spec: The latent.
        chains: The chains.
        root: The folder of caches.
        neighbours: Neighbours of the network; a pair latent is stored on some more.
    """
    edges = neighbours + MARGIN
    settings = settings_of(spec.parts(edges))
    rows, places = int(chains.lengths.sum()), edges if spec.level == "pair" else 1
    shards, k = -(-len(chains) // SHARD_ITEMS), components(spec.format, spec.dim_of)
    basis = 4 * spec.dim_of * (k + 1) + SHARD_HEADER if k else 0
    return Plan(
        spec=spec,
        folder=cache_folder(Path(root), spec.kind, settings, spec.format, chains.fingerprint),
        settings=settings,
        data=chains.fingerprint,
        edges=edges,
        chains=len(chains),
        rows=rows,
        shards=shards,
        bytes=rows * places * row_bytes(spec.format, spec.dim_of) + 8 * len(chains) + SHARD_HEADER * shards + basis,
    )


def featurize(
    plan: Plan,
    chains: Chains,
    device: torch.device | str = "cpu",
    part: tuple[int, int] = (0, 1),
    progress: PartProgress | None = None,
) -> Cache | None:
    """Writes what is missing of a cache; stopped at any moment, it goes on with the next shard.

    Args:
        plan: The cache.
        chains: The chains it was planned for.
        device: Where the encoder runs.
        part: (i, n): write the i-th of n parts of the shards, i from 0, for n workers. The call that finds all shards
            there finishes the cache.
        progress: Called as progress(completed=, total=) with the shards looked after and their number.

    Returns:
        The cache; None if another worker still has shards to write.

    Raises:
        InputError: If the encoder is not to be had, an item cannot be encoded, or the folder holds another cache.
    """
    return builder_of(plan, chains, device).write_part(part, progress)


def builder_of(plan: Plan, chains: Chains, device: torch.device | str = "cpu") -> CacheBuilder:
    """Loads the encoder of a plan; writes nothing.

    Args:
        plan: The cache.
        chains: The chains it was planned for.
        device: Where the encoder runs.

    Raises:
        InputError: If the encoder is not to be had, or of another width than the recipe says.
    """
    encoder = plan.spec.encoder(plan.edges)
    if encoder.dim != plan.spec.dim_of:
        raise InputError(
            f"latent '{plan.spec.name}': the encoder's width is {encoder.dim}, the recipe says {plan.spec.dim_of}; "
            "correct the recipe"
        )
    move_encoder(encoder, device)
    return CacheBuilder(
        plan.folder,
        Stamped(encoder, plan.settings),
        CleanChains(chains),
        format=plan.spec.format,
        shard_items=SHARD_ITEMS,
        batch_items=BATCH_ITEMS,
    )


def open_plan(plan: Plan) -> Cache:
    """Opens a cache for training, without its encoder.

    Args:
        plan: The cache.

    Raises:
        InputError: If it is not there, not finished, damaged, or was written under other settings; a cache of the
            same kind that is there instead is named, with what sets it apart.
    """
    if not plan.complete:
        raise absent(plan.spec.name, plan.folder, "reed-protein", _instead(plan))
    cache = open_by_settings(plan.folder, plan.settings, plan.data)
    content = cache.manifest.content
    if (content.dim, content.level, content.format) != (plan.spec.dim_of, plan.spec.level, plan.spec.format):
        raise InputError(f"{plan.folder} holds another latent than '{plan.spec.name}'; remove it and featurize again")
    return cache


def _instead(plan: Plan) -> str:
    """What sets the nearest cache of the same kind apart from the one that is wanted; nothing if there is none."""
    found: list[tuple[int, str]] = []
    for path in sorted(plan.folder.parent.glob(f"{plan.spec.kind}-*/{MANIFEST}")):
        try:
            content = Manifest.model_validate_json(path.read_text(encoding="utf-8")).content
        except (OSError, ValueError):
            continue  # of an earlier layout, or no cache
        differ = [
            *differences("latent", settings_in(content.encoder_fingerprint), plan.settings),
            *differences("data", content.data_fingerprint, plan.data),
            *differences("format", content.format, plan.spec.format),
        ]
        found.append((len(differ), f" (in {path.parent.name}, {', '.join(differ)})"))
    return min(found)[1].replace("(settings.", "(") if found else ""
