"""Where the time of training goes, and what part of the device's peak is used (MFU).

Over the steps since the last reading, of wall time T with pauses (evaluations, checkpoints) left out:

    T = data + encode + forward + backward + optimiser + other          seconds
    MFU = FLOPs of the steps / (T x peak FLOP/s of the device)

A part counts without the parts inside it. On CUDA a part is the time between two events on its stream, so the host
never waits for the device but once a reading; what is left of T is data as far as the host waited for a batch, else
other. Elsewhere parts are host times.

FLOPs are those of matrix products, convolutions and attention, two for a multiplication and an addition, by the
formulas of `torch.utils.flop_counter`, forward and backward (recomputed activations count). They are counted while a
step runs, once for each signature of shapes and at most `SIGNATURES` times for each kind of step; a step of another
shape is taken to cost the mean of those counted, which is close where batches have one budget. Counting changes neither
results nor random numbers, and makes these steps slower by the time of one Python call per operation. A compiled
function would run uncompiled while it is counted, so a loop that compiles gives `flops_of` a copy instead.
"""

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from reed_core.train.peak import Peak, peak_of

Part = Literal["encode", "forward", "backward", "optimiser"]
PARTS: tuple[Part, ...] = ("encode", "forward", "backward", "optimiser")
SIGNATURES = 8


@dataclass(frozen=True)
class Reading:
    """What a meter saw since its last reading.

    Attributes:
        samples: Samples of the steps.
        seconds: Wall time, pauses left out.
        split: Seconds of "data" (waited for a batch), of each part, and "other".
        flops: Floating-point operations of the steps on this device; None if no step was counted.
        peak: The device's peak; None if no step was counted.
    """

    samples: int
    seconds: float
    split: Mapping[str, float]
    flops: float | None
    peak: Peak | None

    @property
    def samples_per_second(self) -> float:
        """Samples per second of wall time."""
        return self.samples / self.seconds

    @property
    def data_wait_share(self) -> float:
        """The part of the time, 0 to 1, in which a step waited for its batch."""
        return self.split["data"] / self.seconds

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation, 0 to 1, of the peak that `peak.source` names."""
        return None if self.flops is None or self.peak is None else self.flops / self.seconds / self.peak.flops

    def line(self) -> dict[str, float]:
        """The figures for a line of the log; `mfu` is of a published peak, `mfu_of_measured_peak` of a measured one."""
        known = {"samples_per_second": self.samples_per_second, "data_wait_share": self.data_wait_share}
        if self.mfu is None or self.peak is None:
            return known
        return {**known, "mfu" if self.peak.published else "mfu_of_measured_peak": self.mfu}


class Meter:
    """Measures the steps of one process.

    Args:
        device: Where the steps run.
        dtype: The type most matrix products have; it matters where the peak has to be measured.
    """

    def __init__(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self._counted: dict[Hashable, dict[Hashable, int]] = {}
        self._marks: deque[_Mark] = deque()
        self._open: list[Part] = []
        self._peak: Peak | None = None
        self._since: float | None = None
        self._clear()

    def waited(self, seconds: float) -> None:
        """Adds seconds that a step has just waited for its batch."""
        self._begin(seconds)
        self._waited += seconds

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Times a part of a step; a part within another one is taken out of it."""
        self._begin()
        begin = self._stamp()
        outer = self._open[-1] if self._open else None
        self._open.append(name)
        try:
            yield
        finally:
            self._open.pop()
            self._marks.append(_Mark(name, outer, begin, self._stamp()))

    @contextmanager
    def counting(self, kind: Hashable, shapes: Hashable) -> Iterator[None]:
        """Adds the FLOPs of a step, or of a piece of one, counting them if this signature is new.

        Args:
            kind: What sort of step it is, such as the latents that are on.
            shapes: The shapes that its FLOPs depend on.
        """
        counted = self._counted.setdefault(kind, {})
        if shapes not in counted and len(counted) < SIGNATURES:
            with _Counter() as counter:
                yield
            counted[shapes] = counter.flops
        else:
            yield
        self._flops += counted.get(shapes, sum(counted.values()) / len(counted))

    def counts(self, kind: Hashable, flops: float) -> None:
        """Adds FLOPs known otherwise to a step, as those of a compiled one (`flops_of`)."""
        self._counted.setdefault(kind, {})
        self._flops += flops

    def step(self, samples: int) -> None:
        """Ends a step.

        Args:
            samples: Samples it took, over all processes.
        """
        self._samples += samples
        while self._marks and (not isinstance(self._marks[0].end, torch.cuda.Event) or self._marks[0].end.query()):
            self._take(self._marks.popleft())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the block out of the time: an evaluation, a checkpoint."""
        self._synchronise()
        since = time.perf_counter()
        try:
            yield
        finally:
            self._synchronise()
            self._paused += 0.0 if self._since is None else time.perf_counter() - since

    def read(self) -> Reading:
        """What was measured since the last reading; measuring starts again."""
        self._synchronise()
        while self._marks:
            self._take(self._marks.popleft())
        self._begin()
        now = time.perf_counter()
        seconds = max(now - (self._since or now) - self._paused, 1e-9)
        idle = max(0.0, seconds - sum(self._seconds.values()))
        data = min(self._waited, idle)
        if self._flops and self._peak is None:
            self._peak = peak_of(self.device, self.dtype)
        reading = Reading(
            samples=self._samples,
            seconds=seconds,
            split={"data": data, **self._seconds, "other": idle - data},
            flops=self._flops or None,
            peak=self._peak if self._flops else None,
        )
        self._clear()
        self._since = now
        return reading

    def _clear(self) -> None:
        self._samples, self._waited, self._paused, self._flops = 0, 0.0, 0.0, 0.0
        self._seconds: dict[str, float] = {name: 0.0 for name in PARTS}

    def _begin(self, ago: float = 0.0) -> None:
        """The clock starts with the first step, whatever was set up before."""
        if self._since is None:
            self._since = time.perf_counter() - ago

    def _take(self, mark: "_Mark") -> None:
        seconds = mark.seconds()
        self._seconds[mark.name] += seconds
        if mark.outer is not None:
            self._seconds[mark.outer] -= seconds

    def _stamp(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def flops_of(run: Callable[[], object]) -> int:
    """The FLOPs of whatever `run` does, forward and backward; torch's random state stays as it was.

    Args:
        run: Runs uncompiled: a compiled function falls back to its source while it is counted.
    """
    with torch.random.fork_rng(), _Counter() as counter:
        run()
    return counter.flops


class _Mark(NamedTuple):
    """A part that has ended: host times in seconds, or CUDA events."""

    name: Part
    outer: Part | None
    begin: Any
    end: Any

    def seconds(self) -> float:
        if isinstance(self.end, torch.cuda.Event):
            return self.begin.elapsed_time(self.end) / 1000
        return self.end - self.begin


class _Counter(TorchDispatchMode):
    """Adds up the FLOPs of the operations that torch has a formula for, and runs every one as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out
