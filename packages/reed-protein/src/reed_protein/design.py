"""Designing sequences for a backbone.

model = reed_protein.load()
designs = model.design(reed_protein.read_structure("backbone.pdb"), num=8, temperature=0.1, fix="A10-20", omit="C")
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reed_core.errors import InputError
from reed_core.hub import from_pretrained
from reed_core.noise import NoiseSource
from torch import Tensor

from reed_protein.backbone import Backbone
from reed_protein.controls import Controls, Plan
from reed_protein.network import UNKNOWN_TOKEN, Encoding, InverseFolding
from reed_protein.residues import letters, tokens
from reed_protein.sampling import fill
from reed_protein.score import ScoreKind, header_score, rows_at_once
from reed_protein.structure import Structure

BUNDLED = Path(__file__).parent / "weights" / "reed-protein-small"


@dataclass(frozen=True)
class Design:
    """One sequence for one structure.

    Attributes:
        sequence: One letter per residue of the structure, chains in its order.
        score: Negative log-likelihood, nats per residue, lower is better (`reed_protein.score`); None if not asked for.
        recovery: Share of designed residues of known native type that equal it; None when none is known.
        temperature: Sampling temperature.
        seed: Seed of the call.
        sample: Number of the design at its temperature, from 1.
        score_kind: Which score it is.
    """

    sequence: str
    score: float | None
    recovery: float | None
    temperature: float
    seed: int
    sample: int
    score_kind: ScoreKind = "any-order"


class Designer:
    """A trained network, ready to design.

    Args:
        network: The network.
        device: Where to run it.
    """

    def __init__(self, network: InverseFolding, device: torch.device | str = "cpu") -> None:
        self.network = network.to(device).eval()
        self.device = torch.device(device)

    @torch.no_grad()
    def encode(self, structure: Structure) -> Encoding:
        """Encodes a structure once, for any number of designs and scores."""
        return self.network.encode(Backbone.from_structure(structure).to(self.device))

    def design(
        self,
        structure: Structure,
        controls: Controls | None = None,
        *,
        encoding: Encoding | None = None,
        score: ScoreKind = "any-order",
        **changes: Any,
    ) -> list[Design]:
        """Samples sequences.

        Args:
            structure: The backbone; its own sequence is not looked at, except at residues that are not designed.
            controls: What to design, and how; the defaults of `Controls` if None.
            encoding: What `encode` made of the structure, to share it between calls.
            score: The score of each design: "any-order" (10 blocks, so up to 10 evaluations more, all but the first for
                each design), "one-shot" (one evaluation for all designs) or "none".
            **changes: Fields of `Controls` that differ: `num=8, temperature=[0.1, 0.3], omit="C"`.

        Returns:
            `num` designs for each temperature, in order.

        Raises:
            InputError: If the controls are out of range, name what is not there, or contradict each other.
        """
        return list(self.designs(structure, controls, encoding=encoding, score=score, **changes))

    def designs(
        self,
        structure: Structure,
        controls: Controls | None = None,
        *,
        encoding: Encoding | None = None,
        score: ScoreKind = "any-order",
        **changes: Any,
    ) -> Iterator[Design]:
        """As `design`, yielding each sequence as soon as its batch is done; arguments are checked at once."""
        chosen = replace(controls or Controls(), **changes)
        plan = chosen.plan(structure)
        return self._sample(structure, chosen, plan, encoding, score)

    def _sample(
        self, structure: Structure, chosen: Controls, plan: Plan, encoding: Encoding | None, kind: ScoreKind
    ) -> Iterator[Design]:
        encoding = encoding or self.encode(structure)
        native, start, designed = self._tensors(structure, plan)
        counted = designed & (native < UNKNOWN_TOKEN)
        # Each diverse design looks at the ones before it, so they are drawn one by one.
        batch = 1 if chosen.diverse else rows_at_once(len(native), self.device)
        for temperature in chosen.temperatures:
            used = torch.zeros(plan.sites.bias.shape, device=self.device)
            for first in range(0, chosen.num, batch):
                positions = range(first, min(first + batch, chosen.num))
                rows = encoding.repeat(len(positions))
                drawn = fill(
                    self.network,
                    rows,
                    start,
                    plan.sites,
                    NoiseSource(chosen.seed, positions),
                    chosen.steps,
                    temperature,
                    chosen.order,
                    [allowance for _ in positions if (allowance := plan.allowance())] or None,
                    used * (chosen.diverse / first) if chosen.diverse and first else None,
                ).tokens
                scores = header_score(self.network, rows, drawn, designed.expand_as(drawn), kind)
                for row, position in enumerate(positions):
                    used[torch.arange(len(used)), drawn[row, plan.sites.first]] += 1
                    same = (drawn[row] == native)[counted]
                    recovery = same.float().mean().item() if len(same) else None
                    sequence = letters(drawn[row].cpu().numpy())
                    yield Design(sequence, scores[row], recovery, temperature, chosen.seed, position + 1, kind)

    def _tensors(self, structure: Structure, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """The structure's own tokens, those that stand from the start, and which residues are designed."""
        native, start = (torch.from_numpy(tokens(text)).to(self.device) for text in (structure.sequence, plan.known))
        return native, start, torch.from_numpy(plan.designed).to(self.device)

    def score_native(
        self,
        structure: Structure,
        designed: Sequence[bool] | np.ndarray | None = None,
        encoding: Encoding | None = None,
        kind: ScoreKind = "any-order",
    ) -> float | None:
        """The score of the structure's own designed residues; None when none of them has a known type."""
        native = torch.from_numpy(tokens(structure.sequence)).to(self.device)[None]
        plan = Controls(designed=designed).plan(structure)
        scored = torch.from_numpy(plan.designed).to(self.device)[None]
        if not bool(((native < UNKNOWN_TOKEN) & scored).any()):
            return None
        return header_score(self.network, encoding or self.encode(structure), native, scored, kind)[0]


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
