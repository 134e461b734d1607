"""Caches that training finds by their settings, without loading the encoder that wrote them.

A cache lies in `ROOT/KIND-DIGEST-DATA`; the digest is of its settings and its format. The fingerprint under which it is
written holds the settings, in parts named `settings.*`, and the encoder's own parts, named `encoder.*`: the first are
compared when it is opened, and a second writer with other weights under the same settings is refused.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Bool
from torch import Tensor

from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation.cache import Cache, open_cache
from reed_core.representation.encoder import Encoder
from reed_core.representation.identity import named, parts_of
from reed_core.representation.shard import MANIFEST, Manifest

_PREFIX = "settings."


def settings_of(parts: Mapping[str, str]) -> str:
    """The fingerprint of settings, by name."""
    return named({f"{_PREFIX}{name}": value for name, value in parts.items()})


def settings_in(fingerprint: str) -> str:
    """The settings under which a cache was written, from the fingerprint in its manifest."""
    return " ".join(word for word in fingerprint.split() if word.startswith(_PREFIX))


def cache_folder(root: Path, kind: str, settings: str, format: str, data: str) -> Path:
    """Where a cache lies.

    Args:
        root: The folder of caches.
        kind: What kind of latent it is.
        settings: Their fingerprint.
        format: How values are stored.
        data: The fingerprint of the items.
    """
    digest = hashlib.sha256(f"{settings} {format}".encode()).hexdigest()
    return root / f"{kind}-{digest[:10]}-{data[:10]}"


def is_complete(folder: Path) -> bool:
    """Whether a cache has been written to its end."""
    return (folder / MANIFEST).is_file()


def absent(latent: str, folder: Path, program: str, instead: str = "") -> InputError:
    """The error of a cache that is not there.

    Args:
        latent: The name of the latent.
        folder: Where it should be.
        program: The command line whose `featurize` writes it.
        instead: What is there instead.
    """
    return InputError(
        f"no cache of latent '{latent}' in {folder}{instead}; write it with: {program} featurize, and the arguments of "
        "this run"
    )


def open_by_settings(folder: Path, settings: str, data: str) -> Cache:
    """Opens a cache that `Stamped` values were written to.

    Args:
        folder: A complete cache.
        settings: The settings wanted.
        data: The fingerprint of the items.

    Raises:
        InputError: If it is damaged, or was written under other settings or of other data.
    """
    path = folder / MANIFEST
    try:
        held = Manifest.model_validate_json(path.read_text(encoding="utf-8")).content.encoder_fingerprint
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} is no manifest of a cache ({reason}); remove {folder} and featurize again") from error
    own = " ".join(word for word in held.split() if not word.startswith(_PREFIX))
    return open_cache(folder, encoder=f"{settings} {own}", data=data)


class Stamped:
    """An encoder whose fingerprint begins with its settings.

    Args:
        encoder: The encoder.
        settings: Their fingerprint (`settings_of`).
    """

    def __init__(self, encoder: Encoder, settings: str) -> None:
        self.encoder, self.name, self.dim = encoder, encoder.name, encoder.dim
        self.level: Literal["token", "pair", "global"] = encoder.level
        own = parts_of(encoder.fingerprint)
        self.fingerprint = f"{settings} {named({f'encoder.{name}' if name else 'encoder': own[name] for name in own})}"

    def __call__(self, x_0: Any, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """What the encoder says."""
        return self.encoder(x_0, c, mask)
