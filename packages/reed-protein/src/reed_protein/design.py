"""Designing sequences for a backbone.

model = reed_protein.load()
designs = model.design(reed_protein.read_structure("backbone.pdb"), num=8, temperature=0.1)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from reed_core.errors import InputError
from reed_core.hub import from_pretrained
from reed_core.noise import NoiseSource
from reed_core.process import Masked
from reed_core.sample.masked import Order, unmask
from torch import Tensor

from reed_protein.backbone import Backbone
from reed_protein.network import MASK_TOKEN, NUM_TOKENS, UNKNOWN_TOKEN, Encoding, InverseFolding
from reed_protein.residues import letters, tokens
from reed_protein.score import any_order_nll
from reed_protein.structure import Structure

BUNDLED = Path(__file__).parent / "weights" / "reed-protein-small"
_BATCH_RESIDUES = 4000


@dataclass(frozen=True)
class Design:
    """One sequence for one structure.

    Attributes:
        sequence: One letter per residue of the structure, chains in its order.
        score: Any-order negative log-likelihood, nats per residue, lower is better (`reed_protein.score`).
        recovery: Share of designed residues of known native type that equal it; None when none is known.
        temperature: Sampling temperature.
        seed: Seed of the call.
        sample: Number of the design within the call, from 1.
    """

    sequence: str
    score: float
    recovery: float | None
    temperature: float
    seed: int
    sample: int


class Designer:
    """A trained network, ready to design.

    Args:
        network: The network.
        device: Where to run it.
    """

    def __init__(self, network: InverseFolding, device: torch.device | str = "cpu") -> None:
        self.network = network.to(device).eval()
        self.device = torch.device(device)
        self.process = Masked(NUM_TOKENS, MASK_TOKEN)

    @torch.no_grad()
    def encode(self, structure: Structure) -> Encoding:
        """Encodes a structure once, for any number of designs and scores."""
        return self.network.encode(Backbone.from_structure(structure).to(self.device))

    def design(
        self,
        structure: Structure,
        num: int = 1,
        temperature: float = 0.1,
        steps: int = 20,
        seed: int = 0,
        order: Order = "random",
        designed: Sequence[bool] | np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> list[Design]:
        """Samples sequences.

        Args:
            structure: The backbone; its own sequence is not looked at, except at residues that are not designed.
            num: Number of sequences.
            temperature: Divides the logits; 0 takes the most probable residue.
            steps: Largest number of decoder evaluations of each sequence.
            seed: Design i depends on (seed, i) alone, whatever `num`.
            order: "random" (exact samples of the model) or "confidence" (most certain residues first).
            designed: Which residues are designed, [L]; None designs all. The others are seen as they are.
            bias: Added to the logits of the twenty amino acids, [20], in nats; -inf forbids one.

        Raises:
            InputError: If a number is out of range, or nothing is designed.
        """
        return list(self.designs(structure, num, temperature, steps, seed, order, designed, bias))

    def designs(
        self,
        structure: Structure,
        num: int = 1,
        temperature: float = 0.1,
        steps: int = 20,
        seed: int = 0,
        order: Order = "random",
        designed: Sequence[bool] | np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> Iterator[Design]:
        """As `design`, yielding each sequence as soon as its batch is done; arguments are checked at once."""
        _check(num, temperature, steps, seed)
        native = torch.from_numpy(tokens(structure.sequence)).to(self.device)
        free = self._designed(structure, designed)
        added = None if bias is None else torch.as_tensor(bias, dtype=torch.float32, device=self.device)

        @torch.no_grad()
        def sample() -> Iterator[Design]:
            encoding = self.encode(structure)
            start = torch.where(free, MASK_TOKEN, native)
            known = free & (native < UNKNOWN_TOKEN)
            batch = max(1, _BATCH_RESIDUES // len(native))
            for first in range(0, num, batch):
                positions = range(first, min(first + batch, num))
                rows = encoding.repeat(len(positions))
                x = start.expand(len(positions), -1)
                noise = NoiseSource(seed, positions)
                adjust = None if added is None else added.add
                drawn = unmask(
                    self.process, self.network, x, steps, noise, rows, temperature, order, adjust=adjust
                ).tokens
                scores = self.score_tokens(rows, drawn, free.expand_as(drawn))
                for row, position in enumerate(positions):
                    same = (drawn[row] == native)[known]
                    recovery = same.float().mean().item() if len(same) else None
                    sequence = letters(drawn[row].cpu().numpy())
                    yield Design(sequence, scores[row].item(), recovery, float(temperature), seed, position + 1)

        return sample()

    def score_tokens(self, encoding: Encoding, sequences: Tensor, scored: Tensor) -> Tensor:
        """The score of a design's header: any-order, nats per residue, [b]."""
        return any_order_nll(self.network, encoding, sequences, scored & (sequences < UNKNOWN_TOKEN))

    def score_native(self, structure: Structure, designed: Sequence[bool] | np.ndarray | None = None) -> float | None:
        """The score of the structure's own designed residues; None when none of them has a known type."""
        native = torch.from_numpy(tokens(structure.sequence)).to(self.device)[None]
        scored = self._designed(structure, designed)[None]
        if not bool(((native < UNKNOWN_TOKEN) & scored).any()):
            return None
        return self.score_tokens(self.encode(structure), native, scored).item()

    def _designed(self, structure: Structure, designed: Sequence[bool] | np.ndarray | None) -> Tensor:
        if designed is None:
            return torch.ones(len(structure), dtype=torch.bool, device=self.device)
        free = torch.tensor(np.asarray(designed, dtype=bool), device=self.device)
        if len(free) != len(structure):
            raise InputError(f"designed has {len(free)} entries for {len(structure)} residues; give one per residue")
        if not bool(free.any()):
            raise InputError(f"no residue of {structure.name} is designed; choose at least one")
        return free


def load(weights: str | Path | None = None, device: torch.device | str = "cpu") -> Designer:
    """Loads a designer.

    Args:
        weights: A folder that `save_pretrained` wrote; None loads the weights that come with the package.
        device: Where to run it.

    Raises:
        InputError: If the weights cannot be read, or the device is not there.
    """
    try:
        return Designer(from_pretrained(InverseFolding, BUNDLED if weights is None else Path(weights)), device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device} cannot be used ({str(error).splitlines()[0]}); try --device cpu") from error


def _check(num: int, temperature: float, steps: int, seed: int) -> None:
    rules: list[tuple[str, float, Callable[[float], bool], str]] = [
        ("num", num, lambda value: value >= 1, "at least 1"),
        ("temperature", temperature, lambda value: 0 <= value < float("inf"), "0 or more"),
        ("steps", steps, lambda value: value >= 1, "at least 1"),
        ("seed", seed, lambda value: value >= 0, "0 or more"),
    ]
    for name, value, holds, expected in rules:
        if not holds(value):
            raise InputError(f"{name} is {value}; expected {expected}")
