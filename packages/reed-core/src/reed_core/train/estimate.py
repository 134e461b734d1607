"""What a run will cost, measured before anything is written: disk, memory, hours, and the batch of a step.

A few steps of a throw-away copy are timed, on batches spread over an epoch and at moments spread over the run, so that
a curriculum that switches the alignment off counts with its share. With u the domain's measure of work (residues,
atom pairs, pixels; else samples) and B the batches of an epoch:

    hours = (sum of timed seconds / sum of u over timed batches) x mean of u over B x number of steps / 3600

The largest batch of the epoch comes first, untimed: it warms up and shows the peak of memory. Evaluation, checkpoints
and waiting for a slow disk are not in the hours. Nothing is written, and no generator moves.
"""

import copy
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.train import parallel
from reed_core.train.checkpoint import KEEP
from reed_core.train.config import TrainConfig
from reed_core.train.data import DataSource
from reed_core.train.ema import Ema
from reed_core.train.optimizer import make_optimizer
from reed_core.train.step import Guided, MadePiece, Stepper, Work

STEPS = 8
_LOG_LINE = 350  # bytes


@dataclass(frozen=True)
class Measure:
    """What the work of a batch is proportional to.

    Attributes:
        name: In the plural: "residues".
        of: Its amount in a batch of items, padding included.
    """

    name: str
    of: Callable[[Sequence[int]], float]


@dataclass(frozen=True)
class Stored:
    """Something on the disk.

    Attributes:
        name: What.
        bytes: Its size.
        note: What else a person should know: that it is there already, or what writes it.
        written: Whether this command writes it.
    """

    name: str
    bytes: int
    note: str = ""
    written: bool = True


@dataclass(frozen=True)
class Estimate:
    """The cost of a command.

    Attributes:
        unit: What samples are, in the plural: "chains".
        samples: Samples that will be worked on.
        steps: Steps, or batches.
        measure: Name of the measure of work; empty if there is none.
        mean_measure: Its mean per step.
        most_measure: Its most per step.
        seconds: Seconds per sample; None if it could not be measured.
        timed: Steps that were timed.
        device: Where.
        memory: Peak of memory, bytes: of the process on a CPU, of the device on a GPU; None if not measured.
        disk: What the disk holds afterwards, or must hold before.
        extra: Bytes needed for a while beyond that.
        notes: Lines for a person.
    """

    unit: str
    samples: int
    steps: int
    measure: str
    mean_measure: float
    most_measure: float
    seconds: float | None
    timed: int
    device: str
    memory: int | None
    disk: tuple[Stored, ...]
    extra: int = 0
    notes: tuple[str, ...] = ()

    @property
    def hours(self) -> float | None:
        """Expected hours on this machine, with one process."""
        return None if self.seconds is None else self.seconds * self.samples / 3600

    @property
    def written(self) -> int:
        """Bytes that the command will leave on the disk."""
        return sum(part.bytes for part in self.disk if part.written)

    def table(self) -> str:
        """A few aligned lines."""
        rows = [("work", f"{self.samples:,} {self.unit} in {self.steps:,} steps")]
        batch = f"{self.samples / max(self.steps, 1):,.1f} {self.unit}"
        if self.measure:
            batch += f", {self.mean_measure:,.0f} {self.measure} (at most {self.most_measure:,.0f})"
        rows.append(("global batch, mean", batch))
        if self.hours is not None and self.seconds is not None:
            rows.append(("speed", f"{self.seconds:.3g} s per sample on {self.device}, {self.timed} steps timed"))
            rows.append(("time", f"{_time(self.hours)}, one process"))
        else:
            rows.append(("time", "not measured"))
        rows.append(("memory at the peak", "not measured" if self.memory is None else size(self.memory)))
        rows.append(
            (
                "disk, to be written",
                size(self.written) + (f", and {size(self.extra)} for a while" if self.extra else ""),
            )
        )
        rows += [(f"  {part.name}", f"{size(part.bytes)}{f', {part.note}' if part.note else ''}") for part in self.disk]
        rows += [("note", note) for note in self.notes]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def size(count: float) -> str:
    """Bytes for a person, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def estimate_training(
    denoiser: nn.Module,
    objective: Objective,
    data: DataSource,
    config: TrainConfig,
    *,
    unit: str = "samples",
    measure: Measure | None = None,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    also: Sequence[Stored] = (),
    notes: Sequence[str] = (),
    steps: int = STEPS,
) -> Estimate:
    """What `Trainer` with the same arguments, and `save_pretrained` after it, will cost.

    Args:
        denoiser: The network; not changed.
        objective: The objective; not changed.
        data: The data.
        config: How to train.
        unit: What samples are.
        measure: What work is proportional to; None takes samples.
        device: Where to train.
        folder: The run, to see whether its disk has room.
        also: What else the disk holds: caches.
        notes: Lines for a person.
        steps: Steps to time.

    Raises:
        InputError: If it was started by torchrun.
    """
    if parallel.world() > 1:
        raise InputError("an estimate is made by one process; start the dry run without torchrun")
    device = torch.device(device)
    plan = data.plan(0)
    work = measure or Measure("", len)
    amounts = torch.tensor([float(work.of(items)) for items in plan], dtype=torch.float64)
    order = [int(amounts.argmax()), *(place * len(plan) // steps for place in range(steps))]
    before = peak(device, reset=True)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        stepper, state = _copy_of(denoiser, objective, config, device)
        seconds = [
            _timed(stepper, data, plan[index], max(0, place - 1) * config.samples // steps, place + 1)
            for place, index in enumerate(order)
        ]
    most = peak(device)
    if most is not None and device.type == "cpu":  # the copy stands beside the network itself
        most -= _bytes(chain(denoiser.state_dict().values(), objective.state_dict().values()))
    elif most is not None and before is not None:
        most -= before
    count = _steps(plan, config.samples)
    made = min(KEEP, max(1, config.samples // config.checkpoint_every))
    timed = amounts[order[1:]].sum()
    per_sample = float(sum(seconds[1:]) / timed * amounts.mean() * count / config.samples)
    weights = _bytes(denoiser.state_dict().values())
    log = _LOG_LINE * (1 + count // config.log_every)
    kept = (
        Stored(f"checkpoints ({made} kept)", made * state),
        Stored("weights", weights),
        Stored("log", log),
    )
    return Estimate(
        unit=unit,
        samples=config.samples,
        steps=count,
        measure=work.name,
        mean_measure=float(amounts.mean()),
        most_measure=float(amounts.max()),
        seconds=per_sample,
        timed=steps,
        device=device_name(device),
        memory=most,
        disk=(*kept, *also),
        extra=state,
        notes=(
            *notes,
            "evaluation and checkpoints come on top of the time",
            *room(folder, state + sum(one.bytes for one in (*kept, *also) if one.written)),
        ),
    )


def state_bytes(denoiser: nn.Module, objective: Objective) -> int:
    """Bytes of a checkpoint: weights, readouts, the optimiser's two averages of both, the average of the weights."""
    trained = [one for one in chain(denoiser.parameters(), objective.parameters()) if one.requires_grad]
    average = sum(4 * max(1, one.element_size() // 4) * one.numel() for one in denoiser.parameters())
    held = _bytes(chain(denoiser.state_dict().values(), objective.state_dict().values()))
    return held + average + 2 * _bytes(trained) + 4 * len(trained)


def _copy_of(
    denoiser: nn.Module, objective: Objective, config: TrainConfig, device: torch.device
) -> tuple[Stepper, int]:
    """A stepper over copies, as `Trainer` makes it for one process, and the size of its state."""
    held = state_bytes(denoiser, objective)
    guided = Guided(
        copy.deepcopy(denoiser).to(device), copy.deepcopy(objective).to(device), config.precision, config.compile
    )
    named = {name: value for name, value in guided.named_parameters() if value.requires_grad}
    optimizer = make_optimizer(named, config)
    return Stepper(guided, guided, optimizer, Ema(guided.denoiser, config.ema), config, device), held


def _timed(stepper: Stepper, data: DataSource, items: Sequence[int], samples: int, step: int) -> float:
    """Seconds of one step, from the data to the moved weights."""
    started = now(stepper.device)
    pieces = []
    for piece in parallel.pieces(items, stepper.config.accumulate):
        noise = NoiseSource(stepper.config.seed, range(samples + piece.start, samples + piece.start + len(piece.items)))
        pieces.append(MadePiece(piece, data.batch(piece.items, noise), noise))
    stepper.take(Work(samples, len(items), pieces), step)
    return now(stepper.device) - started


def _steps(plan: Sequence[Sequence[int]], samples: int) -> int:
    """Steps until so many samples were seen, if every epoch were as long as this one."""
    epochs, left = divmod(samples, sum(map(len, plan)))
    count = epochs * len(plan)
    for items in plan:
        if left <= 0:
            break
        left, count = left - len(items), count + 1
    return count


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def peak(device: torch.device, reset: bool = False) -> int | None:
    """Bytes at the peak: of a GPU since the last reset, of this process since it began; None where that is not told."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.max_memory_allocated(device))
    if device.type != "cpu" or sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) * (1 if sys.platform == "darwin" else 1024)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def _time(hours: float) -> str:
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} seconds"
    return f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"


def room(folder: Path | None, needed: int) -> tuple[str, ...]:
    """A note if the disk that a folder is on, or will be, has too little space."""
    if folder is None:
        return ()
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    return () if free > needed else (f"the disk of {folder} has {size(free)} free: too little",)
