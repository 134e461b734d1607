"""What `--dry-run` says of a structure: what is there, what would be designed, what the model does not see."""

from itertools import groupby

import numpy as np

from reed_protein.controls import Controls, Plan
from reed_protein.reader_notes import counted, listed
from reed_protein.residues import AMINO_ACIDS
from reed_protein.structure import Structure
from reed_protein.surroundings import NEAR_ANGSTROM, near


def report(structure: Structure, controls: Controls, plan: Plan) -> str:
    """A few lines of text, the first of which names the structure.

    Args:
        structure: The structure.
        controls: What was asked for.
        plan: What that comes to.
    """
    ids, designed = np.array(structure.residue_ids), plan.designed
    chains = np.array(structure.chain_ids)
    lines = [f"{structure.name}: {len(structure)} residues"]
    for chain in structure.chains:
        here = chains == chain
        own = ids[here]
        lines.append(
            f"  chain {chain}: {here.sum()} residues, {own[0]} to {own[-1]}, {(here & designed).sum()} designed"
        )
    lines.append(f"  designed: {_runs(structure, designed)}")
    lines.append(f"  fixed: {_runs(structure, ~designed)}")
    breaks = int(structure.breaks.sum()) - len(structure.chains)
    lines.append(f"  breaks inside chains: {breaks}")
    drawn = len(plan.sites)
    tied = int((plan.sites.sizes > 1).sum())
    lines.append(f"  ties: {tied} (draws: {drawn} for {len(plan.sites.places)} residues)")
    if plan.limits:
        most = ", ".join(f"{AMINO_ACIDS[letter]} {count}" for letter, count in plan.limits.items())
        lines.append(f"  at most, in residues: {most}")
    around = near(structure, designed)
    lines.append(
        f"  within {NEAR_ANGSTROM:g} A of designed residues, not seen by this model: {counted(around) or 'nothing'}"
    )
    total = controls.num * len(controls.temperatures)
    lines.append(f"  sequences: {total}, temperature {', '.join(f'{t:g}' for t in controls.temperatures)}")
    lines += [f"  note: {note}" for note in (*structure.notes, *plan.notes)]
    return "\n".join([*lines, ""])


def _runs(structure: Structure, chosen: np.ndarray) -> str:
    """How many residues are chosen, and which: `12 (A1-A10, B5, B7)`."""
    parts = []
    keys = zip(chosen.tolist(), structure.chain_ids, strict=True)
    place = 0
    for (wanted, _), run in groupby(keys):
        size = len(list(run))
        if wanted:
            first, last = structure.residue_ids[place], structure.residue_ids[place + size - 1]
            parts.append(first if size == 1 else f"{first} to {last}")
        place += size
    return f"{int(chosen.sum())} ({listed(parts)})" if parts else "0"
