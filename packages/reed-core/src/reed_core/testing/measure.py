"""What the checks share: one way to fail, batches taken apart, and distances between draws.

Two samples of n and m draws are compared by D = max |F_n - F_m| (Kolmogorov-Smirnov), column by column. Under one law
    P(D > d) < 2 exp(-2 d^2 n m / (n + m))
so `critical` is the d at which that is LEVEL over the number of columns.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.noise import NoiseSource
from reed_core.state import State, any_tensor, map_state

LEVEL = 1e-4
COLUMNS = 24


def require(fine: bool, what: str, measured: object, expected: str) -> None:
    """Raises AssertionError with one line unless `fine`."""
    if not fine:
        said = f"{measured:.3g}" if isinstance(measured, float) else str(measured)
        raise AssertionError(f"{what}: measured {said}, expected {expected}")


def tensors(state: State) -> dict[str, Tensor]:
    """The tensors of a state by field; a single tensor has the name ''."""
    return dict(state) if isinstance(state, Mapping) else {"": state}


def exists_like(state: State, mask: State) -> State:
    """A mask of the form of the state: of each field its own, or all the same."""
    if isinstance(state, Mapping) and not isinstance(mask, Mapping):
        return dict.fromkeys(state, mask)
    return mask


def rows(state: State, index: Any) -> State:
    """The samples at an index (a slice, a tensor of numbers) of every field; None stays None."""
    return map_state(lambda value: None if value is None else value[index], state)


def repeat(state: State, sample: int, count: int) -> State:
    """One sample, `count` times."""
    return rows(state, torch.full((count,), sample))


def alone(state: State, mask: State, sample: int) -> State:
    """One sample as a batch of one, cut to its last existing element along every axis of its mask."""

    def cut(value: Tensor | None, exists: Tensor | None) -> Tensor | None:
        if value is None or exists is None:
            return None if value is None else value[sample : sample + 1]
        value = value[sample : sample + 1]
        for axis in range(1, exists.ndim):
            present = exists[sample].movedim(axis - 1, 0).flatten(1).any(1) if exists.ndim > 2 else exists[sample]
            value = value.narrow(axis, 0, int(present.nonzero().max()) + 1)
        return value

    return map_state(cut, state, exists_like(state, mask))


def cut_mask(mask: State, sample: int) -> State:
    """The mask of one sample alone."""
    return None if mask is None else alone(mask, mask, sample)


def spoiled(state: State, mask: State, junk: float) -> State:
    """The state with junk in its padding; whole numbers are exchanged for others of their range instead."""

    def spoil(value: Tensor, exists: Tensor | None) -> Tensor:
        if exists is None:
            return value
        kept = exists.reshape(*exists.shape, *([1] * (value.ndim - exists.ndim)))
        if value.is_floating_point():
            return torch.where(kept, value, junk)
        return torch.where(kept, value, value.max() + value.min() - value)

    return map_state(spoil, state, exists_like(state, mask))


def own(state: State, mask: State) -> Tensor:
    """All existing numbers of a state, flat, float64."""
    parts = []
    masks = exists_like(state, mask)
    for name, value in tensors(state).items():
        exists = masks[name] if isinstance(masks, Mapping) else masks
        parts.append((value if exists is None else value[exists]).flatten().double())
    return torch.cat(parts)


def apart(one: State, other: State, mask: State = None) -> float:
    """Largest difference of existing numbers over 1 + their size; infinite if shapes differ or one is not a number."""
    first, second = tensors(one), tensors(other)
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        return math.inf
    a, b = own(one, mask), own(other, mask)
    if a.numel() == 0:
        return 0.0
    if torch.isnan(a).any() or torch.isnan(b).any():
        return math.inf
    gap = torch.where(a == b, 0.0, (a - b).abs() / (1.0 + b.abs()))
    return float(gap.max())


def require_same(one: State, other: State, what: str, expected: str, mask: State = None, most: float = 1e-4) -> None:
    """Raises unless two states agree where their elements exist."""
    gap = apart(one, other, mask)
    require(gap <= most, what, f"a difference of {gap:.3g}", expected)


def require_form(found: State, like: State, what: str) -> None:
    """Raises unless shapes, dtypes and devices are those of `like`."""

    def form(state: State) -> dict[str, tuple[Any, ...]]:
        return {
            name: (tuple(value.shape), str(value.dtype), value.device.type) for name, value in tensors(state).items()
        }

    measured, expected = form(found), form(like)
    require(measured == expected, f"{what}, shape, dtype and device", _plain(measured), _plain(expected))


def require_per_sample(found: Tensor, count: int, what: str) -> None:
    """Raises unless this is one finite number per sample."""
    require(tuple(found.shape) == (count,), f"{what}, shape", tuple(found.shape), f"one number per sample, ({count},)")
    require(bool(found.isfinite().all()), what, "a number that is not finite", "finite numbers")


def _plain(forms: dict[str, tuple[Any, ...]]) -> str:
    return "; ".join(" ".join(filter(None, [name, *map(str, parts)])) for name, parts in forms.items())


def source(seed: int, state: State) -> NoiseSource:
    """Noise for the samples of a state, at scattered positions."""
    return NoiseSource(seed, [position(sample) for sample in range(any_tensor(state).shape[0])])


def position(sample: int) -> int:
    """The position a sample of a checked batch has."""
    return 7 * sample + 3


def columns(state: State, exists: State, origin: State = None, most: int = COLUMNS) -> Float[Tensor, "n k"]:
    """Draws of one sample as a table of a few of its existing numbers, and of their mean distance to an origin.

    Args:
        state: The draws, [n, ...].
        exists: The mask of the sample, as a batch of one, or None.
        origin: A fixed state, as a batch of one; the distance of a token is 1 where it differs. None leaves it out.
        most: Numbers of each field that are looked at.
    """
    masks = exists_like(state, exists)
    parts = []
    for name, value in tensors(state).items():
        kept = masks[name] if isinstance(masks, Mapping) else masks
        flat = (value if kept is None else value[:, kept[0]]).flatten(1).double()
        parts.append(flat[:, torch.linspace(0, flat.shape[1] - 1, min(most, flat.shape[1])).long()])
        if origin is not None:
            start = tensors(origin)[name]
            away = (flat - (start if kept is None else start[:, kept[0]]).flatten(1)).abs()
            parts.append((away if value.is_floating_point() else away.clamp(max=1)).mean(1, keepdim=True))
    return torch.cat(parts, 1)


def ks(one: Float[Tensor, "n k"], other: Float[Tensor, "m k"]) -> float:
    """The largest Kolmogorov-Smirnov distance over columns."""
    a, b = one.T.contiguous().sort(-1).values, other.T.contiguous().sort(-1).values
    at = torch.cat([a, b], -1)
    first = torch.searchsorted(a, at, right=True).double() / a.shape[1]
    second = torch.searchsorted(b, at, right=True).double() / b.shape[1]
    return float((first - second).abs().max())


def critical(n: int, m: int, width: int) -> float:
    """What the largest of `width` distances exceeds with a chance of LEVEL when both samples have one law."""
    return math.sqrt(0.5 * math.log(2.0 * width / LEVEL) * (n + m) / (n * m))


def require_same_law(one: Tensor, other: Tensor, what: str, expected: str, slack: float = 0.0) -> None:
    """Raises if two tables of draws differ in some column by more than chance and `slack` allow."""
    require(bool(one.isfinite().all() and other.isfinite().all()), what, "numbers that are not finite", expected)
    distance, most = ks(one, other), critical(len(one), len(other), one.shape[1]) + slack
    require(distance <= most, what, f"a Kolmogorov-Smirnov distance of {distance:.3f}", f"{expected}, below {most:.3f}")


def near_share(one: State, other: State, scale: State, near: float, mask: Bool[Tensor, "..."] | Any = None) -> float:
    """Share of numbers of `one` within `near` times the typical |scale - other| of `other`, worst field."""
    shares = []
    masks = exists_like(one, mask)
    for name, value in tensors(one).items():
        kept = masks[name] if isinstance(masks, Mapping) else masks
        a, b, far = (own(tensors(state)[name], kept) for state in (one, other, scale))
        limit = near * float((far - b).abs().median()) if value.is_floating_point() else 0.0
        shares.append(float(((a - b).abs() <= limit).double().mean()))
    return min(shares)
