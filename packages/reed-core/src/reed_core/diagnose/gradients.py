"""Do alignment and denoising pull the same way? Norm, cosine and share of their gradients, per block.

    g_d = grad of b(n) E[l_denoise],    g_l = grad of a(n) lambda_l E[alpha_l energy_l],    w.r.t. a block's parameters
    cosine = <g_d, g_l> / (|g_d| |g_l|)        share = |g_l| / (|g_d| + |g_l|)

A block above a latent's tap is not reached: its alignment gradient is zero, exactly. HASTE (arXiv 2505.16792) sees the
cosine fall from positive to negative along a run, and stops aligning there. The cosine of one batch is small because
gradients of batches are noisy, so beside its mean stands the cosine of the gradients summed over all batches.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reed_core.diagnose.quiet import watched
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.state import batch_size
from reed_core.train.data import Batch

Gradients = list[Tensor | None]


@dataclass(frozen=True)
class GradientStatistics:
    """Means over batches, and standard deviations over batches (`_spread`); NaN where a direction has no meaning.

    Attributes:
        denoising: |g_d|.
        alignment: |g_l|.
        cosine: Cosine of g_d and g_l in a batch.
        share: |g_l| / (|g_d| + |g_l|).
        summed_cosine: Cosine of the two gradients summed over the batches.
        denoising_spread: Standard deviation of |g_d|.
        alignment_spread: Standard deviation of |g_l|.
        cosine_spread: Standard deviation of the cosine.
        share_spread: Standard deviation of the share.
    """

    denoising: Float[Tensor, "*rows"]
    alignment: Float[Tensor, "*rows"]
    cosine: Float[Tensor, "*rows"]
    share: Float[Tensor, "*rows"]
    summed_cosine: Float[Tensor, "*rows"]
    denoising_spread: Float[Tensor, "*rows"]
    alignment_spread: Float[Tensor, "*rows"]
    cosine_spread: Float[Tensor, "*rows"]
    share_spread: Float[Tensor, "*rows"]


@dataclass(frozen=True)
class GradientTable:
    """Gradients of L latents in K blocks.

    Attributes:
        latents: Names, L of them.
        blocks: Module paths, K of them.
        at: Statistics of each latent in each block, [L, K].
        reached: Statistics over all parameters of the denoiser that a latent's gradient reaches, [L].
        batches: Number of batches.
    """

    latents: tuple[str, ...]
    blocks: tuple[str, ...]
    at: GradientStatistics
    reached: GradientStatistics
    batches: int


def gradient_table(
    objective: Objective,
    denoiser: nn.Module,
    blocks: Sequence[str],
    batches: Iterable[Batch],
    seed: int = 0,
    n: float = 0.0,
) -> GradientTable:
    """Compares the gradients of denoising and of each latent's alignment, block by block.

    Parameters, their `.grad`, torch's random state and the modules' modes are as before afterwards. Dropout is off.

    Args:
        objective: The objective with its latents; projectors do not count as parameters of a block.
        denoiser: The network.
        blocks: Module paths; the parameters of a block are all those below it that require a gradient.
        batches: Training batches, two or more for a spread.
        seed: Seed of times and corruption.
        n: Samples seen so far, for the curriculum.

    Raises:
        InputError: If a block does not exist or has no parameters, or there are no batches or latents.
    """
    network = getattr(denoiser, "_orig_mod", denoiser)
    modules = dict(network.named_modules())
    unknown = [path for path in blocks if path not in modules]
    if unknown:
        raise InputError(f"no submodule {', '.join(unknown)} in {type(network).__name__}; see named_modules()")
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    index = {parameter: place for place, parameter in enumerate(parameters)}
    members = [[index[p] for p in modules[path].parameters() if p in index] for path in blocks]
    empty = [path for path, places in zip(blocks, members, strict=True) if not places]
    if empty or not objective.latents:
        what = f"block {', '.join(empty)} has no trained parameters" if empty else "the objective has no latents"
        raise InputError(f"{what}; there is no gradient to compare")
    names = [latent.name for latent in objective.latents]
    measured: list[Tensor] = []
    sums: dict[str, Gradients] = {}
    first = 0
    with watched(denoiser, objective):
        for batch in batches:
            size = batch_size(batch.x_0)
            noise = NoiseSource(seed, range(first, first + size))
            first += size
            parts = _parts(objective, denoiser, parameters, batch, noise, n)
            sums = {key: _add(sums.get(key), part) for key, part in parts.items()}
            measured.append(_figures(parts, names, members))
    if not measured:
        raise InputError("no batches; give one or more")
    total = _figures(sums, names, members)[..., 2]
    stacked = torch.stack(measured)
    mean, spread = stacked.mean(0), stacked.std(0, correction=1 if len(stacked) > 1 else 0)

    def statistics(column: slice | int) -> GradientStatistics:
        denoising, alignment, cosine, share = mean[:, column].unbind(-1)
        return GradientStatistics(denoising, alignment, cosine, share, total[:, column], *spread[:, column].unbind(-1))

    return GradientTable(
        tuple(names), tuple(blocks), statistics(slice(0, len(blocks))), statistics(len(blocks)), len(measured)
    )


def _parts(
    objective: Objective,
    denoiser: nn.Module,
    parameters: list[nn.Parameter],
    batch: Batch,
    noise: NoiseSource,
    n: float,
) -> dict[str, Gradients]:
    """The gradient of every part of the loss; "" is denoising. The graph of one forward pass serves them all."""
    with torch.enable_grad():
        loss = objective(denoiser, batch.x_0, noise, z=batch.z, c=batch.c, mask=batch.mask, weight=batch.weight, n=n)
        parts = {"": objective.curriculum.b(n) * _mean(loss.denoising, batch.weight)}
        for latent in objective.latents:
            if latent.name in loss.alignment:
                scale = objective.curriculum.a(n) * latent.weight
                parts[latent.name] = scale * _mean(loss.alignment[latent.name], batch.weight)
    found: dict[str, Gradients] = {}
    for place, (name, part) in enumerate(parts.items()):
        if part.requires_grad:
            keep = place < len(parts) - 1
            found[name] = list(torch.autograd.grad(part, parameters, retain_graph=keep, allow_unused=True))
        else:
            found[name] = [None] * len(parameters)
    return found


def _figures(parts: dict[str, Gradients], names: list[str], members: list[list[int]]) -> Float[Tensor, "L K 4"]:
    """|g_d|, |g_l|, cosine, share of each latent in each block; the last column is all that the latent reaches."""
    denoising = parts[""]
    nothing: Gradients = [None] * len(denoising)
    table = []
    for name in names:
        alignment = parts.get(name, nothing)
        reached = [place for place, gradient in enumerate(alignment) if gradient is not None]
        table.append(torch.stack([_compare(denoising, alignment, places) for places in [*members, reached]]))
    return torch.stack(table)


def _compare(first: Gradients, second: Gradients, places: list[int]) -> Float[Tensor, "4"]:
    squares = torch.zeros(3, dtype=torch.float64)
    for place in places:
        d, a = first[place], second[place]
        squares[0] += 0.0 if d is None else d.double().square().sum().cpu()
        squares[1] += 0.0 if a is None else a.double().square().sum().cpu()
        squares[2] += 0.0 if d is None or a is None else (d.double() * a.double()).sum().cpu()
    d_norm, a_norm = squares[0].sqrt(), squares[1].sqrt()
    return torch.stack([d_norm, a_norm, squares[2] / (d_norm * a_norm), a_norm / (d_norm + a_norm)])


def _add(total: Gradients | None, part: Gradients) -> Gradients:
    if total is None:
        return part
    return [b if a is None else a if b is None else a + b for a, b in zip(total, part, strict=True)]


def _mean(values: Float[Tensor, "b"], weight: Tensor | None) -> Float[Tensor, ""]:
    if weight is None:
        return values.mean()
    weight = weight.to(values)
    return (values * weight).sum() / weight.sum().clamp(min=torch.finfo(values.dtype).tiny)
