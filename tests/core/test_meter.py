"""The meter: FLOPs against formulas, times that add up, and a run that counting does not change."""

import time

import pytest
import torch
from reed_core.train.meter import PARTS, SIGNATURES, Meter, flops_of
from reed_core.train.peak import peak_of, published_peak
from torch import nn


def gradient(network: nn.Module, meter: Meter | None, rows: int, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    x = torch.randn(rows, 8)
    network.zero_grad()
    if meter is None:
        network(x).square().mean().backward()
    else:
        with meter.counting("plain", rows):
            with meter.part("forward"):
                loss = network(x).square().mean()
            with meter.part("backward"):
                loss.backward()
        meter.step(rows)
    return torch.cat([one.grad.flatten() for one in network.parameters() if one.grad is not None])


def test_flops_are_those_of_the_formulas() -> None:
    linear, x = nn.Linear(16, 32), torch.randn(10, 16)
    product = 2 * 10 * 16 * 32
    assert flops_of(lambda: linear(x)) == product
    assert flops_of(lambda: linear(x).sum().backward()) == 2 * product  # x needs no gradient
    q = torch.randn(2, 3, 7, 4)
    assert flops_of(lambda: nn.functional.scaled_dot_product_attention(q, q, q)) == 2 * (2 * 2 * 3 * 7 * 7 * 4)
    assert flops_of(lambda: nn.functional.conv2d(torch.ones(1, 3, 8, 8), torch.ones(5, 3, 3, 3))) == 2 * 36 * 5 * 27


def test_counting_changes_no_result_and_no_random_number() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    network, meter = nn.Sequential(nn.Unflatten(0, (1, -1)), layer), Meter("cpu")
    for seed in range(2):  # counted, then not
        assert torch.equal(gradient(network, meter, 5, seed), gradient(network, None, 5, seed))
        counted, plain = torch.rand(3), gradient(network, None, 5, seed)
        assert torch.equal(counted, torch.rand(3))
        assert len(plain)
    state = torch.get_rng_state()
    flops_of(lambda: torch.rand(4))
    assert torch.equal(state, torch.get_rng_state())


def test_each_shape_is_counted_once_and_others_cost_the_mean() -> None:
    network, meter = nn.Linear(8, 4), Meter("cpu")
    each = 2 * 2 * 8 * 4
    for rows in (3, 5, 3):
        gradient(network, meter, rows, 0)
    assert meter.read().flops == each * 11
    for rows in range(10, 10 + SIGNATURES):  # two are known; the last two find no place
        gradient(network, meter, rows, 0)
    known = [3, 5, *range(10, 8 + SIGNATURES)]
    mean = sum(known) / len(known)
    assert meter.read().flops == pytest.approx(each * (sum(known[2:]) + 2 * mean))
    with meter.counting("other", 3):
        network(torch.ones(100, 8))
    meter.counts("known", 7.0)
    assert meter.read().flops == 2 * 100 * 8 * 4 + 7


def test_times_add_up_and_a_part_leaves_out_what_is_inside_it() -> None:
    meter = Meter("cpu")
    with meter.paused():
        time.sleep(0.7)  # before the first step nothing is measured
    for _ in range(2):
        time.sleep(0.02)
        meter.waited(0.02)
        with meter.part("forward"):
            with meter.part("encode"):
                time.sleep(0.04)
            time.sleep(0.01)
        with meter.paused():
            time.sleep(0.3)
        with meter.part("optimiser"):
            time.sleep(0.01)
        meter.step(3)
    found = meter.read()
    assert found.samples == 6
    assert set(found.split) == {"data", *PARTS, "other"}
    assert sum(found.split.values()) == pytest.approx(found.seconds)
    assert found.seconds < 0.6
    assert found.split["data"] == pytest.approx(0.04)
    assert found.split["encode"] >= 0.08
    assert 0.02 <= found.split["forward"] < found.split["encode"]
    assert found.split["backward"] == 0.0
    assert found.samples_per_second == pytest.approx(6 / found.seconds)
    assert found.data_wait_share == pytest.approx(0.04 / found.seconds)
    assert found.mfu is None
    assert set(found.line()) == {"samples_per_second", "data_wait_share"}


def test_utilisation_of_a_matrix_product_is_about_one() -> None:
    meter, matrix = Meter("cpu"), torch.ones(1024, 1024)
    peak_of("cpu")
    meter.read()
    for _ in range(4):
        with meter.counting("product", ()), meter.part("forward"):
            torch.mm(matrix, matrix)
        meter.step(1)
    found = meter.read()
    assert found.peak is not None
    assert not found.peak.published
    assert "measured" in found.peak.source
    assert found.mfu is not None
    assert 0.05 < found.mfu < 5.0
    assert found.line()["mfu_of_measured_peak"] == found.mfu
    assert peak_of("cpu") == found.peak


@pytest.mark.parametrize(("name", "tera"), [
    ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989.4),
    ("NVIDIA H200 NVL", 835.5), ("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("NVIDIA A10G", 70), ("NVIDIA A10", 125),
    ("NVIDIA GH200 480GB", 989.4), ("AMD Instinct MI300X", 1307.4), ("Tesla T4", None), ("NVIDIA A1000", None),
])  # fmt: skip
def test_a_device_is_known_by_its_name(name: str, tera: float | None) -> None:
    assert published_peak(name) == (None if tera is None else tera * 1e12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_parts_on_cuda_are_times_of_the_device() -> None:
    meter, matrix = Meter("cuda", torch.bfloat16), torch.ones(8192, 8192, device="cuda", dtype=torch.bfloat16)
    torch.mm(matrix, matrix)
    meter.read()
    for _ in range(20):
        with meter.counting("product", ()), meter.part("forward"):
            for _ in range(5):
                torch.mm(matrix, matrix)
        meter.step(1)
    found = meter.read()
    assert sum(found.split.values()) == pytest.approx(found.seconds, rel=0.02)
    assert found.split["forward"] > 0.8 * found.seconds
    assert found.mfu is not None
    assert 0.3 < found.mfu < 1.0
