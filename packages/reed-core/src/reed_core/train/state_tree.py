"""The state of a run as a tree: its tensors by name, and an outline in JSON that holds everything else.

A state is nested dicts, lists and tuples of tensors, numbers, strings and None. `flatten` takes the tensors out and
leaves an outline with a place for each; `rebuild` puts tensors into the places. Together they are the identity: keys
keep their order and kind (1 is not "1"), a tuple stays a tuple, a float keeps every bit.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor


class Flat(NamedTuple):
    """A state taken apart.

    Attributes:
        tensors: The tensors by name: their path, joined by slashes.
        outline: The rest, as JSON can hold it.
    """

    tensors: dict[str, Tensor]
    outline: Any


def flatten(state: Any) -> Flat:
    """Takes the tensors out of a state.

    Raises:
        TypeError: If the state holds something else than tensors, numbers, strings, None, dicts, lists and tuples.
        ValueError: If two tensors have the same name.
    """
    tensors: dict[str, Tensor] = {}
    return Flat(tensors, _outline(state, (), tensors))


def rebuild(outline: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state of an outline, with these tensors in their places.

    Raises:
        KeyError: If a tensor is missing, or the outline is not one.
    """
    if not isinstance(outline, dict):
        return outline
    ((kind, content),) = outline.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: rebuild(part, tensors) for key, part in content}
    parts = [rebuild(part, tensors) for part in content]
    return {"list": list, "tuple": tuple}[kind](parts)


def _outline(value: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)  # RFC 6901
        if name in tensors:
            raise ValueError(f"two tensors of the state are named {name}")
        tensors[name] = value
        return {"tensor": name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"a key of the state is a {type(key).__name__}; expected a string or a whole number")
        return {"dict": [[key, _outline(part, (*path, str(key)), tensors)] for key, part in value.items()]}
    if type(value) in (list, tuple):
        parts = [_outline(part, (*path, str(number)), tensors) for number, part in enumerate(value)]
        return {type(value).__name__: parts}
    raise TypeError(f"{'/'.join(path)} of the state is a {type(value).__name__}; expected tensors, numbers and strings")
