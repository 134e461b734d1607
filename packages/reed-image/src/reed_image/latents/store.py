"""Caches of latents, one folder each, named by what is in it: `KIND-DIGEST-PICTURES`, of settings, format and pictures.

The fingerprint under which a cache is written holds the settings and the encoder's own fingerprint, part by part. So
training recognises a cache by its settings without loading the encoder, which may be large; a second `featurize` with
other weights under the same settings is refused.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import Cache, CacheBuilder, Encoder, Shuffled, named, open_cache
from reed_core.representation.estimate import estimate_encoding
from reed_core.representation.format import row_bytes
from reed_core.representation.identity import parts_of
from reed_core.representation.shard import MANIFEST, Manifest
from reed_core.train.arrays import Gathers
from reed_core.train.estimate import size
from torch import Tensor

from reed_image.data import Prepared
from reed_image.latents.spec import LatentSpec, Level, outline

SHARD_ITEMS = 1024
BATCH_ITEMS = 64
_HEADER = 1500  # bytes of a shard that are neither rows nor offsets


@dataclass(frozen=True)
class Plan:
    """A cache to be written.

    Attributes:
        spec: The latent.
        folder: Where.
        settings: The settings, as parts of a fingerprint.
        grid: Tokens along a side.
    """

    spec: LatentSpec
    folder: Path
    settings: str
    grid: int

    @property
    def complete(self) -> bool:
        """Whether it is there already."""
        return (self.folder / MANIFEST).is_file()


def plan_of(spec: LatentSpec, prepared: Prepared, root: Path, grid: int) -> Plan:
    """What `featurize` would write; loads no encoder.

    Args:
        spec: The latent.
        prepared: The pictures.
        root: The folder of caches.
        grid: Tokens along a side: that of the network.
    """
    settings = named({f"settings.{name}": value for name, value in spec.parts(grid).items()})
    digest = hashlib.sha256(f"{settings} {spec.format}".encode()).hexdigest()
    return Plan(spec, Path(root) / f"{spec.kind}-{digest[:10]}-{prepared.fingerprint[:10]}", settings, grid)


def featurize(
    plan: Plan,
    prepared: Prepared,
    device: torch.device | str = "cpu",
    part: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], Any] | None = None,
) -> Cache | None:
    """Writes what is missing of a cache; stopped at any moment, it goes on with the next shard.

    Args:
        plan: The cache.
        prepared: The pictures it was planned for.
        device: Where the encoder runs.
        part: (i, n): write the i-th of n parts of the shards, i from 0, for n workers. The call that finds all shards
            there finishes the cache.
        progress: Called as progress(done, of) after each shard.

    Returns:
        The cache; None if another worker still has shards to write.

    Raises:
        InputError: If the encoder is not to be had, a picture cannot be encoded, or the folder holds another cache.
    """
    builder = builder_of(plan, prepared, device)
    mine = range(part[0], builder.shards, part[1])
    for done, index in enumerate(mine, start=1):
        builder.write(index)
        if progress is not None:
            progress(done, len(mine))
    if part[1] > 1 and builder.missing:
        return None
    return Cache(plan.folder, builder.seal())


def builder_of(plan: Plan, prepared: Prepared, device: torch.device | str = "cpu") -> CacheBuilder:
    """Loads the encoder of a plan; writes nothing.

    Raises:
        InputError: If the encoder is not to be had, or the pictures were not kept.
    """
    if prepared.images is None:
        raise InputError(f"{prepared.folder} was prepared without its pictures; prepare it again with them")
    encoder = plan.spec.encoder(plan.grid)
    module = getattr(encoder, "module", None)
    if isinstance(module, torch.nn.Module):
        module.to(device)
    return CacheBuilder(
        plan.folder,
        _Stamped(encoder, plan.settings),
        prepared.items(),
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
    return content.items * each + _HEADER * builder.shards


def open_plan(plan: Plan, prepared: Prepared) -> Cache:
    """Opens a cache for training, without its encoder.

    Args:
        plan: The cache.
        prepared: The pictures.

    Raises:
        InputError: If it is not there, not finished, damaged, or was written under other settings.
    """
    path = plan.folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"no cache of latent '{plan.spec.name}' in {plan.folder}; write it with: reed-image featurize, and the "
            "arguments of this run"
        )
    try:
        held = Manifest.model_validate_json(path.read_text(encoding="utf-8")).content.encoder_fingerprint
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} is no manifest of a cache ({reason}); remove {plan.folder} and featurize again"
        ) from error
    own = " ".join(word for word in held.split() if not word.startswith("settings."))
    return open_cache(plan.folder, encoder=f"{plan.settings} {own}", data=prepared.items().fingerprint)


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


class _Stamped:
    """An encoder whose fingerprint begins with its settings."""

    def __init__(self, encoder: Encoder, settings: str) -> None:
        self.encoder, self.name, self.dim = encoder, encoder.name, encoder.dim
        self.level: Literal["token", "pair", "global"] = encoder.level
        own = parts_of(encoder.fingerprint)
        self.fingerprint = f"{settings} {named({f'encoder.{name}' if name else 'encoder': own[name] for name in own})}"

    def __call__(self, x_0: Tensor, c: object = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        return self.encoder(x_0, c, mask)


def _level(level: str) -> Level:
    if level not in ("token", "global"):
        raise InputError(f"a {level} latent; pictures have token and global ones")
    return "token" if level == "token" else "global"
