"""Caches of latents, one folder each, named by what is in it: `KIND-DIGEST-PICTURES`, of settings, format and pictures.

Training finds a cache by its settings, without loading the encoder (`reed_core.representation.by_settings`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import Cache, CacheBuilder, Encoder, Shuffled
from reed_core.representation.build import PartProgress
from reed_core.representation.by_settings import (
    Stamped,
    absent,
    cache_folder,
    is_complete,
    open_by_settings,
    settings_of,
)
from reed_core.representation.encoder import move_encoder
from reed_core.representation.estimate import estimate_encoding
from reed_core.representation.format import SHARD_HEADER, row_bytes
from reed_core.train.arrays import Gathers
from reed_core.train.estimate import size

from reed_image.data import Prepared
from reed_image.latents.spec import LatentSpec, Level, outline

SHARD_ITEMS = 1024
BATCH_ITEMS = 64


@runtime_checkable
class Encoded(Protocol):
    """What is kept in a cache: a latent, or the text of a recipe. See `LatentSpec`."""

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def format(self) -> str: ...  # noqa: D102

    def parts(self, grid: int) -> dict[str, str]:
        """Every setting that the values depend on."""
        ...

    def encoder(self, grid: int) -> Encoder:
        """The encoder; loads its weights."""
        ...


@dataclass(frozen=True)
class Plan:
    """A cache to be written.

    Attributes:
        spec: The latent, or the text of a recipe.
        folder: Where.
        settings: The settings, as parts of a fingerprint.
        grid: Tokens along a side.
    """

    spec: Encoded
    folder: Path
    settings: str
    grid: int

    @property
    def complete(self) -> bool:
        """Whether it is there already."""
        return is_complete(self.folder)


def plan_of(spec: Encoded, prepared: Prepared, root: Path, grid: int) -> Plan:
    """What `featurize` would write; loads no encoder.

    Args:
        spec: The latent.
        prepared: The pictures.
        root: The folder of caches.
        grid: Tokens along a side: that of the network.
    """
    settings = settings_of(spec.parts(grid))
    return Plan(spec, cache_folder(Path(root), spec.kind, settings, spec.format, prepared.fingerprint), settings, grid)


def featurize(
    plan: Plan,
    prepared: Prepared,
    device: torch.device | str = "cpu",
    part: tuple[int, int] = (0, 1),
    progress: PartProgress | None = None,
) -> Cache | None:
    """Writes what is missing of a cache; stopped at any moment, it goes on with the next shard.

    Args:
        plan: The cache.
        prepared: The pictures it was planned for.
        device: Where the encoder runs.
        part: (i, n): write the i-th of n parts of the shards, i from 0, for n workers. The call that finds all shards
            there finishes the cache.
        progress: Told after each shard.

    Returns:
        The cache; None if another worker still has shards to write.

    Raises:
        InputError: If the encoder is not to be had, a picture cannot be encoded, or the folder holds another cache.
    """
    return builder_of(plan, prepared, device).write_part(part, progress)


def builder_of(plan: Plan, prepared: Prepared, device: torch.device | str = "cpu") -> CacheBuilder:
    """Loads the encoder of a plan; writes nothing.

    Raises:
        InputError: If the encoder is not to be had, or the pictures were not kept.
    """
    pixels = plan.spec.kind != "tokens"
    if pixels and prepared.images is None:
        raise InputError(f"{prepared.folder} was prepared without its pictures; prepare it again with them")
    encoder = plan.spec.encoder(plan.grid)
    move_encoder(encoder, device)
    return CacheBuilder(
        plan.folder,
        Stamped(encoder, plan.settings),
        prepared.items(pixels),
        format=plan.spec.format,
        shard_items=SHARD_ITEMS,
        batch_items=BATCH_ITEMS,
    )


def report(plan: Plan, prepared: Prepared, part: tuple[int, int], device: str) -> str:
    """What writing one cache will cost, or this worker's part of it; writes nothing.

    Args:
        plan: The cache.
        prepared: The pictures.
        part: (i, n): the i-th of n parts, i from 0.
        device: Where the encoder runs.

    Raises:
        InputError: If the encoder is not to be had.
    """
    if plan.complete:
        return f"{plan.spec.name}: {plan.folder} is complete"
    builder = builder_of(plan, prepared, device)
    content, bytes_ = builder.content, size_of(builder)
    head = (
        f"{plan.spec.name}: {plan.folder} (to be written): {len(prepared)} items, {content.level} level, width "
        f"{content.dim}, {content.format}, {builder.shards} shards, {size(bytes_)}"
    )
    found = estimate_encoding(
        builder, [1.0] * len(prepared), bytes_, name=plan.spec.name, unit="pictures", part=part, device=device
    )
    return "\n".join([head, *(f"  {line}" for line in found.table().splitlines())])


def size_of(builder: CacheBuilder) -> int:
    """Bytes of a whole cache on the disk, before it is written."""
    content = builder.content
    rows = 1 if content.level == "global" else len(builder.encode([0])[0][0])
    each = rows * row_bytes(content.format, content.dim) + rows + 8
    return content.items * each + SHARD_HEADER * builder.shards


def open_plan(plan: Plan, prepared: Prepared) -> Cache:
    """Opens a cache for training, without its encoder.

    Args:
        plan: The cache.
        prepared: The pictures.

    Raises:
        InputError: If it is not there, not finished, damaged, or was written under other settings.
    """
    if not plan.complete:
        raise absent(plan.spec.name, plan.folder, "reed-image")
    return open_by_settings(plan.folder, plan.settings, prepared.items().fingerprint)


@dataclass(frozen=True)
class Opened:
    """The values of a recipe's latents, and their forms.

    Attributes:
        values: By name.
        forms: Level and width, by name.
    """

    values: Mapping[str, Gathers]
    forms: Mapping[str, tuple[Level, int]]


def open_latents(
    specs: Sequence[LatentSpec],
    prepared: Prepared,
    root: Path,
    grid: int,
    shuffle: int | None = None,
    blanks: bool = False,
) -> Opened:
    """Opens the cache of each latent.

    Args:
        specs: The latents.
        prepared: The pictures that are trained on.
        root: The folder of caches.
        grid: Tokens along a side.
        shuffle: Seed of the control in which every picture is taught the z of another one; None: its own.
        blanks: Where a cache is not there yet, put ones of its form in its place: enough to measure the work.

    Raises:
        InputError: If a cache is missing or of something else.
    """
    values: dict[str, Gathers] = {}
    forms: dict[str, tuple[Level, int]] = {}
    for spec in specs:
        plan = plan_of(spec, prepared, root, grid)
        if blanks and not plan.complete:
            encoder = outline(spec, grid)
            values[spec.name], forms[spec.name] = Blank(encoder, grid), (_level(encoder.level), encoder.dim)
            continue
        cache = open_plan(plan, prepared)
        content = cache.manifest.content
        values[spec.name] = cache if shuffle is None else Shuffled(cache, shuffle)
        forms[spec.name] = _level(content.level), content.dim
    return Opened(values, forms)


class Blank:
    """Stands in for a cache that is not there yet.

    Args:
        encoder: What would make it.
        grid: Tokens along a side.
    """

    def __init__(self, encoder: Encoder, grid: int) -> None:
        self.rows = () if encoder.level == "global" else (grid**2,)
        self.dim = encoder.dim

    def gather(self, items: Sequence[int]) -> Representation:
        """Ones."""
        return Representation(torch.ones(len(items), *self.rows, self.dim))


def _level(level: str) -> Level:
    if level not in ("token", "global"):
        raise InputError(f"a {level} latent; pictures have token and global ones")
    return "token" if level == "token" else "global"
