"""Several processes that train one model: what torchrun's environment says, and the cut of a global batch into pieces.

A step's batch is cut into world x accumulate contiguous pieces; process r has pieces r k .. r k + k - 1 of k. A piece
counts with its share of the whole batch, and processes sum, so that nothing depends on the cut but rounding:

    L = sum_i w_i l_i / sum_i w_i = sum_p share_p L_p,    share_p = W_p / sum_q W_q,    W_p = sum of w_i over piece p

(w_i = 1 where a batch has no weights). DDP and FSDP2 average gradients over processes, so losses are multiplied by the
number of processes first. A process whose piece is empty computes a stand-in, the batch's first sample with share 0: it
takes part in every collective and adds zeros.
"""

import atexit
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from reed_core.errors import InputError

Parallel = Literal["ddp", "fsdp"]
Value = TypeVar("Value")

_FAREWELL = 0.3  # seconds


def start(device: torch.device | str) -> torch.device:
    """Joins the process group that torchrun's environment describes; without one, and the second time, does nothing.

    Args:
        device: Where to compute: "cuda" becomes this process's own GPU.

    Returns:
        The device of this process.

    Raises:
        InputError: If the device cannot be shared between processes, or there are more processes than GPUs.
    """
    device = torch.device(device)
    if not all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")):
        return device
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"processes cannot share the device {device.type}; use --device cpu or cuda, or one process")
    if device.type == "cuda":
        place = int(os.environ.get("LOCAL_RANK", "0"))
        if place >= torch.cuda.device_count():
            raise InputError(
                f"process {place} of this machine has no GPU, there are {torch.cuda.device_count()}; start fewer"
            )
        device = torch.device("cuda", place)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(stop)
    return device


def stop() -> None:
    """Leaves the process group, if there is one. Call it before Python ends; after `start` that is done at exit.

    DTensor's caches keep the group's threads alive past `destroy_process_group`. A thread that drops its last tensors
    needs Python for it, and ends the process with SIGABRT when Python is ending already: hence the wait.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(_FAREWELL)


def rank() -> int:
    """The number of this process, from 0; known from torchrun's environment before `start`."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def world() -> int:
    """The number of processes; known from torchrun's environment before `start`."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes; the tensor itself is not changed."""
    if world() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values


def agreed(value: Value) -> Value:
    """The main process's value, in every process."""
    if world() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def whole(value: Tensor) -> Tensor:
    """All of a tensor that may be sharded; a collective if it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def local(value: Tensor) -> Tensor:
    """This process's part of a tensor that may be sharded, sharing its memory."""
    return value.to_local() if isinstance(value, DTensor) else value


@dataclass(frozen=True)
class Piece:
    """Part of the batch of a step.

    Attributes:
        start: Place of its first sample in the batch.
        items: Its items.
        counts: False for the stand-in of an empty piece.
    """

    start: int
    items: tuple[int, ...]
    counts: bool = True


def pieces(items: Sequence[int], accumulate: int = 1, processes: int = 1, number: int = 0) -> tuple[Piece, ...]:
    """The pieces of one process.

    Args:
        items: The batch of all processes, at least one item.
        accumulate: Pieces for each process.
        processes: Number of processes.
        number: Which of them.

    Returns:
        Pieces of equal size, but for one sample; of one process those that are not empty, of several always
        `accumulate`, for all must take part in the same collectives.
    """
    count = processes * accumulate
    bounds = [len(items) * edge // count for edge in range(count + 1)]
    own = []
    for place in range(number * accumulate, (number + 1) * accumulate):
        first, last = bounds[place], bounds[place + 1]
        if first < last:
            own.append(Piece(first, tuple(items[first:last])))
        elif processes > 1:
            own.append(Piece(0, tuple(items[:1]), counts=False))
    return tuple(own)


def spread(module: nn.Module, kind: Parallel, units: Sequence[nn.Module] = ()) -> nn.Module:
    """Makes a module train on all processes, starting everywhere from the weights of the main one.

    Args:
        module: What is called in a step.
        kind: "ddp" (a copy of the weights on every process) or "fsdp" (fully_shard: weights, gradients and optimiser
            state in shards).
        units: For FSDP: modules that are gathered and reduced by themselves, inner ones first; the rest of `module` is
            one more. A unit is called, or by its method `energy`; one that a step does not call costs nothing.

    Returns:
        The module to call: with FSDP the same one, whose parameters are now shards.
    """
    device = next(module.parameters()).device
    for tensor in [*module.parameters(), *module.buffers()]:
        dist.broadcast(tensor.detach(), src=0)
    if kind == "ddp":
        # A step may leave parameters out (latents that are off): they keep no gradient, as in one process.
        return DistributedDataParallel(_Shared(module), find_unused_parameters=True)
    mesh = init_device_mesh(device.type, (world(),))
    for unit in (*units, module):
        fully_shard(unit, mesh=mesh)
        if hasattr(unit, "energy"):
            register_fsdp_forward_method(unit, "energy")
    return module


class _Shared(nn.Module):
    """A module beside a parameter that no step uses: where DDP looks for such and finds none, it warns every user."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.idle = nn.Parameter(next(module.parameters()).new_zeros(()))

    def forward(self, *arguments: Any) -> Any:
        return self.module(*arguments)


def blocks(module: nn.Module) -> list[nn.Module]:
    """The modules in the outermost ModuleLists that have parameters and can be called."""
    found: list[nn.Module] = []
    for child in module.children():
        if not isinstance(child, nn.ModuleList):
            found += blocks(child)
            continue
        for block in child:
            if isinstance(block, (nn.ModuleList, nn.ModuleDict)):
                found += blocks(block)
            elif any(True for _ in block.parameters()):
                found.append(block)
    return found


def called_alone(blocks: Sequence[nn.Module], run: Callable[[], object]) -> list[nn.Module]:
    """Modules with parameters, inside the blocks, that are called while their block is not: they need be units too.

    Args:
        blocks: None of them within another.
        run: Calls everything that a step does.
    """
    inside = dict.fromkeys(blocks, 0)
    found: list[nn.Module] = []
    hooks: list[Any] = []
    for block in blocks:

        def enter(module: nn.Module, inputs: Any, block: nn.Module = block) -> None:
            if module is not block and not inside[block] and module not in found:
                found.append(module)
            inside[block] += 1

        def leave(module: nn.Module, inputs: Any, output: Any, block: nn.Module = block) -> None:
            inside[block] -= 1

        for part in block.modules():
            if any(True for _ in part.parameters()):
                hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found
