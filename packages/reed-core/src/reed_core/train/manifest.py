"""The manifest of a checkpoint: what each of its files holds, how long they are and their SHA-256.

It is `manifest.json` in the checkpoint's folder, carries the SHA-256 of its own content, and is the only index of the
tensors: a tensor is a set of pieces (one for each process that held a part), each a range of one file. Everything is
checked against it before a byte is used: torch looks at no checksum, and a flipped bit is not a weight.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reed_core.errors import InputError
from reed_core.files import sha256

FORMAT = 1
NAME = "manifest.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Seal(_Record):
    """What a file must be: its length in bytes and its SHA-256."""

    size: int = Field(ge=0)
    sha256: str


class Piece(_Record):
    """A box of a tensor: where it begins in the tensor, its extent, and its first byte in a file."""

    offset: tuple[int, ...]
    extent: tuple[int, ...]
    file: str = Field(pattern=r"^\d+\.safetensors$")
    start: int = Field(ge=0)


class Layout(_Record):
    """A tensor: its type as safetensors names it, its shape, and its pieces."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


class Manifest(_Record):
    """A checkpoint.

    Attributes:
        samples: Samples the run had seen.
        torch: The version of torch that wrote it.
        world: How many processes wrote it.
        files: The other files of the folder.
        tensors: The tensors of the state, by name.
        outline: The rest of the state (`reed_core.train.state_tree`).
    """

    samples: int
    torch: str
    world: int
    files: dict[str, Seal]
    tensors: dict[str, Layout]
    outline: Any

    def write(self, folder: Path) -> None:
        """Writes it into the checkpoint's folder."""
        content = json.dumps({"format": FORMAT, **self.model_dump()})
        (folder / NAME).write_text(f'{{"sha256": "{_digest(content)}", "content": {content}}}', encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint, itself checked; its files are not yet.

    Raises:
        ValueError: If it is damaged.
        OSError: If it cannot be read.
        InputError: If another version of this program wrote it.
    """
    held = json.loads((folder / NAME).read_text(encoding="utf-8"))
    try:
        content = held["content"]
        if held["sha256"] != _digest(json.dumps(content)):
            raise ValueError(f"{NAME} of {folder.name} is damaged")
        written_as = content.pop("format")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{NAME} of {folder.name} is damaged") from error
    if written_as != FORMAT:
        raise InputError(
            f"{folder} is a checkpoint of format {written_as}, this version reads format {FORMAT}; "
            "use the version that wrote it, or another folder"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{NAME} of {folder.name} is not one of a checkpoint") from error


def check_file(folder: Path, name: str, seal: Seal) -> None:
    """Checks a file of a checkpoint against its seal.

    Raises:
        ValueError: If it is not what was written.
        OSError: If it cannot be read.
    """
    size = (folder / name).stat().st_size
    if size != seal.size:
        raise ValueError(f"{name} of {folder.name} has {size} bytes instead of {seal.size}")
    if sha256(folder / name) != seal.sha256:
        raise ValueError(f"{name} of {folder.name} is damaged")


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
