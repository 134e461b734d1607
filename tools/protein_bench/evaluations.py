"""A count of decoder evaluations."""

from collections.abc import Callable
from typing import Any

from reed_protein.network import InverseFolding


def evaluations(network: InverseFolding, action: Callable[[], Any]) -> int:
    """How often the decoder runs while something is done, whatever the batch."""
    count = 0

    def add(*_: Any) -> None:
        nonlocal count
        count += 1

    handle = network.register_forward_pre_hook(add)
    try:
        action()
    finally:
        handle.remove()
    return count
