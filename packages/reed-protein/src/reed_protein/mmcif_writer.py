"""A backbone as mmCIF text: N, CA, C and O of every residue, with the author's chain ids, numbers, insertion codes.

What is written reads back the same to 0.001 A. Author ids stand in the `auth_` columns. `label_seq_id` counts within
each chain and jumps where the author's numbers jump over missing residues, so that a reader joins nothing across them.
Unlike a PDB file it holds chain ids of several characters and any number of atoms.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float
from reed_core.errors import InputError
from reed_core.files import write_text

from reed_protein import residues
from reed_protein.backbone_text import ATOMS, columns
from reed_protein.structure import Structure

_COLUMNS = (
    *("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id"),
    *("label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy"),
    *("B_iso_or_equiv", "auth_seq_id", "auth_comp_id", "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num"),
)
_BARE = re.compile(r"[A-Za-z0-9+-][A-Za-z0-9_+.*-]*")
_RESERVED = re.compile(r"(data_|save_|loop_$|stop_$|global_$).*", re.IGNORECASE)


def write_mmcif(
    structure: Structure,
    path: str | Path,
    sequence: str | None = None,
    b_factors: Float[np.ndarray, " l"] | None = None,
    title: str = "",
) -> None:
    """Writes a backbone, whole or not at all.

    Args:
        structure: The backbone.
        path: The file.
        sequence: L letters that name the residues (X as UNK); the structure's own if None.
        b_factors: A number per residue for the B-factor column; 0 if None.
        title: What the file says about itself.

    Raises:
        InputError: If a chain id does not fit, the lengths differ, or the file cannot be written.
    """
    write_text(Path(path), mmcif_text(structure, sequence, b_factors, title))


def mmcif_text(
    structure: Structure,
    sequence: str | None = None,
    b_factors: Float[np.ndarray, " l"] | None = None,
    title: str = "",
) -> str:
    """The text that `write_mmcif` writes; arguments and errors are the same."""
    letters, temperature = columns(structure, sequence, b_factors)
    _check(structure, temperature)
    entry = re.sub(r"[^A-Za-z0-9_.-]+", "_", structure.name) or "backbone"
    lines = [f"data_{entry}", "#", f"_entry.id {_value(entry)}"]
    lines.append(f"_struct.title {_value(' '.join(f'backbone of {structure.name} {title}'.split()))}")
    lines += ["#", "loop_", *(f"_atom_site.{column}" for column in _COLUMNS)]
    entity = {chain: index + 1 for index, chain in enumerate(structure.chains)}
    label = _label_numbers(structure)
    for index, letter in enumerate(letters):
        name, number = residues.three_letter(letter), structure.residue_numbers[index]
        chain, code = structure.chain_ids[index], structure.insertion_codes[index] or "?"
        asym = _value(chain)
        for place, (atom, (x, y, z)) in enumerate(zip(ATOMS, structure.coords[index].astype(float), strict=True)):
            lines.append(
                f"ATOM {4 * index + place + 1} {atom[0]} {atom} . {name} {asym} {entity[chain]} {label[index]} {code} "
                f"{x:.3f} {y:.3f} {z:.3f} 1.00 {temperature[index]:.2f} {number} {name} {asym} {atom} 1"
            )
    return "\n".join([*lines, "#", ""])


def _label_numbers(structure: Structure) -> list[int]:
    """Numbers from 1 in each chain; at a break the author's jump is kept, if there is one."""
    numbers, chain, breaks = structure.residue_numbers.astype(int), structure.chain_index, structure.breaks
    label: list[int] = []
    for index in range(len(structure)):
        if not index or chain[index] != chain[index - 1]:
            label.append(1)
        else:
            jump = max(1, int(numbers[index] - numbers[index - 1])) if breaks[index] else 1
            label.append(label[-1] + jump)
    return label


def _value(text: str) -> str:
    """A text as one CIF value."""
    plain = text.encode("ascii", "replace").decode()
    if _BARE.fullmatch(plain) and not _RESERVED.fullmatch(plain):
        return plain
    quote = next((quote for quote in "'\"" if quote not in plain), None)
    return f"{quote}{plain}{quote}" if quote else "'" + plain.replace("'", "`") + "'"


def _check(structure: Structure, b_factors: Float[np.ndarray, " l"]) -> None:
    name = structure.name
    if not np.isfinite(b_factors).all():
        raise InputError(f"B-factors of {name} are not all finite; give a number per residue")
    for chain in structure.chains:
        # Readers in use take a quoted keyword for the keyword, and a quoted dot for nothing.
        plain = re.fullmatch(r"[!-~]+", chain) and chain not in (".", "?") and not _RESERVED.fullmatch(chain)
        if not plain or ("'" in chain and '"' in chain):
            raise InputError(f"chain id '{chain}' of {name} does not fit an mmCIF file; rename the chain")
