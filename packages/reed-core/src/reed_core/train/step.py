"""One optimisation step: pieces of a batch, mixed precision, clipping, and no step where a gradient is not finite.

    g = sum_p grad(share_p L_p)            over all pieces of all processes (`reed_core.train.parallel`)
    g <- g min(1, clip / |g|)              |g| over all parameters, of all shards
    if |g| is finite: AdamW, then the average of weights; else the step is skipped and counted

Under autocast the network alone computes in low precision. For fp16 the loss is scaled before `backward` and the
gradient after it (`torch.amp.GradScaler`): a step that overflowed is skipped, and the scale halved.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from reed_core.errors import InputError
from reed_core.latent import Representations
from reed_core.noise import NoiseSource, mix_seed
from reed_core.objective import Objective
from reed_core.state import State
from reed_core.train.config import TrainConfig
from reed_core.train.data import Batch
from reed_core.train.ema import Ema
from reed_core.train.meter import Meter, flops_of
from reed_core.train.optimizer import set_rates
from reed_core.train.parallel import Piece, summed, whole, world
from reed_core.train.prefetch import copied

_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Guided(nn.Module):
    """A denoiser and its objective as one module: what DDP, FSDP and torch.compile take hold of.

    Args:
        denoiser: The network.
        objective: The objective.
        precision: "fp32", "bf16" or "fp16".
        compiled: Compile the loss.
    """

    def __init__(self, denoiser: nn.Module, objective: Objective, precision: str, compiled: bool) -> None:
        super().__init__()
        self.denoiser, self.objective = denoiser, objective
        self.low = _LOW.get(precision)
        self._loss = torch.compile(objective.loss) if compiled else objective.loss

    def forward(self, batch: Batch, noise: NoiseSource, n: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a piece, and what it is made of, per sample, without gradient."""
        question = self.objective.draw(
            batch.x_0, noise, z=batch.z, c=batch.c, mask=batch.mask, weight=batch.weight, n=n
        )
        kind = question.corrupted.t.device.type
        with nullcontext() if self.low is None else torch.autocast(kind, self.low):
            loss = self._loss(self.denoiser, question)
        parts = {"denoising": loss.denoising} | loss.alignment | loss.regularisation
        return loss.total, {name: value.detach() for name, value in parts.items()}

    def gradient(self, batch: Batch, noise: NoiseSource, n: float) -> None:
        """Computes a gradient as a step does, but uncompiled, and drops it."""
        compiled, self._loss = self._loss, self.objective.loss
        try:
            total, _ = self(batch, noise, n)
        finally:
            self._loss = compiled
        torch.autograd.grad(total, [one for one in self.parameters() if one.requires_grad], allow_unused=True)


@dataclass(frozen=True)
class MadePiece:
    """A piece with its data, on the CPU.

    Attributes:
        piece: Which samples.
        batch: Their data.
        noise: Their random streams.
    """

    piece: Piece
    batch: Batch
    noise: NoiseSource


@dataclass(frozen=True)
class Work:
    """What one process does in a step.

    Attributes:
        samples: Samples seen before the step.
        count: Samples of the step's batch, over all processes.
        pieces: This process's part of it.
    """

    samples: int
    count: int
    pieces: Sequence[MadePiece]


@dataclass(frozen=True)
class Taken:
    """What a step was; losses of this process alone.

    Attributes:
        total: This process's part of the loss.
        parts: For each part of the loss, the sum over this process's samples.
        count: Samples of the batch, over all processes.
        rate: The learning rate, before the curriculum scales it.
        finite: Whether the weights moved.
    """

    total: Tensor
    parts: dict[str, Tensor]
    count: int
    rate: float
    finite: bool

    def figures(self) -> dict[str, float]:
        """The loss of the whole batch, and the mean of each part over its samples; a collective."""
        sums = summed(torch.stack([self.total.double(), *(value.double() for value in self.parts.values())]))
        total, *parts = sums.tolist()
        return {"total": total} | {name: part / self.count for name, part in zip(self.parts, parts, strict=True)}


class Stepper:
    """Takes steps.

    Args:
        guided: Denoiser and objective.
        module: What is called: `guided`, or what DDP made of it.
        optimizer: The optimiser of its parameters.
        ema: The average of the denoiser's weights.
        config: How to train.
        device: Where.
    """

    def __init__(
        self,
        guided: Guided,
        module: nn.Module,
        optimizer: torch.optim.AdamW,
        ema: Ema,
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self.guided, self.module, self.optimizer, self.ema = guided, module, optimizer, ema
        self.config, self.device = config, device
        self.parameters = [parameter for parameter in guided.parameters() if parameter.requires_grad]
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.meter = Meter(device, _LOW.get(config.precision, torch.float32))
        self._flops_per_sample: dict[bool, float] = {}

    def take(self, work: Work, step: int) -> Taken:
        """Computes the gradient of a batch and moves the weights, if it is finite.

        Args:
            work: The batch.
            step: The number of this step, from 1.
        """
        n = float(work.samples)
        rate = set_rates(self.optimizer, self.config, self.guided.objective.curriculum, n)
        self.guided.train()
        total, parts = torch.zeros((), device=self.device), dict[str, Tensor]()
        for number, (made, share) in enumerate(zip(work.pieces, self._shares(work), strict=True), 1):
            batch = self._timed(copied(made.batch, self.device))
            torch.manual_seed(mix_seed(self.config.seed, work.samples + made.piece.start))
            factor = share * world()
            with self._reduced(number == len(work.pieces)), self._counted(batch, made.noise, n):
                with self.meter.part("forward"):
                    loss, own = self.module(batch, made.noise, n)
                with self.meter.part("backward"):
                    self.scaler.scale(loss if factor == 1.0 else loss * factor).backward()
            total = total + share * loss.detach()
            for name, value in own.items():
                seen = value.sum(dtype=torch.float64) * made.piece.counts
                parts[name] = parts[name] + seen if name in parts else seen
        with self.meter.part("optimiser"):
            finite = self._move(step)
        self.meter.step(work.count)
        return Taken(total, parts, work.count, rate, finite)

    def _timed(self, batch: Batch) -> Batch:
        """The batch, whose latents are timed where they are made in the step."""
        make = batch.z
        if not callable(make):
            return batch

        def timed() -> Representations:
            with self.meter.part("encode"):
                return make()

        return replace(batch, z=timed)

    def _counted(self, batch: Batch, noise: NoiseSource, n: float) -> AbstractContextManager[None]:
        """Counts the operations of a piece.

        A compiled loss would run uncompiled while it is counted, and round otherwise: one piece of each kind is counted
        beside the step. Shards come together only in the step itself, so with FSDP a compiled loss is not counted.
        """
        kind = self.guided.objective.curriculum.a(n) != 0.0
        if not self.config.compile:
            shapes = tuple(tuple(part.shape) for part in _tensors(batch.x_0))
            return self.meter.counting(kind, shapes)
        if not isinstance(self.module, FSDPModule):
            if kind not in self._flops_per_sample:
                flops = flops_of(lambda: self.guided.gradient(batch, NoiseSource(noise.seed, noise.positions), n))
                self._flops_per_sample[kind] = flops / len(noise)
            self.meter.counts(kind, self._flops_per_sample[kind] * len(noise))
        return nullcontext()

    def _move(self, step: int) -> bool:
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = whole(get_total_norm(gradients))
        clip_grads_with_norm_(self.parameters, self.config.clip, norm)
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimizer.step()
            self.ema.update(step)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return finite

    def _shares(self, work: Work) -> list[float]:
        """What each piece counts for in the loss of the whole batch; a collective when it is cut."""
        if len(work.pieces) == 1 and world() == 1:
            return [1.0]
        weights = [
            0.0 if not made.piece.counts
            else float(len(made.piece.items)) if made.batch.weight is None
            else float(made.batch.weight.double().sum())
            for made in work.pieces
        ]  # fmt: skip
        everything = float(summed(torch.tensor(sum(weights), dtype=torch.float64)))
        return [weight / everything if everything else 0.0 for weight in weights]

    def _reduced(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients are summed over processes once, with the last piece."""
        if isinstance(self.module, DistributedDataParallel) and not last:
            return self.module.no_sync()
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(last)
        return nullcontext()


def check_cuttable(objective: Objective, cut: int) -> None:
    """Refuses to cut a batch whose loss is no mean over samples.

    Args:
        objective: The objective.
        cut: Pieces of a batch, over all processes.

    Raises:
        InputError: If a head or a regulariser looks across the batch (says so by `across_batch`).
    """
    across = [one.name for one in objective.regularisers if getattr(one, "across_batch", False)]
    across += [latent.name for latent in objective.latents if getattr(latent.head, "across_batch", False)]
    if cut > 1 and across:
        raise InputError(
            f"'{across[0]}' compares the samples of a batch with each other, and this run cuts a batch into {cut} "
            "pieces; train it in one process with accumulate=1"
        )


def _tensors(state: State) -> list[Tensor]:
    return list(state.values()) if isinstance(state, Mapping) else [state]
