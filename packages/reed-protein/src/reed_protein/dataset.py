"""Training and evaluation sets: chains as flat arrays, batched by a token budget.

The `.npz` layout: `coords` int16 [R, 4, 3] (N, CA, C, O; times `scale` gives angstrom), `offsets` int64 [n + 1],
`resnum` int16 [R], `ids` [n], `seqs` [n] (one-letter, X unknown).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from reed_core.errors import InputError
from reed_core.latent import Representations
from reed_core.noise import NoiseSource, mix_seed
from reed_core.train import Batch
from torch import Tensor

from reed_protein.backbone import Backbone, ResidueArrays, chain_positions
from reed_protein.network import UNKNOWN_TOKEN
from reed_protein.residues import tokens as tokenise

LatentMaker = Callable[[Int[Tensor, "b n"], Backbone], Representations]

_WINDOW = 8  # batches whose chains are sorted by length together


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
class TrainingData:
    """A `DataSource` over chains: token-budget batches of similar lengths, coordinates jittered.

    Attributes:
        chains: The chains.
        seed: Seeds the order.
        residues: Largest number of residues in a batch, padding included (a longer chain makes a batch of its own).
        jitter: Standard deviation of the noise added to every coordinate, angstrom.
        latents: Makes the latents of a batch from tokens and the jittered backbone; called only when alignment is on.
    """

    chains: ChainSet
    seed: int
    residues: int
    jitter: float
    latents: LatentMaker | None = None

    def plan(self, epoch: int) -> list[list[int]]:
        """A permutation of all chains, cut into windows, sorted by length within each, cut into batches, shuffled."""
        generator = np.random.default_rng(mix_seed(self.seed, epoch))
        order = generator.permutation(len(self.chains))
        lengths = np.array([len(tokens) for tokens in self.chains.tokens])
        window = max(1, int(_WINDOW * self.residues / lengths.mean()))
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            some = order[start : start + window]
            batch: list[int] = []
            for item in some[np.argsort(lengths[some], kind="stable")]:
                if batch and lengths[item] * (len(batch) + 1) > self.residues:
                    batches.append(batch)
                    batch = []
                batch.append(int(item))
            batches.append(batch)
        return [batches[i] for i in generator.permutation(len(batches))]

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        """Collates chains; unknown residues are seen as unknown and never scored."""
        clean = Backbone.collate([self.chains.arrays[item] for item in items])
        tokens = collate_tokens([self.chains.tokens[item] for item in items])
        coords = clean.coords
        if self.jitter > 0:
            coords = coords + self.jitter * noise.normal(coords.shape[1:]) * clean.mask[..., None, None]
        backbone = Backbone(coords, clean.mask, clean.position, clean.chain)
        scored = clean.mask & (tokens < UNKNOWN_TOKEN)
        make = self.latents
        return Batch(
            x_0=tokens,
            c=backbone,
            mask=scored,
            z=None if make is None else lambda: make(tokens, backbone),
            weight=scored.sum(1).float(),
        )
