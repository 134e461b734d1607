"""Training and evaluation sets: chains of known sequence, and their batches within a token budget.

`Chains` is what every layout on disk becomes: numbered chains, read when asked for. `ChainSet` holds all in memory and
reads our own `.npz`: `coords` int16 [R, 4, 3] (N, CA, C, O; times `scale` gives angstrom), `offsets` int64 [n + 1],
`resnum` int16 [R], `ids` [n], `seqs` [n] (one-letter, X unknown).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, Int64
from reed_core.errors import InputError
from reed_core.latent import Representations
from reed_core.noise import NoiseSource
from reed_core.train import Batch
from reed_core.train.order import groups, shuffler
from torch import Tensor

from reed_protein.backbone import Backbone, ResidueArrays, chain_positions
from reed_protein.network import UNKNOWN_TOKEN
from reed_protein.residues import tokens as tokenise

_WINDOW = 8  # batches whose chains are sorted by length together


class Chain(NamedTuple):
    """One chain of known sequence.

    Attributes:
        id: Its name.
        arrays: Coordinates and positions.
        tokens: Residue types, int64 [n], 0..19 and 20 for unknown.
    """

    id: str
    arrays: ResidueArrays
    tokens: Tensor


@runtime_checkable
class Chains(Protocol):
    """Numbered chains, in memory or on disk."""

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Residues of each chain, or a little more where that is not known before reading."""
        ...

    @property
    def groups(self) -> Int64[np.ndarray, " n"] | None:
        """The cluster of each chain, if an epoch takes one chain of each cluster; None takes all."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever a chain does."""
        ...

    def __len__(self) -> int: ...

    def chain(self, item: int) -> Chain:
        """Reads one chain."""
        ...


@dataclass(frozen=True)
class NamedBackbone(Backbone):
    """A backbone whose rows have names, for encoders that look values up.

    Attributes:
        ids: The name of each row.
    """

    ids: tuple[str, ...] = field(default=())


LatentMaker = Callable[[Sequence[int], Int[Tensor, "b n"], NamedBackbone], Representations]


@dataclass(frozen=True)
class ChainSet:
    """Chains of known sequence.

    Attributes:
        ids: Name of each chain.
        arrays: Coordinates and positions of each chain.
        tokens: Residue types of each chain, int64 [n_i], 0..19 and 20 for unknown.
    """

    ids: tuple[str, ...]
    arrays: tuple[ResidueArrays, ...]
    tokens: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Residues of each chain."""
        return np.array([len(tokens) for tokens in self.tokens], dtype=np.int64)

    @property
    def groups(self) -> None:
        """None: an epoch takes every chain."""
        return

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, coordinates, positions and residue types."""
        digest = hashlib.sha256()
        for name, arrays, tokens in zip(self.ids, self.arrays, self.tokens, strict=True):
            digest.update(f"{name} {len(tokens)} ".encode())
            for values in (np.float32(arrays.coords), arrays.position, arrays.chain, tokens.numpy()):
                digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def chain(self, item: int) -> Chain:
        """One chain."""
        return Chain(self.ids[item], self.arrays[item], self.tokens[item])

    @classmethod
    def of(cls, chains: Chains) -> "ChainSet":
        """Reads chains into memory: the first of each cluster, or all where there are no clusters."""
        groups = chains.groups
        items = range(len(chains)) if groups is None else np.sort(np.unique(groups, return_index=True)[1]).tolist()
        read = [chains.chain(item) for item in items]
        return cls(*(tuple(column) for column in zip(*read, strict=True)))

    @classmethod
    def read(cls, path: Path) -> "ChainSet":
        """Reads the `.npz` layout.

        Raises:
            InputError: If the file is missing or of another layout.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                coords, scale, offsets = data["coords"], np.float32(data["scale"]), data["offsets"]
                numbers, ids, sequences = data["resnum"], data["ids"], data["seqs"]
        except FileNotFoundError as error:
            raise InputError(
                f"no training data at {path}; set REED_DATA or give another path in the configuration"
            ) from error
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} is not a set of chains ({error}); expected coords, scale, offsets, resnum, ids, seqs"
            ) from error
        arrays, tokens = [], []
        for start, end, sequence in zip(offsets[:-1], offsets[1:], sequences, strict=True):
            chain = np.zeros(end - start, dtype=np.int64)
            positions = chain_positions(numbers[start:end], chain)
            arrays.append(ResidueArrays(coords[start:end].astype(np.float32) * scale, positions, chain))
            tokens.append(torch.from_numpy(tokenise(str(sequence))))
        return cls(tuple(str(name) for name in ids), tuple(arrays), tuple(tokens))


def collate_tokens(tokens: Sequence[Tensor]) -> Int[Tensor, "b n"]:
    """Padded tokens; padding is "unknown"."""
    return torch.nn.utils.rnn.pad_sequence(list(tokens), batch_first=True, padding_value=UNKNOWN_TOKEN)


@dataclass(frozen=True)
class CleanChains:
    """Chains as an encoder gets them: without noise, with their names.

    Attributes:
        chains: The chains.
    """

    chains: Chains

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the chains."""
        return self.chains.fingerprint

    def __len__(self) -> int:
        return len(self.chains)

    def batch(self, items: Sequence[int]) -> Batch:
        """Tokens as x_0, a `NamedBackbone` as c, and where residues exist."""
        read = [self.chains.chain(item) for item in items]
        clean = Backbone.collate([chain.arrays for chain in read])
        backbone = NamedBackbone(clean.coords, clean.mask, clean.position, clean.chain, tuple(one.id for one in read))
        return Batch(x_0=collate_tokens([chain.tokens for chain in read]), c=backbone, mask=clean.mask)


@dataclass(frozen=True)
class TrainingData:
    """A `DataSource` over chains: token-budget batches of similar lengths, coordinates jittered.

    Every chain of an epoch is in exactly one batch; the chain that overflows one opens the next.

    Attributes:
        chains: The chains.
        seed: Seeds the order, and which member of a cluster an epoch sees.
        residues: Largest number of residues in a batch, padding included (a longer chain makes a batch of its own).
        jitter: Standard deviation of the noise added to every coordinate, angstrom.
        latents: Makes the latents of a batch from item numbers, tokens and the jittered backbone; called only when
            alignment is on.
    """

    chains: Chains
    seed: int
    residues: int
    jitter: float
    latents: LatentMaker | None = None

    def plan(self, epoch: int) -> list[list[int]]:
        """A permutation of the epoch's chains, cut into windows, sorted by length in each, cut into batches, shuffled.

        An epoch has all chains or, of chains in clusters, one member of each, drawn anew from (seed, epoch).
        """
        generator = shuffler(self.seed, epoch)
        order, lengths = generator.permutation(len(self.chains)), self.chains.lengths
        if self.chains.groups is not None:
            _, first = np.unique(self.chains.groups[order], return_index=True)
            order = generator.permutation(order[first])
        return groups(lengths, self.residues, "linear", generator, order, window=_WINDOW)

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        """Collates chains; unknown residues are seen as unknown and never scored."""
        clean = CleanChains(self.chains).batch(items)
        tokens, named = clean.x_0, clean.c
        assert isinstance(tokens, Tensor)
        coords = named.coords
        if self.jitter > 0:
            coords = coords + self.jitter * noise.normal(coords.shape[1:]) * named.mask[..., None, None]
        backbone = NamedBackbone(coords, named.mask, named.position, named.chain, named.ids)
        scored = named.mask & (tokens < UNKNOWN_TOKEN)
        make, numbers = self.latents, tuple(items)
        return Batch(
            x_0=tokens,
            c=backbone,
            mask=scored,
            z=None if make is None else lambda: make(numbers, tokens, backbone),
            weight=scored.sum(1).float(),
        )
