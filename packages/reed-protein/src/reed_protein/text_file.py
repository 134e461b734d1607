"""The text of a file that a person names: opened, decompressed if gzipped, decoded; every way that can fail, in a line.

Text is decoded as UTF-8 where it is UTF-8 and as Latin-1 elsewhere, so that a stray byte in a comment stops nobody.
"""

import difflib
import gzip
import zlib
from pathlib import Path

from reed_core.errors import InputError

MAX_BYTES = 1 << 30


def read_text(path: Path, expected: str) -> str:
    r"""The text of a file, plain or gzipped (told by its content), lines ended by `\n`.

    Args:
        path: The file.
        expected: What should have been there, for messages (`a PDB file (.pdb)`).

    Raises:
        InputError: If there is no such file, or it is empty, binary, damaged, too large or cannot be read.
    """
    raw = _decompressed(path, _bytes(path, expected))
    if not raw.strip():
        raise InputError(f"{path} is empty; expected {expected}: save or fetch the file again")
    if b"\0" in raw:
        raise InputError(f"{path} is a binary file, not text; expected {expected}")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _bytes(path: Path, expected: str) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; expected {expected}")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not an ordinary file; expected {expected}: save the stream to a file first")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}; expected {expected}: {_advice(path)}") from None
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); expected {expected}: check the path") from error
    _check_size(path, raw)
    return raw


def _advice(path: Path) -> str:
    """What to try when a file is not there: the name it most resembles, or where its path ends."""
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    near = difflib.get_close_matches(path.name, [item.name for item in folder.iterdir()], n=1, cutoff=0.75)
    return f"did you mean {folder / near[0]}?" if near else "check the name, or give the path from another folder"


def _decompressed(path: Path, raw: bytes) -> bytes:
    if not raw.startswith(b"\x1f\x8b"):
        if path.suffix.lower() == ".gz" and raw:
            raise InputError(f"{path} is named .gz but is not gzipped; rename it, or fetch it again")
        return raw
    try:
        with gzip.open(path, "rb") as stream:
            plain = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot decompress {path} ({error}); it is damaged or cut short, fetch it again") from error
    _check_size(path, plain)
    return plain


def _check_size(path: Path, raw: bytes) -> None:
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES >> 20} MiB; give a file with less in it")
