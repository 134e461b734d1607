"""Files from elsewhere with the size and hash that their publisher states. A file that is there already is used.

QM9 is figshare collection 978904 (Ramakrishnan et al. 2014, doi 10.1038/sdata.2014.22); sizes and MD5 are those that
figshare publishes for its files. MD5 finds a damaged file; it is no proof against a forged one.
"""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reed_core.errors import InputError
from reed_core.files import written_aside

_CHUNK = 1 << 18
_TIMEOUT = 30.0


@dataclass(frozen=True)
class Remote:
    """A file elsewhere.

    Attributes:
        name: Its name here.
        address: Where it is.
        size: Bytes.
        md5: Its hash.
    """

    name: str
    address: str
    size: int
    md5: str


QM9_ARCHIVE = Remote(
    "dsgdb9nsd.xyz.tar.bz2",
    "https://ndownloader.figshare.com/files/3195389",
    86_144_227,
    "ad1ebd51ee7f5b3a6e32e974e5d54012",
)
QM9_UNCHARACTERISED = Remote(
    "uncharacterized.txt",
    "https://ndownloader.figshare.com/files/3195404",
    486_752,
    "a361887bacb427b8a0ce7903d92a53b4",
)


def fetch(remote: Remote, folder: Path, progress: Callable[[int], None] | None = None) -> Path:
    """The file in a folder: as it lies there, or downloaded, checked either way.

    Args:
        remote: The file.
        folder: Where it lies, or is to lie.
        progress: Called with the bytes of each piece.

    Raises:
        InputError: If what lies there is another file, or it cannot be downloaded: with what to fetch by hand.
    """
    path = Path(folder) / remote.name
    if path.exists():
        check(path, remote)
        return path
    by_hand = f"fetch {remote.address} by hand, save it as {path}, and run the command again"
    digest, received = hashlib.md5(usedforsecurity=False), 0
    try:
        with urllib.request.urlopen(remote.address, timeout=_TIMEOUT) as answer, written_aside(path) as aside:
            with aside.open("wb") as stream:
                while piece := answer.read(_CHUNK):
                    stream.write(piece)
                    digest.update(piece)
                    received += len(piece)
                    if progress is not None:
                        progress(len(piece))
            if (received, digest.hexdigest()) != (remote.size, remote.md5):
                raise InputError(
                    f"{remote.address} gave {received} bytes of MD5 {digest.hexdigest()}, not the {remote.size} bytes "
                    f"of {remote.md5} expected; {by_hand}"
                )
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())[:120]
        raise InputError(f"cannot download {remote.name} ({reason}); {by_hand}") from error
    return path


def check(path: Path, remote: Remote) -> None:
    """Compares a file with what it should be.

    Raises:
        InputError: If size or hash differ, or it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            found = (path.stat().st_size, hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give the file {remote.name}") from error
    if (found[0], found[1].hexdigest()) != (remote.size, remote.md5):
        raise InputError(
            f"{path} has {found[0]} bytes of MD5 {found[1].hexdigest()}, not the {remote.size} bytes of {remote.md5} "
            f"expected; remove it, or fetch {remote.address} again"
        )
