"""Caches of latents, one folder each, named by what is in it: `KIND-DIGEST-MOLECULES`, of settings, format and data.

The fingerprint of the values is that of the settings: they determine the encoder, weights included (by hash). So
training recognises a cache without loading the encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool
from reed_core.latent import Representation
from reed_core.representation import Cache, CacheBuilder, Encoder, named, open_cache
from reed_core.representation.build import PartProgress
from reed_core.representation.by_settings import absent, cache_folder, is_complete
from reed_core.representation.encoder import move_encoder
from reed_core.representation.format import row_bytes
from reed_core.state import State
from torch import Tensor

from reed_molecule.dataset import MoleculeSet
from reed_molecule.encoders.clean import CleanMolecules
from reed_molecule.latents.spec import LatentSpec, PairSpec, VectorSpec

SHARD_ITEMS = 4096
BATCH_ITEMS = 64


@dataclass(frozen=True)
class Plan:
    """A cache to be written.

    Attributes:
        spec: The latent.
        folder: Where.
        settings: The fingerprint of its values.
        data: The fingerprint of the molecules.
        molecules: How many they are.
        dim: Width of z.
        bytes: Size on disk, about.
    """

    spec: VectorSpec
    folder: Path
    settings: str
    data: str
    molecules: int
    dim: int
    bytes: int

    @property
    def complete(self) -> bool:
        """Whether it is there already."""
        return is_complete(self.folder)


def plan_of(spec: VectorSpec, molecules: MoleculeSet, root: Path) -> Plan:
    """What `featurize` would write; loads no encoder.

    Args:
        spec: The latent.
        molecules: The molecules.
        root: The folder of caches.

    Raises:
        InputError: If weights of an encoder are missing.
    """
    settings = named(spec.parts(molecules.vocabulary))
    dim = spec.dim_of(molecules.vocabulary)
    rows = len(molecules) if spec.level == "global" else int(molecules.sizes.sum())
    return Plan(
        spec=spec,
        folder=cache_folder(Path(root), spec.kind, settings, spec.format, molecules.fingerprint),
        settings=settings,
        data=molecules.fingerprint,
        molecules=len(molecules),
        dim=dim,
        bytes=rows * row_bytes(spec.format, dim) + 8 * len(molecules),
    )


def plans_of(specs: Sequence[LatentSpec], molecules: MoleculeSet, root: Path | str) -> list[Plan]:
    """The caches that some latents need."""
    return [plan_of(spec, molecules, Path(root)) for spec in specs if spec.stored and not isinstance(spec, PairSpec)]


def featurize(
    plan: Plan,
    molecules: MoleculeSet,
    device: torch.device | str = "cpu",
    part: tuple[int, int] = (0, 1),
    progress: PartProgress | None = None,
    shard_items: int = SHARD_ITEMS,
) -> Cache | None:
    """Writes what is missing of a cache; stopped at any moment, it goes on with the next shard.

    Args:
        plan: The cache.
        molecules: The molecules it was planned for.
        device: Where the encoder runs.
        part: (i, n): write the i-th of n parts of the shards, i from 0, for n workers. The call that finds all shards
            there finishes the cache.
        progress: Called as progress(completed=, total=) with the shards looked after and their number.
        shard_items: Molecules of a file.

    Returns:
        The cache; None if another worker still has shards to write.

    Raises:
        InputError: If the encoder is not to be had, a molecule cannot be encoded, or the folder holds another cache.
    """
    clean = CleanMolecules(molecules)
    encoder = plan.spec.encoder(clean)
    move_encoder(encoder, device)
    builder = CacheBuilder(
        plan.folder,
        _Known(encoder, plan.settings),
        clean,
        format=plan.spec.format,
        shard_items=shard_items,
        batch_items=BATCH_ITEMS,
    )
    return builder.write_part(part, progress)


def open_plan(plan: Plan) -> Cache:
    """Opens a cache for training, without its encoder.

    Raises:
        InputError: If it is not there, not finished, or damaged.
    """
    if not plan.complete:
        raise absent(plan.spec.name, plan.folder, "reed-molecule")
    return open_cache(plan.folder, encoder=plan.settings, data=plan.data)


class _Known:
    """An encoder under the fingerprint of its settings."""

    def __init__(self, encoder: Encoder, settings: str) -> None:
        self.encoder, self.name, self.dim, self.fingerprint = encoder, encoder.name, encoder.dim, settings
        self.level: Literal["token", "pair", "global"] = encoder.level

    def __call__(self, x_0: State, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        return self.encoder(x_0, c, mask)
