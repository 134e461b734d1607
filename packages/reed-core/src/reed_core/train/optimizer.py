"""The optimiser: fused AdamW, its groups, and how the curriculum may scale their learning rates (THEORY section 5).

Under Adam a loss that is scaled by b(n) moves weights as far as one that is not, where no other loss reaches them: the
layers above the aligned depth hear the denoising loss alone, so their gradient is normalised back to size 1. With
`Curriculum(scope="learning_rate")` the learning rate of a parameter is scaled too, by what reaches it (`Reached`):

    denoising alone (above the deepest tap)    b(n)
    alignment alone (readouts)                 a(n)
    both (up to the deepest tap)               max(a(n), b(n))

What reaches a parameter is read from the autograd graph of one batch, so it holds for any network and any tap.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reed_core.curriculum import Curriculum, Reached
from reed_core.noise import NoiseSource
from reed_core.objective import Loss, Objective
from reed_core.train.config import TrainConfig
from reed_core.train.data import Batch

_STATE = ("step", "exp_avg", "exp_avg_sq")


def make_optimizer(
    named: Mapping[str, nn.Parameter], config: TrainConfig, reached: Mapping[str, Reached] | None = None
) -> torch.optim.AdamW:
    """AdamW over matrices, with weight decay, and vectors, without; one pair of groups for each way of being reached.

    Its state exists from the start, of zeros, so that a checkpoint holds the same tensors whatever the curriculum has
    switched on so far; a parameter without a gradient is left alone all the same.

    Args:
        named: The parameters.
        config: Rates and constants.
        reached: What reaches each parameter; None makes one pair of groups.
    """
    groups: list[dict[str, Any]] = []
    for kind in ("both", "denoising", "alignment"):
        some = [parameter for name, parameter in named.items() if (reached or {}).get(name, "both") == kind]
        matrices = [parameter for parameter in some if parameter.ndim >= 2]
        vectors = [parameter for parameter in some if parameter.ndim < 2]
        for params, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if params:
                groups.append({"params": params, "weight_decay": decay, "reached": kind})
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    for parameter in named.values():
        zeros = [torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in _STATE[1:]]
        step = torch.zeros((), dtype=torch.float32, device=parameter.device)
        optimizer.state[parameter] = dict(zip(_STATE, (step, *zeros), strict=True))
    return optimizer


def set_rates(optimizer: torch.optim.AdamW, config: TrainConfig, curriculum: Curriculum, n: float) -> float:
    """Sets the learning rate of every group after n samples; returns that of the configuration, unscaled."""
    rate = config.rate(n)
    for group in optimizer.param_groups:
        group["lr"] = rate * curriculum.rate(n, group["reached"])
    return rate


def optimizer_state(optimizer: torch.optim.AdamW, named: Mapping[str, nn.Parameter]) -> dict[str, dict[str, Tensor]]:
    """The optimiser's own tensors by parameter name: writing to them restores it."""
    return {name: {key: optimizer.state[parameter][key] for key in _STATE} for name, parameter in named.items()}


def what_reaches(denoiser: nn.Module, objective: Objective, batch: Batch, noise: NoiseSource) -> dict[str, Reached]:
    """Which of the two losses reach each parameter, by name ("denoiser....", "objective....").

    Args:
        denoiser: The network, not yet spread over processes.
        objective: The objective.
        batch: Any batch, on the device of the network, with latents.
        noise: For that batch.
    """
    loss = trial(denoiser, objective, batch, noise)
    by_denoising = _leaves([loss.denoising])
    by_alignment = _leaves([*loss.alignment.values(), *loss.regularisation.values()])
    named = {f"denoiser.{name}": value for name, value in denoiser.named_parameters()}
    named |= {f"objective.{name}": value for name, value in objective.named_parameters()}
    found: dict[str, Reached] = {}
    for name, parameter in named.items():
        one, other = id(parameter) in by_denoising, id(parameter) in by_alignment
        found[name] = "both" if one == other else "denoising" if one else "alignment"
    return found


def trial(denoiser: nn.Module, objective: Objective, batch: Batch, noise: NoiseSource) -> Loss:
    """The loss of a batch with alignment on, for its graph alone: nothing of the network changes, buffers included."""
    alignment, buffers = objective.curriculum.alignment, [buffer.clone() for buffer in denoiser.buffers()]
    training = denoiser.training
    with torch.enable_grad():
        question = objective.draw(
            batch.x_0,
            noise,
            z=batch.z,
            c=batch.c,
            mask=batch.mask,
            weight=batch.weight,
            n=alignment.start + alignment.warmup,
        )
        loss = objective.loss(denoiser.train(), question)
    denoiser.train(training)
    with torch.no_grad():
        for buffer, before in zip(denoiser.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return loss


def _leaves(values: Iterable[Tensor]) -> set[int]:
    """Identities of the parameters that a gradient of these values would reach."""
    nodes: list[Any] = [value.grad_fn for value in values]
    seen: set[Any] = set()
    leaves: set[int] = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        following: Sequence[tuple[Any, int]] = node.next_functions
        nodes += [function for function, _ in following]
    return leaves
