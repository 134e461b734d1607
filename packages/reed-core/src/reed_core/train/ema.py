"""An exponential moving average of weights, kept in float32 or wider beside the trained ones; in shards if they are."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reed_core.train.parallel import local, whole


class Ema:
    """The average of a module's parameters over steps.

    Args:
        module: The trained module.
        decay: Largest decay per step; early on (1 + step) / (10 + step) is used instead, when smaller.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live: Sequence[Tensor] = list(module.parameters())
        self._names = [name for name, _ in module.named_parameters()]
        self._average = [
            parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
            for parameter in self._live
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the current weights.

        Args:
            step: Steps taken so far, from 1.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        mean = [local(average) for average in self._average]
        live = [
            local(parameter.detach()).to(average.dtype) for parameter, average in zip(self._live, mean, strict=True)
        ]
        torch._foreach_lerp_(mean, live, 1.0 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by parameter name."""
        return dict(zip(self._names, self._average, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores averaged weights."""
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state[name])

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Gives another module of the same kind, whose weights are whole, the averaged weights; a collective."""
        own = dict(module.named_parameters())
        for name, average in zip(self._names, self._average, strict=True):
            own[name].copy_(whole(average))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges live and averaged weights; call it again to undo."""
        for live, average in zip(self._live, self._average, strict=True):
            kept = live.detach().clone()
            live.copy_(average)
            average.copy_(kept)
