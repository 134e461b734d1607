"""Looking at a network without changing it: evaluation mode, and the random numbers of the program left alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def watched(*modules: object) -> Iterator[None]:
    """Puts torch modules into evaluation mode for a block; their modes and torch's random state are as before after it.

    Args:
        modules: Modules; anything else is passed over.
    """
    parts = [part for module in modules if isinstance(module, nn.Module) for part in module.modules()]
    modes = [part.training for part in parts]
    try:
        with torch.random.fork_rng():
            for part in parts:
                part.training = False
            yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
