"""Where the value of a latent comes from when a batch is trained on: an encoder that runs, or a cache.

Live encoders see clean molecules in angstrom (`reed_molecule.encoders.clean`), found by their numbers, so whatever the
training batch did to units or orientation is no concern of theirs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Bool
from reed_core.latent import Representation, Representations
from reed_core.representation import Cache, Encoder
from reed_core.train import Batch
from torch import Tensor

from reed_molecule.dataset import MoleculeSet
from reed_molecule.encoders.clean import CleanMolecules
from reed_molecule.latents.control import Shuffled
from reed_molecule.latents.spec import LatentSpec, PairSpec
from reed_molecule.latents.store import open_plan, plan_of


@runtime_checkable
class Source(Protocol):
    """Values of one latent."""

    def __call__(self, items: Sequence[int], mask: Bool[Tensor, "b n"]) -> Representation:
        """The z of a batch.

        Args:
            items: Places of the molecules in their set.
            mask: Where their atoms are.
        """
        ...


class Live:
    """Runs an encoder.

    Args:
        encoder: The encoder.
        data: The molecules.
    """

    def __init__(self, encoder: Encoder, data: CleanMolecules) -> None:
        self.encoder, self.data = encoder, data

    def __call__(self, items: Sequence[int], mask: Bool[Tensor, "b n"]) -> Representation:
        """What the encoder says of the clean molecules."""
        batch = self.data.batch(items)
        return self.encoder(batch.x_0, batch.c, batch.mask)


class Stored:
    """Reads a cache.

    Args:
        cache: The cache.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def __call__(self, items: Sequence[int], mask: Bool[Tensor, "b n"]) -> Representation:
        """Stored values."""
        return self.cache.gather(items, mask.shape[1])


class BatchLatents:
    """All latents of a batch.

    Args:
        sources: The source of each, by name.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = sources

    def __call__(self, items: Sequence[int], batch: Batch) -> Representations:
        """The values for these items."""
        assert isinstance(batch.mask, Mapping)
        return {name: source(items, batch.mask["types"]) for name, source in self.sources.items()}


def open_sources(
    specs: Sequence[LatentSpec], molecules: MoleculeSet, root: Path, shuffle: int | None = None
) -> dict[str, Source]:
    """The source of each latent, by name.

    Args:
        specs: The latents.
        molecules: The molecules that will be trained on.
        root: The folder of caches.
        shuffle: Seed of the shuffled control; None gives each molecule its own z.

    Raises:
        InputError: If a cache or a file is missing or is of something else.
    """
    sources: dict[str, Source] = {}
    for spec in specs:
        source: Source
        if isinstance(spec, PairSpec) or not spec.stored:
            clean = CleanMolecules(molecules)
            source = Live(spec.encoder(clean), clean)
        else:
            source = Stored(open_plan(plan_of(spec, molecules, root)))
        sources[spec.name] = source if shuffle is None else Shuffled(source, spec.level, molecules, shuffle)
    return sources
