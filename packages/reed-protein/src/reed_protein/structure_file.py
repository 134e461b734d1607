"""The format of a structure file, told apart by its text; nothing of the content is parsed here.

The first line that says something decides (`data_` opens an mmCIF, a PDB record name a PDB file); then the suffix; then
the first line that looks like atoms of either kind.
"""

import re
from pathlib import Path
from typing import Literal, NamedTuple

from reed_core.errors import InputError

from reed_protein.text_file import read_text

_PDB_SUFFIX = re.compile(r"\.(pdb\d*|ent\d*|brk)$", re.IGNORECASE)
_MMCIF_SUFFIX = re.compile(r"\.(cif|mmcif|pdbx)$", re.IGNORECASE)
_PDB_OPENING = re.compile(
    r"(HEADER|TITLE |COMPND|SOURCE|KEYWDS|EXPDTA|AUTHOR|REMARK|CRYST1|MODEL |SEQRES|HELIX |SHEET |ORIGX1|SCALE1)\s"
    r"|ATOM  |HETATM"
)
_EXPECTED = "a PDB file (.pdb, .ent) or an mmCIF file (.cif), plain or gzipped"


class StructureText(NamedTuple):
    """The text of a structure file.

    Attributes:
        name: The file's name without folder and suffixes.
        text: Its content.
        format: Which reader it is for.
    """

    name: str
    text: str
    format: Literal["pdb", "mmcif"]


def load(path: Path) -> StructureText:
    """Opens a structure file.

    Raises:
        InputError: If there is no such file, it cannot be read, or it is neither PDB nor mmCIF text.
    """
    text = read_text(path, _EXPECTED)
    plain = re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)
    stem = re.sub(_MMCIF_SUFFIX, "", re.sub(_PDB_SUFFIX, "", plain))
    name = " ".join((stem or plain).encode("utf-8", "replace").decode().split())
    return StructureText(name, text, _format(path, plain, text))


def _format(path: Path, plain_name: str, text: str) -> Literal["pdb", "mmcif"]:
    opening = re.search(r"^(?!#)[^\n]*\S", text, re.MULTILINE)
    first = opening.group() if opening else ""
    if first.lower().startswith("data_"):
        return "mmcif"
    if _PDB_OPENING.match(first + " "):
        return "pdb"
    if _MMCIF_SUFFIX.search(plain_name):
        return "mmcif"
    if _PDB_SUFFIX.search(plain_name):
        return "pdb"
    if re.search(r"^_atom_site\.", text, re.MULTILINE):
        return "mmcif"
    if re.search(r"^(ATOM  |HETATM)", text, re.MULTILINE):
        return "pdb"
    raise InputError(f"{path} holds neither PDB nor mmCIF records; expected {_EXPECTED}")
