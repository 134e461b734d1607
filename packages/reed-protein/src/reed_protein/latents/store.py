"""Caches of latents, one folder each, named by what is in it: `NAME-DIGEST`, of the settings and of the chains.

The fingerprint under which a cache is written is half the digest of the settings and half the encoder's own. So
training recognises a cache by its settings without loading the encoder, which may be large, and a second `featurize`
with other weights under the same settings is refused.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import Cache, CacheBuilder, Encoder, open_cache
from reed_core.representation.shard import MANIFEST, Manifest
from torch import Tensor

from reed_protein.dataset import Chains, CleanChains
from reed_protein.latents.spec import MARGIN, StoredSpec

SHARD_ITEMS = 128
_BATCH_ITEMS = 4
_HALF = 32


@runtime_checkable
class Progress(Protocol):
    """Told how far the writing has come."""

    def __call__(self, *, completed: int, total: int) -> Any:
        """Called after each shard."""
        ...


@dataclass(frozen=True)
class Plan:
    """A cache to be written.

    Attributes:
        spec: The latent.
        folder: Where.
        digest: SHA-256 of the settings.
        edges: Edges per residue of a pair latent.
        chains: Number of chains.
        rows: Residues, at most.
        shards: Number of files.
        bytes: Size on disk, at most.
    """

    spec: StoredSpec
    folder: Path
    digest: str
    edges: int
    chains: int
    rows: int
    shards: int
    bytes: int

    @property
    def complete(self) -> bool:
        """Whether it is there already."""
        return (self.folder / MANIFEST).is_file()


def plan_of(spec: StoredSpec, chains: Chains, root: Path, neighbours: int) -> Plan:
    """What `featurize` would write; loads no encoder.

    Args:
        spec: The latent.
        chains: The chains.
        root: The folder of caches.
        neighbours: Neighbours of the network; a pair latent is stored on some more.
    """
    edges = neighbours + MARGIN
    digest = spec.digest(edges)
    rows, places = int(chains.lengths.sum()), edges if spec.level == "pair" else 1
    return Plan(
        spec=spec,
        folder=Path(root) / f"{spec.kind}-{digest[:10]}-{chains.fingerprint[:10]}",
        digest=digest,
        edges=edges,
        chains=len(chains),
        rows=rows,
        shards=-(-len(chains) // SHARD_ITEMS),
        bytes=rows * places * (2 * spec.dim_of + 1) + 8 * len(chains),
    )


def featurize(
    plan: Plan,
    chains: Chains,
    device: torch.device | str = "cpu",
    part: tuple[int, int] = (0, 1),
    progress: Progress | None = None,
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
    encoder = plan.spec.encoder(plan.edges)
    if encoder.dim != plan.spec.dim_of:
        raise InputError(
            f"latent '{plan.spec.name}': the encoder's width is {encoder.dim}, the recipe says {plan.spec.dim_of}; "
            "correct the recipe"
        )
    module = getattr(encoder, "module", None)
    if isinstance(module, torch.nn.Module):
        module.to(device)
    builder = CacheBuilder(
        plan.folder,
        _Stamped(encoder, plan.digest),
        CleanChains(chains),
        shard_items=SHARD_ITEMS,
        batch_items=_BATCH_ITEMS,
    )
    mine = range(part[0], builder.shards, part[1])
    for done, index in enumerate(mine, start=1):
        builder.write(index)
        if progress is not None:
            progress(completed=done, total=len(mine))
    if part[1] > 1 and not all((plan.folder / f"{index:06d}.safetensors").is_file() for index in range(builder.shards)):
        return None
    return Cache(plan.folder, builder.seal())


def open_plan(plan: Plan, data: str) -> Cache:
    """Opens a cache for training, without its encoder.

    Args:
        plan: The cache.
        data: The fingerprint of the chains.

    Raises:
        InputError: If it is not there, not finished, damaged, or was written under other settings.
    """
    path = plan.folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"no cache of latent '{plan.spec.name}' in {plan.folder}; write it with: reed-protein featurize, and the "
            "arguments of this run"
        )
    try:
        held = Manifest.model_validate_json(path.read_text(encoding="utf-8")).content.encoder_fingerprint
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} is no manifest of a cache ({reason}); remove {plan.folder} and featurize again"
        ) from error
    own = held if held.startswith(plan.digest[:_HALF]) else plan.digest
    cache = open_cache(plan.folder, encoder=own, data=data)
    if cache.manifest.content.dim != plan.spec.dim_of or cache.manifest.content.level != plan.spec.level:
        raise InputError(f"{plan.folder} holds another latent than '{plan.spec.name}'; remove it and featurize again")
    return cache


class _Stamped:
    """An encoder whose fingerprint begins with the digest of its settings."""

    def __init__(self, encoder: Encoder, digest: str) -> None:
        self.encoder, self.name, self.dim = encoder, encoder.name, encoder.dim
        self.level: Literal["token", "pair", "global"] = encoder.level
        own = hashlib.sha256(encoder.fingerprint.encode()).hexdigest()
        self.fingerprint = digest[:_HALF] + own[:_HALF]

    def __call__(self, x_0: Tensor, c: object = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        return self.encoder(x_0, c, mask)
