"""The state x of a diffusion: one tensor, or several fields by name (coordinates, types, bonds) diffusing together."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from reed_core.errors import InputError

State: TypeAlias = Any
"""A tensor [b, ...], or a mapping of names to such tensors. Predictions, targets and masks have the same form."""


def map_state(function: Callable[..., Any], *states: State) -> State:
    """Applies a function to tensors, or to the fields of mappings, field by field.

    Args:
        function: Takes as many arguments as there are states.
        states: All tensors, or all mappings with the same fields. Beside mappings, None stands for None in every field.

    Raises:
        InputError: If mappings have different fields.
    """
    first = next((state for state in states if isinstance(state, Mapping)), None)
    if first is None:
        return function(*states)
    for state in states:
        if state is not None and (not isinstance(state, Mapping) or set(state) != set(first)):
            found = ", ".join(state) if isinstance(state, Mapping) else type(state).__name__
            raise InputError(f"expected the fields {', '.join(first)}, got {found}; give every field a value")
    return {name: function(*(None if state is None else state[name] for state in states)) for name in first}


def any_tensor(state: State) -> Tensor:
    """A tensor of a state, for its batch size and device."""
    return next(iter(state.values())) if isinstance(state, Mapping) else state


def batch_size(state: State) -> int:
    """Number of samples."""
    return any_tensor(state).shape[0]


def full_precision(state: State) -> State:
    """What a network computed under autocast, in float32; anything else as it is."""

    def full(value: Tensor) -> Tensor:
        low = torch.is_autocast_enabled(value.device.type) and value.dtype in (torch.bfloat16, torch.float16)
        return value.float() if low else value

    return map_state(full, state)
