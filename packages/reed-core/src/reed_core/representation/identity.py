"""Fingerprints in parts: one word NAME=VALUE for each thing that values depend on, so a refusal can say which changed.

A fingerprint is a string that changes whenever values may. Any string will do; one made here names its parts, such as
`weights=3f... tap=blocks.7 level=token`.
"""

import hashlib
import re
from collections.abc import Mapping


def named(parts: Mapping[str, str]) -> str:
    """A fingerprint of named parts; a value with spaces, or a long one, is replaced by its SHA-256.

    Args:
        parts: What values depend on, by a name without spaces.
    """
    return " ".join(f"{name}={_word(value)}" for name, value in parts.items())


def parts_of(fingerprint: str) -> dict[str, str]:
    """The parts of a fingerprint; of one that names none, itself under the empty name."""
    words = [word.partition("=") for word in fingerprint.split()]
    if not words or not all(name and equals for name, equals, _ in words):
        return {"": fingerprint}
    return {name: value for name, _, value in words}


def differences(what: str, held: str, wanted: str) -> list[str]:
    """Which parts of two fingerprints differ, in words; none if they are equal.

    Args:
        what: Of what, as "encoder".
        held: That of the values that are there.
        wanted: That of the values asked for.
    """
    if held == wanted:
        return []
    there, here = parts_of(held), parts_of(wanted)
    if ("" in there) != ("" in here):
        there, here = {"": held}, {"": wanted}
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return [
        f"the {what}{f' ({name})' if name else ''} differs (there {_shown(there, name)}, here {_shown(here, name)})"
        for name in names
    ]


def _shown(parts: Mapping[str, str], name: str) -> str:
    return parts[name][:16] or "nothing" if name in parts else "nothing"


def _word(value: str) -> str:
    plain = re.fullmatch(r"[\w.,:/+{}\-]{0,80}", value)
    return value if plain else hashlib.sha256(value.encode()).hexdigest()
