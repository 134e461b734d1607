"""`check_latent`: is a head the likelihood that it says it is?

With E(h, z) the energy and p(z | h) = exp(-E - log_normaliser), which has to integrate to 1 over z, draws of z satisfy
    E_p[dE/dh] = 0,      E_p[(dE/dh_i)^2] = E_p[d^2 E / dh_i^2]            (Bartlett's identities)
as long as log_normaliser does not depend on h. Both fail when `sample` draws from another law than `energy` scores.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.generator import Flow
from reed_core.head import Head
from reed_core.latent import Latent
from reed_core.noise import NoiseSource
from reed_core.testing.measure import require, require_same

SIGMAS = 5.0
STEP = 1e-4


def check_latent(
    latent: Latent | Head,
    dim: int | None = None,
    *,
    dims: Sequence[int] = (1, 2, 3),
    count: int = 4000,
    seed: int = 0,
) -> None:
    """Checks the head of a latent: a closed-form likelihood of vectors, unit vectors or classes.

    A `Flow` has no energy of z alone and is refused: its bound is checked by `Readout.nats` on data.

    Args:
        latent: A latent, or a head.
        dim: Width of z; that of the latent unless given.
        dims: Small widths at which normalisation is integrated numerically (vectors: 1 and 2, unit vectors: 1 to 3).
        count: Draws of the statistical checks.
        seed: Of all random numbers.

    Raises:
        AssertionError: With one line, if something is wrong.
    """
    head = latent.head if isinstance(latent, Latent) else latent
    width = dim if dim is not None else latent.dim if isinstance(latent, Latent) else 3
    if isinstance(head, Flow):
        raise AssertionError("check_latent: measured a Flow head, expected one with an energy in closed form")
    _check_shapes(head, width, seed)
    _check_batch(head, width, seed)
    _check_slope(head, width, seed)
    for small in dims:
        _check_normalisation(head, small, seed)
    for small in {width, *dims}:
        _check_draws(head, min(small, 16), count, seed)


def _predicted(shape: Sequence[int], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)).to(dtype)


def _check_shapes(head: Head, dim: int, seed: int) -> None:
    for lead in ((4,), (4, 3), (4, 3, 2)):
        predicted, noise = _predicted((*lead, dim), seed), NoiseSource(seed, range(4))
        z = head.sample(predicted, noise)
        wanted = lead if not z.is_floating_point() else (*lead, dim)
        require(tuple(z.shape) == wanted, f"sample of width {dim}, shape", tuple(z.shape), str(wanted))
        energy = head.energy(predicted, z)
        require(tuple(energy.shape) == lead, "energy, shape", tuple(energy.shape), f"{lead}: one number per z")
        require(bool(energy.isfinite().all()), "energy", "a number that is not finite", "finite numbers")
        best = head.mode(predicted)
        require(
            best.shape == z.shape and best.dtype.is_floating_point == z.dtype.is_floating_point,
            "mode, shape and kind",
            (tuple(best.shape), str(best.dtype)),
            f"those of a draw, {tuple(z.shape)}",
        )
        gain = float((head.energy(predicted, best) - energy).max())
        require(gain <= 1e-4, "energy of the mode", f"{gain:.3g} above that of a draw", "the least of all z")
    half = head.energy(predicted.bfloat16(), z)
    require(half.dtype.itemsize >= 4, "energy of a bfloat16 prediction", str(half.dtype), "float32 or wider")
    constant = head.log_normaliser(dim)
    require(isinstance(constant, float) and math.isfinite(constant), "log_normaliser", constant, "a finite float")


def _check_batch(head: Head, dim: int, seed: int) -> None:
    predicted, positions = _predicted((5, 3, dim), seed), [40, 3, 17, 4, 8]
    z = head.sample(predicted, NoiseSource(seed, positions))
    energy = head.energy(predicted, z)
    for sample, place in enumerate(positions):
        one = slice(sample, sample + 1)
        found = head.sample(predicted[one], NoiseSource(seed, [place]))
        require_same(found, z[one], f"sample, number {sample} alone and in a batch", "one draw: its own stream")
        found = head.energy(predicted[one], z[one])
        require_same(found, energy[one], f"energy, number {sample} alone and in a batch", "no difference")
    if dim > 1:  # one class, or one of two directions, may well be the same again
        other = head.sample(predicted, NoiseSource(seed + 1, positions))
        require(not torch.equal(other, z), "sample with another seed", "the same z", "other draws")


def _slope(head: Head, predicted: Tensor, z: Tensor) -> Tensor:
    at = predicted.detach().requires_grad_()
    energy = head.energy(at, z)
    require(energy.requires_grad, "energy, its gradient", "none", "an energy differentiable in the prediction")
    return torch.autograd.grad(energy.sum(), at)[0]


def _check_slope(head: Head, dim: int, seed: int) -> None:
    predicted = _predicted((6, dim), seed, torch.float64)
    z = head.sample(predicted, NoiseSource(seed, range(6)))
    slope = _slope(head, predicted, z)
    for axis in range(min(dim, 8)):
        shift = STEP * torch.eye(dim, dtype=torch.float64)[axis]
        ahead, behind = head.energy(predicted + shift, z), head.energy(predicted - shift, z)
        title = f"gradient of energy along axis {axis}"
        require_same(slope[:, axis], (ahead - behind) / (2 * STEP), title, "that of finite differences", most=1e-3)


def _check_normalisation(head: Head, dim: int, seed: int) -> None:
    predicted = _predicted((1, dim), seed + dim, torch.float64)
    z = head.sample(predicted.expand(500, dim), NoiseSource(seed, range(500)))
    grid = _grid(z, dim)
    if grid is None:
        return
    points, volume = grid
    log_p = -head.energy(predicted.expand(len(points), dim), points) - head.log_normaliser(dim)
    total = float(log_p.double().exp().sum() * volume)
    require(abs(total - 1.0) < 0.01, f"integral of exp(-energy - log_normaliser), width {dim}", total, "1")


def _grid(z: Tensor, dim: int) -> tuple[Tensor, float] | None:
    """Points that fill the space of z evenly, and the volume of each; None where there would be too many."""
    if not z.is_floating_point():
        return torch.arange(dim), 1.0
    if bool(((z.norm(dim=-1) - 1.0).abs() < 1e-3).all()):
        if dim == 1:
            return torch.tensor([[1.0], [-1.0]], dtype=torch.float64), 1.0
        angle = torch.arange(4096, dtype=torch.float64) * (2 * math.pi / 4096)
        if dim == 2:
            return torch.stack([angle.cos(), angle.sin()], -1), 2 * math.pi / 4096
        if dim == 3:
            height = (torch.arange(600, dtype=torch.float64) + 0.5) / 300 - 1
            high, around = torch.meshgrid(height, angle[::16], indexing="ij")
            flat = (1 - high.square()).sqrt()
            points = torch.stack([flat * around.cos(), flat * around.sin(), high], -1).flatten(0, 1)
            return points, 4 * math.pi / len(points)
        return None
    if dim > 2:
        return None
    wide = z.double()
    lines = [
        torch.linspace(float(axis.mean() - 12 * axis.std()), float(axis.mean() + 12 * axis.std()), 401).double()
        for axis in wide.unbind(-1)
    ]
    volume = math.prod(float(line[1] - line[0]) for line in lines)
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).flatten(0, -2), volume


def _check_draws(head: Head, dim: int, count: int, seed: int) -> None:
    predicted = _predicted((1, dim), seed + 10 + dim, torch.float64).expand(count, dim)
    z = head.sample(predicted, NoiseSource(seed, range(count)))
    slope = _slope(head, predicted, z)
    _zero_mean(slope, f"mean over draws of d energy / d prediction, width {dim}")
    bend = _second(lambda at: _slope(head, at, z), predicted)
    _zero_mean(slope.square() - bend, f"mean over draws of (d energy / dh)^2 - d^2 energy / dh^2, width {dim}")


def _second(slope: Callable[[Tensor], Tensor], at: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Diagonal of the second derivative, by differences of the first."""
    parts = []
    for axis in range(at.shape[1]):
        shift = STEP * torch.eye(at.shape[1], dtype=at.dtype)[axis]
        parts.append((slope(at + shift) - slope(at - shift))[:, axis] / (2 * STEP))
    return torch.stack(parts, 1)


def _zero_mean(values: Float[Tensor, "n d"], what: str) -> None:
    mean = values.double().mean(0)
    error = values.double().std(0) / math.sqrt(len(values)) + 1e-6
    far = float((mean / error).abs().max())
    require(far < SIGMAS, what, f"{far:.1f} standard errors from 0", "0: sample draws from what energy scores")
