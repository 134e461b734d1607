"""Files and folders that are whole or absent: every writer writes aside, flushes to the disk and renames.

The rename is atomic: a reader, or a run that is killed, sees the earlier content or the new one, never a part. What a
failed block has written aside is removed; only a process that is killed outright leaves a `.NAME.*.part` behind.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reed_core.errors import InputError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Writers in other languages hide the number. safetensors keeps it in its text; torch's archive writer says only that
# its stream failed, or that it is not where it should be.
_BROKEN_STREAM_TEXT = ("iostream error", "PytorchStreamWriter failed writing", ". unexpected pos ")


@contextmanager
def written_aside(path: Path | str) -> Iterator[Path]:
    """Yields a temporary file beside `path`, renamed to it when the block succeeds, removed when it does not.

    The result has the permissions a plain `open()` would give: those of the file it replaces, or what the umask
    leaves of 0666. A symbolic link stays one; the file it points at is replaced. The temporary file keeps the
    suffix, because some writers choose the format by it, or append it.

    Args:
        path: The file to be written. Its folder is created.

    Yields:
        An empty file, to be opened again by the block.

    Raises:
        InputError: If the place cannot be written, or the disk is full; whatever else the block raises, unchanged.
    """
    target = Path(os.path.realpath(path))
    aside = _beside(target)
    with _explained(path, target, aside):
        if target.exists() and not target.is_file():
            raise InputError(f"cannot write {path}: it is a {_kind(target)}; give the path of a file")
        if target.exists() and not os.access(target, os.W_OK):
            raise InputError(f"cannot write {path}: it is read-only; remove it first or choose another name")
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.touch(mode=0o666, exist_ok=False)
        mode = (target if target.exists() else aside).stat().st_mode
        try:
            yield aside
            _flush(aside)
            aside.chmod(mode & 0o7777)
            aside.replace(target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _flush(target.parent)


@contextmanager
def directory_written_aside(path: Path | str) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, renamed to it when the block succeeds, removed when it does not.

    A folder cannot be exchanged for another in one step everywhere, so none is ever replaced. The files keep the
    permissions their writers gave them (safetensors gives 0600: use `written_aside` within for a shared folder).

    Args:
        path: The folder to be made: absent, or empty. Its parent is created.

    Yields:
        An empty folder, to be filled by the block.

    Raises:
        InputError: If `path` holds something, cannot be written, or the disk is full; whatever else the block raises,
            unchanged.
    """
    target = Path(os.path.realpath(path))
    aside = _beside(target)
    with _explained(path, target, aside):
        if target.exists() and not target.is_dir():
            raise InputError(f"cannot write {path}: it is a {_kind(target)}; give the path of a folder")
        if target.exists() and any(target.iterdir()):
            raise InputError(f"cannot write {path}: the folder is not empty; remove it first or choose another name")
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        try:
            yield aside
            for made in (*aside.rglob("*"), aside):
                _flush(made)
            aside.replace(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _flush(target.parent)


def write_text(path: Path | str, text: str) -> None:
    """Writes a text file (UTF-8, lines ended by a bare newline) whole or not at all.

    Args:
        path: The file.
        text: Its new content.

    Raises:
        InputError: If it cannot be written.
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def write_with(path: Path | str, writer: Callable[[Path], object]) -> None:
    """Writes a file through `writer(aside)`, whole or not at all.

    Args:
        path: The file.
        writer: Writes the content to the path it is given.

    Raises:
        InputError: If it cannot be written.
    """
    with written_aside(path) as aside:
        writer(aside)


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: If the file cannot be read.
    """
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _explained(path: Path | str, target: Path, aside: Path) -> Iterator[None]:
    """Turns what went wrong with this path, or with the space on its disk, into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = _no_space(error)
        if reason is not None:
            raise InputError(f"cannot write {path}: {reason}; free some space or choose another place") from error
        if isinstance(error, OSError) and _concerns(error, target, aside):
            raise InputError(f"cannot write {path}: {error.strerror}; choose another place") from error
        raise


def _no_space(error: BaseException) -> str | None:
    """What an error, or one of those it came from, says about a disk without space; None if it says nothing."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _NO_SPACE:
            return os.strerror(link.errno)
        for number in _NO_SPACE:
            if f"(os error {number})" in str(link) or os.strerror(number) in str(link):
                return os.strerror(number)
        if isinstance(link, RuntimeError) and any(text in str(link) for text in _BROKEN_STREAM_TEXT):
            return "the writer stopped part-way, as on a full disk"
        link = link.__cause__ or link.__context__
    return None


def _concerns(error: OSError, target: Path, aside: Path) -> bool:
    """Whether the error names the path being written, something in it, or a folder above it."""
    names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return any(name in (target, *target.parents) or name.is_relative_to(aside) for name in names)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.stem[:40]}.{secrets.token_hex(6)}.part{target.suffix[-20:]}")


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else "file" if path.is_file() else "device or pipe"


def _flush(path: Path) -> None:
    """Waits until the disk has a file, or a folder's list of names where the system can tell."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
