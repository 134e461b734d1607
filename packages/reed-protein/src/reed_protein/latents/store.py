"""Caches of latents, one folder each, named by what is in it: `KIND-DIGEST-CHAINS`, of settings, format and chains.

The fingerprint under which a cache is written holds the settings and the encoder's own fingerprint, part by part. So
training recognises a cache by its settings without loading the encoder, which may be large; a second `featurize` with
other weights under the same settings is refused, and whoever finds only another cache is told what sets it apart.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import Cache, CacheBuilder, Encoder, named, open_cache
from reed_core.representation.format import components, row_bytes
from reed_core.representation.identity import differences, parts_of
from reed_core.representation.shard import MANIFEST, Manifest
from torch import Tensor

from reed_protein.dataset import Chains, CleanChains
from reed_protein.latents.spec import MARGIN, StoredSpec

SHARD_ITEMS = 128
BATCH_ITEMS = 4
_HEADER = 1500  # bytes of a shard that are neither rows nor offsets


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
    settings = named({f"settings.{name}": value for name, value in spec.parts(edges).items()})
    digest = hashlib.sha256(f"{settings} {spec.format}".encode()).hexdigest()
    rows, places = int(chains.lengths.sum()), edges if spec.level == "pair" else 1
    shards, k = -(-len(chains) // SHARD_ITEMS), components(spec.format, spec.dim_of)
    basis = 4 * spec.dim_of * (k + 1) + _HEADER if k else 0
    return Plan(
        spec=spec,
        folder=Path(root) / f"{spec.kind}-{digest[:10]}-{chains.fingerprint[:10]}",
        settings=settings,
        data=chains.fingerprint,
        edges=edges,
        chains=len(chains),
        rows=rows,
        shards=shards,
        bytes=rows * places * row_bytes(spec.format, spec.dim_of) + 8 * len(chains) + _HEADER * shards + basis,
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
    builder = builder_of(plan, chains, device)
    mine = range(part[0], builder.shards, part[1])
    for done, index in enumerate(mine, start=1):
        builder.write(index)
        if progress is not None:
            progress(completed=done, total=len(mine))
    if part[1] > 1 and builder.missing:
        return None
    return Cache(plan.folder, builder.seal())


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
    module = getattr(encoder, "module", None)
    if isinstance(module, torch.nn.Module):
        module.to(device)
    return CacheBuilder(
        plan.folder,
        _Stamped(encoder, plan.settings),
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
    path = plan.folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"no cache of latent '{plan.spec.name}' in {plan.folder}{_instead(plan)}; write it with: reed-protein "
            "featurize, and the arguments of this run"
        )
    try:
        held = Manifest.model_validate_json(path.read_text(encoding="utf-8")).content.encoder_fingerprint
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} is no manifest of a cache ({reason}); remove {plan.folder} and featurize again"
        ) from error
    own = " ".join(word for word in held.split() if not word.startswith("settings."))
    cache = open_cache(plan.folder, encoder=f"{plan.settings} {own}", data=plan.data)
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
        settings = " ".join(word for word in content.encoder_fingerprint.split() if word.startswith("settings."))
        differ = [
            *differences("latent", settings, plan.settings),
            *differences("data", content.data_fingerprint, plan.data),
            *differences("format", content.format, plan.spec.format),
        ]
        found.append((len(differ), f" (in {path.parent.name}, {', '.join(differ)})"))
    return min(found)[1].replace("(settings.", "(") if found else ""


class _Stamped:
    """An encoder whose fingerprint begins with its settings."""

    def __init__(self, encoder: Encoder, settings: str) -> None:
        self.encoder, self.name, self.dim = encoder, encoder.name, encoder.dim
        self.level: Literal["token", "pair", "global"] = encoder.level
        own = parts_of(encoder.fingerprint)
        self.fingerprint = f"{settings} {named({f'encoder.{name}' if name else 'encoder': own[name] for name in own})}"

    def __call__(self, x_0: Tensor, c: object = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        return self.encoder(x_0, c, mask)
