"""The structure files that a person names: files, folders, patterns; each file once, each with a name for its output.

A folder stands for the structure files in it (not in folders below; hidden ones are passed over), a pattern such as
`"x/*.cif.gz"` or `"x/**/*.pdb"` for what it matches; both in alphabetical order. Output is named after the structure;
where two files would share a name (`1A8O.pdb`, `1A8O.cif`), the names keep their suffixes.
"""

import glob
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from reed_core.errors import InputError

_STRUCTURE = re.compile(r"[^.].*\.(pdb\d*|ent\d*|brk|cif|mmcif|pdbx)(\.gz)?", re.IGNORECASE)
_SUFFIX = re.compile(r"\.(pdb\d*|ent\d*|brk|cif|mmcif|pdbx)$", re.IGNORECASE)
_PATTERN = re.compile(r"[*?[]")


class Input(NamedTuple):
    """A structure file, and the name of what is made of it."""

    path: Path
    name: str


class Inputs(NamedTuple):
    """The files, and what was named but stands for none, a line each."""

    files: tuple[Input, ...]
    problems: tuple[str, ...]


def find(texts: Sequence[str]) -> Inputs:
    """The files that texts name, in their order.

    Args:
        texts: Files, folders and patterns. A file that is not there is among the files: reading it says so.
    """
    paths: dict[Path, Path] = {}
    problems = []
    for text in texts:
        here = Path(text)
        if here.is_dir():
            found = sorted(path for path in here.iterdir() if _STRUCTURE.fullmatch(path.name) and path.is_file())
            what = "folder holds"
        elif not here.exists() and _PATTERN.search(text):
            found = sorted(path for name in glob.glob(text, recursive=True) if (path := Path(name)).is_file())
            what = "pattern matches"
        else:
            found, what = [here], ""
        if not found:
            problems.append(f"{text}: this {what} no structure file (.pdb, .ent, .cif, .mmcif, plain or .gz)")
        for path in found:
            paths.setdefault(path.resolve(), path)
    files = list(paths.values())
    plain = [re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE) for path in files]
    stems = [_SUFFIX.sub("", name) or name for name in plain]
    often = Counter(stems)
    names = [stem if often[stem] == 1 else path.name for stem, path in zip(stems, files, strict=True)]
    clash = next((name for name, count in Counter(names).items() if count > 1), None)
    if clash is not None:
        both = [str(path) for path, name in zip(files, names, strict=True) if name == clash]
        raise InputError(f"{both[0]} and {both[1]} would be written to one file; design them one after the other")
    return Inputs(tuple(map(Input, files, names)), tuple(problems))
