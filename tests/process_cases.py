"""The processes that every test of processes runs over, with data, predictions and quadrature for them."""

from typing import Any

import torch
from reed_core.noise import NoiseSource
from reed_core.process import (
    BoundedProcess,
    Corrupted,
    Interpolant,
    Masked,
    Power,
    Product,
    UniformDiscrete,
    Window,
)
from reed_core.state import State, map_state
from torch import Tensor

INTERPOLANTS = [Interpolant(path, prediction) for path in ("linear", "trig") for prediction in ("v", "eps", "x0")]
MASKED = [Masked(4, 5, "elbo"), Masked(4, 4, "flat"), Masked(4, -1)]
UNIFORM = [UniformDiscrete(4), UniformDiscrete(4, "flat", 1e-2, 0.99)]
SINGLE: list[BoundedProcess] = [*INTERPOLANTS, *MASKED, *UNIFORM]
PRODUCTS = [
    Product({"place": Interpolant(), "kind": Masked(4, 4), "bond": UniformDiscrete(4)}),
    Product({"kind": UniformDiscrete(4), "place": Interpolant("trig", "x0")}, {"place": Power(2.0)}, {"kind": 0.3}),
    Product(
        {"place": Interpolant(), "kind": Masked(4, 4)}, {"place": Window(0.0, 0.6), "kind": Window(0.4, 1.0, 1e-3)}
    ),
]
PROCESSES: list[BoundedProcess] = [*SINGLE, *PRODUCTS]
LENGTHS = (5, 1, 3, 4)


def discrete(process: Any) -> bool:
    return isinstance(process, Masked | UniformDiscrete)


def by_field(process: Any) -> Any:
    """The process itself, or a mapping of those of the fields, to go with `map_state`."""
    return dict(process.fields) if isinstance(process, Product) else process


def data_for(process: Any, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[State, State]:
    """A padded batch and its mask. A field named bond is one of pairs."""
    if isinstance(process, Product):
        pairs = {}
        for place, (name, part) in enumerate(process.fields.items()):
            pairs[name] = data_for(part, seed + place, dtype)
            if name == "bond":
                tokens, mask = torch.stack([data_for(part, seed + 7 + i)[0] for i in range(5)], 2), pairs[name][1]
                pairs[name] = tokens, mask[:, :, None] & mask[:, None]
        return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = torch.arange(shape[1])[None] < torch.tensor(LENGTHS)[:, None]
    if discrete(process):
        return torch.randint(process.num_tokens, shape, generator=generator), mask
    return torch.randn(*shape, 3, generator=generator, dtype=dtype), mask


def only(state: State, mask: State, sample: int) -> tuple[State, State]:
    """One sample without its padding, and its mask."""
    length = LENGTHS[sample]

    def cut(tensor: Tensor, exists: Tensor) -> Tensor:
        return tensor[(slice(sample, sample + 1), *[slice(length)] * (exists.ndim - 1))]

    return map_state(cut, state, mask), map_state(cut, mask, mask)


def say(process: Any, x: State, seed: int, dtype: torch.dtype = torch.float64) -> State:
    """A random prediction about x."""
    generator = torch.Generator().manual_seed(seed)

    def draw(part: Any, tensor: Tensor) -> Tensor:
        shape = (*tensor.shape, part.num_tokens) if discrete(part) else tensor.shape
        return torch.randn(shape, generator=generator, dtype=dtype)

    return map_state(draw, by_field(process), x)


def truth(process: Any, corrupted: Corrupted) -> State:
    """The prediction that is sure of x_0."""

    def sure(part: Any, target: Tensor) -> Tensor:
        if not discrete(part):
            return target
        return 50.0 * torch.nn.functional.one_hot(target, part.num_tokens).double()

    return map_state(sure, by_field(process), corrupted.target)


def noise_for(count: int, seed: int = 3) -> NoiseSource:
    return NoiseSource(seed, range(count))


def gauss(low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on an interval."""
    k = torch.arange(1, count, dtype=torch.float64)
    jacobi = torch.diag(k / torch.sqrt(4 * k**2 - 1), 1)
    values, vectors = torch.linalg.eigh(jacobi + jacobi.T)
    return 0.5 * (high - low) * (values + 1) + low, (high - low) * vectors[0] ** 2
