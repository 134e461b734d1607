"""What a network starts from: weights of another run, taken over where name and shape agree, and what that leaves.

Domain-free: a domain adds what its data holds and the weights do not know (elements, residue types, classes).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel
from torch import Tensor, nn

_MOST = 20  # names that a line lists one by one


@dataclass(frozen=True)
class Initial:
    """A module after weights were taken over. All names are of parameters and buffers, in the module's order.

    Attributes:
        taken: Those with given values.
        absent: Those that the weights lack; they keep their random values.
        reshaped: Those that the weights hold in another shape, with both; they keep their random values.
        unused: What the weights hold and the module has not.
    """

    taken: tuple[str, ...]
    absent: tuple[str, ...]
    reshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unused: tuple[str, ...]

    @property
    def random(self) -> tuple[str, ...]:
        """All that were not taken over."""
        return (*self.absent, *self.reshaped)

    def lines(self, source: str, differ: Sequence[str] = (), unknown: Sequence[str] = ()) -> list[str]:
        """What a person should know before training from these weights.

        Args:
            source: Where the weights are from.
            differ: Settings that are others than those the weights were trained with (`settings_that_differ`).
            unknown: What the data holds and the weights do not know.
        """
        total = len(self.taken) + len(self.random)
        shapes = [
            f"{name} ({_shape(there)} there, {_shape(here)} here)" for name, (there, here) in self.reshaped.items()
        ]
        lines = [
            f"weights start from {source}: {len(self.taken)} of {total} tensors are taken over",
            f"reinitialised: {', '.join([*_listed(self.absent), *shapes]) or 'nothing'}",
        ]
        if self.unused:
            lines.append(f"in the weights and not in the network: {', '.join(_listed(self.unused))}")
        if differ:
            lines.append(f"settings that change: {', '.join(differ)}")
        lines.append(f"in the data and unknown to the weights: {', '.join(unknown) or 'nothing'}")
        return lines


def take_over(module: nn.Module, given: Mapping[str, Tensor]) -> Initial:
    """Copies given weights into a module where name and shape agree; the others stay as they are.

    Args:
        module: The module.
        given: Weights by name.
    """
    own = module.state_dict()
    taken = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    module.load_state_dict(taken, strict=False)
    return Initial(
        taken=tuple(name for name in own if name in taken),
        absent=tuple(name for name in own if name not in given),
        reshaped={
            name: (tuple(given[name].shape), tuple(value.shape))
            for name, value in own.items()
            if name in given and name not in taken
        },
        unused=tuple(name for name in given if name not in own),
    )


def settings_that_differ(given: BaseModel, own: BaseModel) -> list[str]:
    """The settings of a network that are others than those of the weights, as "neighbours (24 there, 8 here)".

    Args:
        given: The configuration of the weights.
        own: That of the network.
    """
    there, here = given.model_dump(mode="json"), own.model_dump(mode="json")
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return [f"{name} ({there.get(name)} there, {here.get(name)} here)" for name in names]


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes)) or "scalar"


def _listed(names: Sequence[str]) -> list[str]:
    """The names, or where they are many, the modules that hold them and how many each holds."""
    if len(names) <= _MOST:
        return list(names)
    counts: dict[str, int] = {}
    for name in names:
        module = ".".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".")[0]
        counts[module] = counts.get(module, 0) + 1
    return [f"{module}.* ({count})" for module, count in counts.items()]
