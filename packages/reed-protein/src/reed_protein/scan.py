"""Every single mutant of a sequence: how much more, or less, probable than the wild type it is at its place.

    log_odds(i, a)          = log p(a | backbone, all other residues) - log p(wild type | the same)
    log_odds_backbone(i, a) = log p(a | backbone) - log p(wild type | backbone)

In nats; positive: the model prefers the mutant. These are differences of the probabilities in `probabilities`: one
evaluation per residue gives all of its mutants. They are log-odds of sequences, not free energies.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from reed_core.errors import InputError

from reed_protein.design import Designer
from reed_protein.given import GivenSequence
from reed_protein.probabilities import backbone_log_probabilities, conditional_log_probabilities
from reed_protein.residues import AMINO_ACIDS, UNKNOWN, tokens
from reed_protein.structure import Structure
from reed_protein.tables import Cell, Table

COLUMNS = (
    *("rank", "mutation", "residue_id", "chain", "number", "insertion_code", "wild_type", "mutant"),
    *("log_odds", "log_odds_backbone"),
)


@dataclass(frozen=True)
class MutationScan:
    """The single mutants of a sequence.

    Attributes:
        structure: The backbone.
        sequence: The wild type, a letter per residue of the structure.
        positions: The residues scanned, as indices into the structure; residues of unknown type are not among them.
        log_odds: Given all other residues, nats, by `AMINO_ACIDS`; 0 for the wild type itself.
        log_odds_backbone: Given the backbone alone.
    """

    structure: Structure
    sequence: str
    positions: Int64[np.ndarray, " p"]
    log_odds: Float32[np.ndarray, "p 20"]
    log_odds_backbone: Float32[np.ndarray, "p 20"]


def scan(
    designer: Designer,
    structure: Structure,
    wild_type: GivenSequence,
    chosen: Bool[np.ndarray, " l"] | None = None,
    progress: bool = False,
) -> MutationScan:
    """Scans the single mutants of a sequence.

    Args:
        designer: The model.
        structure: The backbone.
        wild_type: The sequence that is mutated.
        chosen: The residues to scan, [L]; all if None. Those of unknown type are passed over.
        progress: Show a progress bar on standard error.

    Raises:
        InputError: If no chosen residue has a known type.
    """
    known = np.array([letter != UNKNOWN for letter in wild_type.sequence])
    positions = np.flatnonzero(known if chosen is None else known & chosen)
    if not len(positions):
        raise InputError(f"no residue to scan: those chosen of {structure.name} are all of unknown type; choose others")
    row = torch.from_numpy(tokens(wild_type.sequence)).to(designer.device)
    where = torch.from_numpy(positions).to(designer.device)
    encoding = designer.encode(structure)
    conditional = conditional_log_probabilities(designer.network, encoding, row, where, progress)
    backbone = backbone_log_probabilities(designer.network, encoding)[where]
    own = row[where, None]
    odds = [(log_p - log_p.gather(1, own)).cpu().numpy() for log_p in (conditional, backbone)]
    return MutationScan(structure, wild_type.sequence, positions, *odds)


def scan_table(found: MutationScan) -> Table:
    """The mutants by falling `log_odds`, the wild types left out."""
    structure = found.structure
    order = np.argsort(-found.log_odds, axis=None, kind="stable")
    rows: list[tuple[Cell, ...]] = []
    for place, letter in zip(*np.unravel_index(order, found.log_odds.shape), strict=True):
        position = int(found.positions[place])
        wild, mutant = found.sequence[position], AMINO_ACIDS[letter]
        if wild == mutant:
            continue
        residue = structure.residue_ids[position]
        rows.append(
            (
                *(len(rows) + 1, f"{wild}{residue}{mutant}", residue, structure.chain_ids[position]),
                *(int(structure.residue_numbers[position]), structure.insertion_codes[position], wild, mutant),
                *(float(found.log_odds[place, letter]), float(found.log_odds_backbone[place, letter])),
            )
        )
    about = {"structure": structure.name, "unit": "nats; positive: the mutant is more probable than the wild type"}
    return Table(COLUMNS, rows, about)
