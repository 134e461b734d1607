"""Batches made ahead: the same values in the same order, errors where they belong, and a thread that ends."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from reed_core.latent import Representation
from reed_core.train.data import Batch
from reed_core.train.prefetch import copied, pinned, prefetched


def numbers(count: int, begun: list[int], fail_at: int = -1) -> Iterator[Callable[[], int]]:
    def make(number: int) -> int:
        begun.append(number)
        if number == fail_at:
            raise ValueError(f"number {number}")
        return number

    for number in range(count):
        yield lambda number=number: make(number)  # type: ignore[misc]


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_values_come_in_order(depth: int) -> None:
    with prefetched(numbers(20, []), depth) as made:
        assert [waited.value for waited in made] == list(range(20))
    assert not ours()


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_comes_after_the_values_before_it(depth: int) -> None:
    with prefetched(numbers(9, [], fail_at=3), depth) as made:
        assert [next(made).value for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="number 3"):
            next(made)
    assert not ours()


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_of_the_plan_is_raised_too(depth: int) -> None:
    def plan() -> Iterator[Callable[[], int]]:
        yield lambda: 1
        raise KeyError("no epoch")

    with prefetched(plan(), depth) as made:
        assert next(made).value == 1
        with pytest.raises(KeyError, match="no epoch"):
            next(made)


def test_no_more_than_depth_is_made_ahead_and_leaving_stops_the_thread() -> None:
    begun: list[int] = []
    with prefetched(numbers(1000, begun), 2) as made:
        assert next(made).value == 0
        for _ in range(200):
            if len(begun) == 3:
                break
            time.sleep(0.01)
        time.sleep(0.05)
        assert begun == [0, 1, 2]
    assert not ours()
    assert len(begun) < 6


def test_an_error_of_the_caller_passes_through() -> None:
    def take() -> None:
        with prefetched(numbers(1000, []), 2) as made:
            next(made)
            raise RuntimeError("of the caller")

    with pytest.raises(RuntimeError, match="of the caller"):
        take()
    assert not ours()


def test_waiting_is_measured() -> None:
    def slow() -> int:
        time.sleep(0.05)
        return 1

    with prefetched([slow], 0) as made:
        assert next(made).seconds >= 0.05
    with prefetched([slow, slow], 2) as made:
        first = next(made).seconds
        time.sleep(0.2)
        assert next(made).seconds < 0.05 <= first + 0.02


@dataclass(frozen=True)
class Condition:
    values: torch.Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> "Condition":
        return Condition(self.values.to(device), self.names)


def of_every_kind() -> Batch:
    return Batch(
        x_0={"a": torch.ones(2, 3), "b": torch.zeros(2, dtype=torch.int64)},
        c=Condition(torch.arange(2), ("x", "y")),
        mask={"a": torch.ones(2, dtype=torch.bool), "b": None},
        z={"z": Representation(torch.ones(2, 4), torch.ones(2, dtype=torch.bool))},
        weight=torch.ones(2),
    )


def test_every_tensor_of_a_batch_is_copied() -> None:
    there = copied(of_every_kind(), "meta")
    assert isinstance(there.z, dict)
    tensors = [there.x_0["a"], there.x_0["b"], there.c.values, there.mask["a"], there.z["z"].z, there.z["z"].mask]
    assert all(tensor.device.type == "meta" for tensor in [*tensors, there.weight])
    assert there.mask["b"] is None
    assert there.c.names == ("x", "y")


def test_a_function_for_latents_stays() -> None:
    def make() -> dict[str, Representation]:
        return {}

    assert copied(Batch(torch.ones(1), z=make), "meta").z is make
    assert copied(Batch(torch.ones(1), c=3), "meta").c == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pages are locked for CUDA")
def test_every_tensor_of_a_batch_is_pinned() -> None:
    here = pinned(of_every_kind())
    assert isinstance(here.z, dict)
    assert here.weight is not None
    tensors = [here.x_0["a"], here.x_0["b"], here.c.values, here.mask["a"], here.z["z"].z, here.z["z"].mask]
    assert all(tensor.is_pinned() for tensor in [*tensors, here.weight])
    assert torch.equal(copied(here, "cuda").x_0["a"].cpu(), torch.ones(2, 3))
