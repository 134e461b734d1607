"""The peak rate of a device, in floating-point operations per second: what a model's FLOPs are a part of.

For a known GPU it is the published rate of dense bfloat16 matrix products, whatever precision a run uses: NVIDIA's data
sheets of A100, A10, A30, A40, L4, L40, L40S, RTX A6000, H100, H200, GH200, B200, and AMD's of MI250X (one of its two
dies, which is what torch calls a device) and MI300X. Sheets that give the rate with sparsity give twice the dense rate.
For a CPU, and a GPU without an entry, it is the rate of a large square matrix product, measured once.
"""

import time
from functools import cache
from typing import NamedTuple

import torch

# The longest name that is found in the device's own name counts: "H100 PCIe" before "H100".
_PUBLISHED = {
    "A100": 312e12,
    "A800": 312e12,
    "A10": 125e12,
    "A10G": 70e12,
    "A30": 165e12,
    "A40": 149.7e12,
    "RTX A6000": 154.8e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "H100": 989.4e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835.5e12,
    "H800": 989.4e12,
    "H200": 989.4e12,
    "H200 NVL": 835.5e12,
    "GH200": 989.4e12,
    "B200": 2250e12,
    "MI250X": 191.5e12,
    "MI300X": 1307.4e12,
}
_SIDE, _REPEATS = 1024, 4


class Peak(NamedTuple):
    """The most a device does.

    Attributes:
        flops: Floating-point operations per second; a multiplication and an addition are two.
        published: Whether it is the published dense bfloat16 rate, or one measured here.
        source: The same in words.
    """

    flops: float
    published: bool
    source: str


def published_peak(name: str) -> float | None:
    """The published dense bfloat16 rate of a GPU, or None if the table has no entry.

    Args:
        name: As `torch.cuda.get_device_name` gives it, such as "NVIDIA H100 80GB HBM3".
    """
    words = f" {name.replace('-', ' ')} "
    found = [entry for entry in _PUBLISHED if f" {entry} " in words]
    return _PUBLISHED[max(found, key=len)] if found else None


def peak_of(device: torch.device | str, dtype: torch.dtype = torch.float32) -> Peak:
    """The peak of a device; a measured one is measured on the first call of the process.

    Args:
        device: The device.
        dtype: Type of the matrix product, where it has to be measured.
    """
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    known = published_peak(name) if device.type == "cuda" else None
    if known is not None:
        return Peak(known, True, f"{name}: published dense bfloat16 rate")
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    where = f"{name}, {threads} thread{'s' * (threads != 1)}" if threads else name
    flops = _measured(str(device), dtype, threads)
    return Peak(flops, False, f"{where}: measured rate of a {_SIDE} x {_SIDE} {str(dtype)[6:]} matrix product")


@cache
def _measured(device: str, dtype: torch.dtype, threads: int) -> float:
    """The fastest of a few products; `threads` is a part of the key."""
    del threads
    matrix = torch.full((_SIDE, _SIDE), 1e-3, device=device, dtype=dtype)
    seconds = []
    for _ in range(_REPEATS):
        _wait(device)
        since = time.perf_counter()
        torch.mm(matrix, matrix)
        _wait(device)
        seconds.append(time.perf_counter() - since)
    return 2 * _SIDE**3 / min(seconds)


def _wait(device: str) -> None:
    kind = device.partition(":")[0]
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()
