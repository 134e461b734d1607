"""Batches made ahead of the step that needs them, in order, by one background thread.

The order of batches and everything drawn for them are keyed by position (`reed_core.noise`), so a batch is the same
whether it is made ahead or in place, and nothing of what was made ahead has to be saved: a resumed run makes it again.
What a maker does must therefore not read or change global state, such as torch's default generator.

For CUDA a batch is pinned by the thread that makes it (`pinned`), so that its copy to the device does not wait.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from reed_core.train.data import Batch

T = TypeVar("T")


class Waited(NamedTuple, Generic[T]):
    """A value, and how long it was waited for.

    Attributes:
        value: What the maker returned.
        seconds: Seconds the caller waited for it; made in place, the seconds of making it.
    """

    value: T
    seconds: float


@contextmanager
def prefetched(makers: Iterable[Callable[[], T]], depth: int) -> Iterator[Iterator[Waited[T]]]:
    """Calls makers ahead of the use of what they make.

        with prefetched(makers, 2) as made:
            for value, seconds in made:
                ...

    Leaving the block stops the thread after the maker it is in. An exception of a maker, or of the iterable, is raised
    where its value would have come, after the values before it.

    Args:
        makers: Functions without arguments, called in order; the iterable itself is read by the thread too.
        depth: Values held ready, at most; 0 makes each in place, when it is asked for, without a thread.

    Yields:
        An iterator of the values, with the seconds each was waited for.
    """
    if depth < 1:
        yield _in_place(makers)
        return
    free, stop, made = Semaphore(depth), Event(), SimpleQueue[_Made[T]]()

    def work() -> None:
        try:
            for make in makers:
                free.acquire()
                if stop.is_set():
                    return
                made.put(_Made(value=make()))
            made.put(_Made(error=StopIteration()))
        except BaseException as error:  # raised where the value was wanted, whatever it is
            made.put(_Made(error=error))

    thread = Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield _taken(made, free)
    finally:
        stop.set()
        free.release()
        thread.join()


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory, from which a copy to CUDA with `non_blocking=True` does not wait.

    Tensors on a device, and latents that are a function, stay as they are.
    """
    return _mapped(batch, lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor)


def copied(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on a device; the copy of pinned memory to CUDA runs beside the host.

    A condition of a class of its own is moved by its method `to(device)` where it has one; latents that are a function
    stay as they are.
    """
    return _mapped(batch, lambda tensor: tensor.to(device, non_blocking=True), device)


@dataclass(frozen=True)
class _Made(Generic[T]):
    value: T | None = None
    error: BaseException | None = None


def _in_place(makers: Iterable[Callable[[], T]]) -> Iterator[Waited[T]]:
    since = time.perf_counter()
    for make in makers:
        value = make()
        yield Waited(value, time.perf_counter() - since)
        since = time.perf_counter()


def _taken(made: "SimpleQueue[_Made[T]]", free: Semaphore) -> Iterator[Waited[T]]:
    while True:
        since = time.perf_counter()
        one: Any = made.get()
        seconds = time.perf_counter() - since
        if isinstance(one.error, StopIteration):
            return
        if one.error is not None:
            raise one.error
        free.release()
        yield Waited(one.value, seconds)


def _mapped(value: Any, move: Callable[[Tensor], Tensor], device: torch.device | str | None = None) -> Any:
    """Applies `move` to the tensors of nested mappings, tuples, lists and dataclasses."""
    if isinstance(value, Tensor):
        return move(value)
    if isinstance(value, Mapping):
        return {name: _mapped(part, move, device) for name, part in value.items()}
    if not isinstance(value, Batch) and device is not None and hasattr(value, "to"):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
        return replace(value, **{name: _mapped(part, move, device) for name, part in parts.items()})
    if isinstance(value, tuple | list):
        moved = [_mapped(part, move, device) for part in value]
        return type(value)(*moved) if hasattr(value, "_fields") else type(value)(moved)
    return value
