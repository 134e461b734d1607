"""`--device` and `--threads`."""

from collections.abc import Iterator

import pytest
import torch
from reed_core.device import use_device
from reed_core.errors import InputError


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_auto_is_a_device_that_works() -> None:
    name = use_device("auto")
    assert torch.ones(2, device=name).sum().item() == 2
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert name == best


def test_the_cpu_is_always_there() -> None:
    assert use_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["", "gpu", "meta", "cpux", "CPU", "cuda:x", "cuda:99", "mps:7", "xla", "auto:0"])
def test_a_device_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"--device {name} ") as raised:
        use_device(name)
    assert "\n" not in str(raised.value)
    assert "cpu" in str(raised.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_cuda_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"--device cuda cannot be used here .*try --device cpu"):
        use_device("cuda")


def test_threads_are_set_or_left(threads: int) -> None:
    use_device("cpu")
    assert torch.get_num_threads() == threads
    use_device("cpu", 0)
    assert torch.get_num_threads() == threads
    use_device("cpu", 1)
    assert torch.get_num_threads() == 1
    use_device("auto", 2)
    assert torch.get_num_threads() == 2


def test_a_negative_number_of_threads_is_refused(threads: int) -> None:
    with pytest.raises(InputError, match="--threads is -1"):
        use_device("cpu", -1)
    assert torch.get_num_threads() == threads
