"""Where the value of a latent comes from when a batch is trained on: an encoder that runs, or a cache.

Live encoders see the batch as the network does, jittered coordinates and all. A cache was written from clean
coordinates; its pairs are looked up on the graph of the jittered ones (`encoders.graph`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from reed_core.latent import Representation, Representations
from reed_core.representation import Cache, Encoder
from torch import Tensor

from reed_protein.dataset import Chains, CleanChains, LatentMaker, NamedBackbone
from reed_protein.encoders.graph import edges_of, on_edges
from reed_protein.latents.control import Shuffled
from reed_protein.latents.spec import AlphabetSpec, LatentSpec, StoredSpec, TableSpec
from reed_protein.latents.store import open_plan, plan_of


@runtime_checkable
class Source(Protocol):
    """Values of one latent."""

    def __call__(self, items: Sequence[int], tokens: Int[Tensor, "b n"], backbone: NamedBackbone) -> Representation:
        """The z of a batch.

        Args:
            items: Numbers of the chains.
            tokens: Their residue types.
            backbone: Their backbones, jittered or not.
        """
        ...


class Live:
    """Runs an encoder on the batch.

    Args:
        encoder: The encoder.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, items: Sequence[int], tokens: Int[Tensor, "b n"], backbone: NamedBackbone) -> Representation:
        """What the encoder puts out."""
        return self.encoder(tokens, backbone, backbone.mask)


class Stored:
    """Reads a cache.

    Args:
        cache: The cache.
        chains: The chains it is of.
        neighbours: Neighbours of the network, for pairs.
    """

    def __init__(self, cache: Cache, chains: Chains, neighbours: int) -> None:
        self.cache, self.clean, self.neighbours = cache, CleanChains(chains), neighbours

    def __call__(self, items: Sequence[int], tokens: Int[Tensor, "b n"], backbone: NamedBackbone) -> Representation:
        """Stored values; of pairs, those on the edges of the backbone that is given."""
        stored = self.cache.gather(items, tokens.shape[1])
        if self.cache.manifest.content.level == "token":
            return stored
        there = edges_of(self.clean.batch(items).c, stored.z.shape[2])
        return on_edges(stored, there, edges_of(backbone, self.neighbours))


class Blank:
    """Stands in for a cache that is not there yet, where only the work of training is measured.

    Args:
        spec: The latent.
        neighbours: Neighbours of the network, for pairs.
    """

    def __init__(self, spec: StoredSpec, neighbours: int) -> None:
        self.spec, self.neighbours = spec, neighbours

    def __call__(self, items: Sequence[int], tokens: Int[Tensor, "b n"], backbone: NamedBackbone) -> Representation:
        """Ones, known wherever there is a residue or an edge."""
        mask = backbone.mask if self.spec.level == "token" else edges_of(backbone, self.neighbours).mask
        return Representation(torch.ones(*mask.shape, self.spec.dim_of), mask)


def open_sources(
    specs: Sequence[LatentSpec],
    chains: Chains,
    root: Path,
    neighbours: int,
    shuffle: int | None = None,
    blanks: bool = False,
) -> dict[str, Source]:
    """The source of each latent, by name.

    Args:
        specs: The latents.
        chains: The chains that will be trained on.
        root: The folder of caches.
        neighbours: Neighbours of the network.
        shuffle: Seed of the shuffled control; None gives each chain its own z.
        blanks: Put `Blank` where a cache is not there yet.

    Raises:
        InputError: If a cache or a file is missing or is of something else.
    """
    sources: dict[str, Source] = {}
    for spec in specs:
        source: Source
        if isinstance(spec, (TableSpec, AlphabetSpec)):
            encoder: Encoder = spec.encoder(neighbours)
            source = Live(encoder)
        else:
            plan = plan_of(spec, chains, root, neighbours)
            blank = blanks and not plan.complete
            source = Blank(spec, neighbours) if blank else Stored(open_plan(plan), chains, neighbours)
        sources[spec.name] = source if shuffle is None else Shuffled(source, chains, shuffle)
    return sources


def make_latents(sources: Mapping[str, Source]) -> LatentMaker:
    """A function that makes all latents of a batch."""

    def make(items: Sequence[int], tokens: Int[Tensor, "b n"], backbone: NamedBackbone) -> Representations:
        return {name: source(items, tokens, backbone) for name, source in sources.items()}

    return make
