"""SiT: published sizes and cost, a slow block, the identity at the start, conditions, gradients, compilation."""

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from reed_core import presets
from reed_core.denoiser import Tap
from reed_core.errors import InputError
from reed_core.inject import AdaLN, Injected
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.testing import check_denoiser
from reed_image.network import SIZES, Condition, SiT, SiTConfig, preset
from reed_image.network.attention import SelfAttention, rope_table
from reed_image.network.block import Block
from torch.utils.flop_counter import FlopCounterMode

SMALL: dict[str, Any] = {"size": 8, "channels": 3, "width": 32, "depth": 3, "heads": 2, "classes": 5}
KINDS: dict[str, dict[str, Any]] = {
    "published": {},
    "all options": {"qk_norm": True, "rope": True, "learn_sigma": True, "text_dim": 6},
    "text alone": {"classes": 0, "text_dim": 6},
    "pixels, no condition": {"classes": 0, "patch": 4},
}


def network(trained: bool = True, dtype: torch.dtype = torch.float64, **changes: Any) -> SiT:
    torch.manual_seed(0)
    net = SiT(SiTConfig(**{**SMALL, **changes}))
    if trained:  # weights that start at 0 would hide what they multiply
        for parameter in net.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
    return net.to(dtype).eval()


def inputs(net: SiT, b: int = 3) -> tuple[torch.Tensor, torch.Tensor, Condition]:
    generator, config = torch.Generator().manual_seed(1), net.config
    dtype = net.patch.weight.dtype
    x = torch.randn(b, config.channels, config.size, config.size, generator=generator, dtype=dtype)
    label = torch.arange(b) % config.classes if config.classes else None
    text = torch.randn(b, 4, config.text_dim, generator=generator, dtype=dtype) if config.text_dim else None
    mask = (torch.arange(4) <= torch.arange(b)[:, None]) if config.text_dim else None
    return x, torch.linspace(0.1, 0.9, b, dtype=dtype), Condition(label, text, mask)


# Published sizes


@pytest.mark.parametrize(("name", "millions", "gmac"), [("S", 33, 6.06), ("B", 130, 23.0), ("L", 458, 80.7)])
def test_published_sizes_and_cost(name: str, millions: int, gmac: float) -> None:
    """SiT's table of sizes; the cost of DiT-S/2, B/2 and L/2 (arXiv 2212.09748, table 4)."""
    parameters, cost = measured(preset(name, 2))
    assert round(parameters / 1e6) == millions
    assert cost == pytest.approx(gmac, abs=0.05)


def test_xl_has_the_published_parameters_to_the_last_one() -> None:
    """675,129,632 in the published file, of which 256 * 1152 are fixed positions; 118.6 GMAC."""
    parameters, cost = measured(preset("XL", 2, learn_sigma=True))
    assert parameters + 256 * 1152 == 675_129_632
    assert measured(preset("XL", 2))[0] == parameters - 1153 * 16
    assert cost == pytest.approx(118.62, abs=0.02)


def test_the_cost_falls_with_the_number_of_patches() -> None:
    """Four times fewer patches: four times fewer products where each patch is worked on, 16 times in attention."""
    (_, fine), (_, coarse) = measured(preset("S", 2)), measured(preset("S", 4))
    attention = 12 * 2 * 256**2 * 384 / 1e9
    modulation = (12 * 6 + 2 + 1) * 384**2 / 1e9
    patches = 2 * 256 * 16 * 384 / 1e9  # the same at any patch: fewer, and longer
    expected = (fine - attention - modulation - patches) / 4 + attention / 16 + modulation + patches
    assert coarse == pytest.approx(expected, rel=0.01)


def measured(config: SiTConfig) -> tuple[int, float]:
    """Parameters, and products of one forward pass in 10^9."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net = SiT(config)
        net(torch.zeros(1, 4, 32, 32), torch.zeros(1), Condition(torch.zeros(1, dtype=torch.long)))
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() / 2e9


def test_sizes_are_checked() -> None:
    assert set(SIZES) == {"S", "B", "L", "XL"}
    for wrong in ({"patch": 3}, {"heads": 5}, {"width": 30, "heads": 2}, {"rope": True, "width": 24, "heads": 12}):
        with pytest.raises(InputError, match="correct the sizes"):
            preset("S", **{"patch": 2, **wrong})
    with pytest.raises(InputError, match="no size 'M'"):
        preset("M")
    with pytest.raises(ValidationError, match="extra"):
        SiTConfig(dropout=0.1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        SiTConfig().width = 8  # type: ignore[misc]


# A slow block


def slow_norm(row: torch.Tensor) -> torch.Tensor:
    mean = sum(row) / len(row)
    return (row - mean) / torch.sqrt(sum((row - mean) ** 2) / len(row) + 1e-6)


def slow_block(block: Block, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """One sample, [n, d], written out from arXiv 2212.09748: figure 3, "DiT block with adaLN-Zero"."""
    n, d = x.shape
    heads = block.attention.heads
    e = d // heads
    modulation = block.modulation.linear.weight @ (c / (1 + torch.exp(-c))) + block.modulation.linear.bias
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (modulation[k * d : (k + 1) * d] for k in range(6))
    rows = [slow_norm(x[i]) * (1 + scale_1) + shift_1 for i in range(n)]
    qkv = [block.attention.qkv.weight @ row + block.attention.qkv.bias for row in rows]
    read = torch.zeros_like(x)
    for i in range(n):
        for h in range(heads):
            q = qkv[i][h * e : (h + 1) * e]
            score = [torch.exp(q @ qkv[j][d + h * e : d + (h + 1) * e] / math.sqrt(e)) for j in range(n)]
            values = [qkv[j][2 * d + h * e : 2 * d + (h + 1) * e] for j in range(n)]
            mixed = sum(one * value for one, value in zip(score, values, strict=True)) / sum(score)
            read[i, h * e : (h + 1) * e] = mixed
    out = torch.zeros_like(x)
    for i in range(n):
        first = x[i] + gate_1 * (block.attention.out.weight @ read[i] + block.attention.out.bias)
        hidden = block.mlp.inner.weight @ (slow_norm(first) * (1 + scale_2) + shift_2) + block.mlp.inner.bias
        gelu = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        out[i] = first + gate_2 * (block.mlp.outer.weight @ gelu + block.mlp.outer.bias)
    return out


@torch.no_grad()
def test_a_block_equals_the_slow_one() -> None:
    block = network().blocks[1]
    x, c = torch.randn(2, 5, 32, dtype=torch.float64), torch.randn(2, 32, dtype=torch.float64)
    slow = torch.stack([slow_block(block, x[k], c[k]) for k in range(2)])
    torch.testing.assert_close(block(x, c), slow, rtol=1e-10, atol=1e-10)


# The start


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_every_block_is_the_identity_at_the_start_and_the_network_says_zero(kind: str) -> None:
    net = network(trained=False, **KINDS[kind])
    x, t, c = inputs(net)
    with Tap(net, ["patch", "blocks.0", "blocks.2"]) as tap:
        said = net(x, t, c)
    torch.testing.assert_close(tap["blocks.0"], tap["patch"] + net.places)
    torch.testing.assert_close(tap["blocks.2"], tap["blocks.0"])
    assert tap["blocks.2"].shape == (3, net.config.tokens, 32)
    assert said.abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(kind: str) -> None:
    net = network(**KINDS[kind])
    x, t, c = inputs(net)
    if c.label is not None:  # every class, and none
        x, t = (torch.cat([value, value]) for value in (x, t))
        part = Condition(torch.tensor([3, 4, -1]), c.text, c.text_mask)
        pairs = zip((c.label, c.text, c.text_mask), (part.label, part.text, part.text_mask), strict=True)
        c = Condition(*(None if one is None else torch.cat([one, other]) for one, other in pairs))
    net(x, t, c).square().sum().backward()
    dead = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.abs().max() > 0]
    assert not dead
    if net.label is not None:
        assert bool((net.label.table.weight.grad.abs().sum(1) > 0).all())


# What it depends on


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_samples_are_answered_alone(kind: str, dtype: torch.dtype) -> None:
    net = network(dtype=dtype, **KINDS[kind])
    x, t, c = inputs(net)
    check_denoiser(net, x, t, c, take=lambda condition, index: condition[index])
    assert net(x.float(), t.float(), c).dtype == torch.float32


@torch.no_grad()
def test_each_patch_says_its_own_pixels() -> None:
    """With a network that copies (no blocks count, the last layer a permutation), x comes out where it went in."""
    net = network(trained=False, width=48, heads=4, patch=4, channels=3)
    net.patch.weight.copy_(torch.eye(48))
    net.places.zero_()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    order = torch.arange(48).reshape(3, 4, 4).permute(1, 2, 0).flatten()  # (row, column, channel) of (channel, ...)
    net.final.linear.weight.copy_(torch.eye(48)[order])
    said = net(x, torch.ones(1, dtype=torch.float64))
    for i in range(2):
        for j in range(2):
            part = x[0, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            expected = (part - part.mean()) / torch.sqrt(part.var(correction=0) + 1e-6)
            torch.testing.assert_close(said[0, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4], expected)


@torch.no_grad()
def test_blocks_do_not_know_the_order_of_patches_but_the_network_does() -> None:
    net = network()
    order = torch.randperm(net.config.tokens, generator=torch.Generator().manual_seed(0))
    h, c = torch.randn(2, net.config.tokens, 32, dtype=torch.float64), torch.randn(2, 32, dtype=torch.float64)
    torch.testing.assert_close(net.blocks[0](h[:, order], c), net.blocks[0](h, c)[:, order])
    x, t, condition = inputs(net)
    assert (net(x.flip(-1), t, condition).flip(-1) - net(x, t, condition)).abs().max() > 1e-3


@torch.no_grad()
def test_positions_tell_rows_and_columns() -> None:
    table = network(width=64).places
    assert table.shape == (16, 64)
    assert len({tuple(row) for row in table.tolist()}) == 16
    column, row = table[:, :32].reshape(4, 4, 32), table[:, 32:].reshape(4, 4, 32)
    assert torch.equal(column[0], column[3])
    assert torch.equal(row[:, 0], row[:, 3])
    assert torch.equal(column[0], row[:, 0])
    torch.testing.assert_close(table.square().sum(1), torch.full((16,), 32.0, dtype=torch.float64))


@torch.no_grad()
def test_rotary_attention_knows_only_differences_of_places() -> None:
    """Shifting what attends and what is attended to by the same number of rows and columns changes nothing."""
    torch.manual_seed(0)
    attention, table = SelfAttention(32, 2, qk_norm=False).double(), rope_table(16, 6).double()
    x = torch.randn(1, 4, 32, dtype=torch.float64)
    grid = torch.arange(36).reshape(6, 6)
    here = grid[[0, 0, 1, 2], [0, 3, 1, 2]]
    moved = grid[[3, 3, 4, 5], [2, 5, 3, 4]]
    swapped = grid[[0, 3, 1, 2], [0, 0, 1, 2]]
    torch.testing.assert_close(attention(x, table[:, here]), attention(x, table[:, moved]))
    assert (attention(x, table[:, here]) - attention(x, table[:, swapped])).abs().max() > 1e-3
    assert (attention(x, table[:, here]) - attention(x)).abs().max() > 1e-3


@torch.no_grad()
def test_time_matters_at_every_time() -> None:
    net = network()
    x, _, c = inputs(net)
    said = [net(x, torch.full((3,), time, dtype=torch.float64), c) for time in (0.0, 0.01, 0.5, 0.99, 1.0)]
    assert all((one - other).abs().max() > 1e-3 for one, other in pairwise(said))


# Conditions


@torch.no_grad()
def test_the_null_condition_is_the_null_class_and_the_null_text() -> None:
    net = network(text_dim=6)
    x, t, c = inputs(net)
    null = net(x, t, None)
    for same in (Condition(), Condition(torch.full((3,), -1)), c.dropped(torch.ones(3, dtype=torch.bool))):
        torch.testing.assert_close(net(x, t, same), null)
    table = net.label.table.weight  # type: ignore[union-attr]
    table[5] = table[2]
    torch.testing.assert_close(net(x, t, None), net(x, t, Condition(torch.full((3,), 2))))


@torch.no_grad()
def test_dropping_takes_the_condition_of_those_samples_alone() -> None:
    net = network(text_dim=6)
    x, t, c = inputs(net)
    full, null = net(x, t, c), net(x, t, None)
    for mask in (c.text_mask, None):
        c = Condition(c.label, c.text, mask)
        full = net(x, t, c)
        some = net(x, t, c.dropped(torch.tensor([True, False, True])))
        torch.testing.assert_close(some[[0, 2]], null[[0, 2]])
        torch.testing.assert_close(some[1], full[1])
    assert (full - null).abs().amax((1, 2, 3)).min() > 1e-3


@torch.no_grad()
def test_masked_text_is_never_read() -> None:
    net = network(text_dim=6)
    x, t, c = inputs(net)
    assert c.text is not None
    assert c.text_mask is not None
    said = net(x, t, c)
    for junk in (9.0, torch.nan):
        spoiled = torch.where(c.text_mask[..., None], c.text, junk)
        torch.testing.assert_close(net(x, t, Condition(c.label, spoiled, c.text_mask)), said)
    short = Condition(c.label[:1], c.text[:1, :1])  # type: ignore[index]
    torch.testing.assert_close(net(x[:1], t[:1], short), said[:1])
    order = torch.tensor([2, 0, 3, 1])
    shuffled = Condition(c.label, c.text[:, order], c.text_mask[:, order])
    torch.testing.assert_close(net(x, t, shuffled), said)  # places are the text encoder's affair
    changed = Condition(c.label, c.text + 1.0 * torch.arange(6), c.text_mask)
    assert (net(x, t, changed) - said).abs().amax((1, 2, 3)).min() > 1e-4


def test_what_the_network_cannot_read_is_refused() -> None:
    net, x, t = network(classes=0), torch.randn(1, 3, 8, 8, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    with pytest.raises(InputError, match="network takes"):
        net(x[:, :2], t)
    with pytest.raises(InputError, match="network takes"):
        net(x[..., :4], t)
    with pytest.raises(InputError, match="without classes"):
        net(x, t, Condition(torch.zeros(1, dtype=torch.long)))
    with pytest.raises(InputError, match="reads no text"):
        net(x, t, Condition(text=torch.zeros(1, 2, 6)))
    with pytest.raises(InputError, match="without text"):
        Condition(text_mask=torch.ones(1, 2, dtype=torch.bool))


def test_a_condition_moves_whole() -> None:
    c = inputs(network(text_dim=6))[2].to("meta")
    assert all(value is not None and value.is_meta for value in (c.label, c.text, c.text_mask))
    assert Condition(torch.zeros(2, dtype=torch.long)).to("meta").text is None


# In an objective


def test_two_depths_are_asked_and_one_latent_is_told() -> None:
    """Tokens at one block, a pooled latent at another, a third told behind its tap: all reach the network and learn."""
    net = network(dtype=torch.float32)
    told = Injected(net, [AdaLN("style", dim=4, at="blocks.2", width=32)])
    latents = [
        Latent("patches", tap="blocks.0", tap_dim=32, dim=7),
        Latent("caption", tap="blocks.2", tap_dim=32, dim=5, level="global"),
        Latent("style", tap="blocks.1", tap_dim=32, dim=4, level="global", injection="explicit"),
    ]
    objective = presets.reed(Interpolant(), latents)
    x, _, c = inputs(net)
    z = {"patches": torch.randn(3, 16, 7), "caption": torch.randn(3, 5), "style": torch.randn(3, 4)}
    given = {name: Representation(value) for name, value in z.items()}
    optimizer = torch.optim.Adam([*told.parameters(), *objective.parameters()], lr=3e-3)
    losses = []
    for _ in range(30):
        loss = objective(told, x, NoiseSource(0, range(3)), z=given, c=c, n=10**6)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append({"x": loss.denoising.mean(), **{name: part.mean() for name, part in loss.alignment.items()}})
    assert set(losses[0]) == {"x", "patches", "caption", "style"}
    assert all(losses[-1][name] < losses[0][name] - 0.05 for name in losses[0]), (losses[0], losses[-1])


# Precision and compilation


@torch.no_grad()
def test_bfloat16_is_near() -> None:
    """Weights in bfloat16, and float32 weights under autocast, against float64; rotary angles must not be rounded."""
    net = network(**KINDS["all options"])
    x, t, c = inputs(net)
    said = net(x, t, c)
    c = Condition(c.label, c.text.float(), c.text_mask)  # type: ignore[union-attr]
    with torch.autocast("cpu", torch.bfloat16):
        cast = network(dtype=torch.float32, **KINDS["all options"])(x.float(), t.float(), c)
    half = network(dtype=torch.bfloat16, **KINDS["all options"])(x.float(), t.float(), c)
    for other in (cast, half):
        assert other.dtype == torch.float32
        assert (other - said).norm() / said.norm() < 0.05


@pytest.mark.slow
def test_the_network_compiles_into_one_graph() -> None:
    command = [sys.executable, str(Path(__file__).with_name("network_compiled.py"))]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout)
    assert found["apart"] < 1e-5
    assert found["size"] > 1e-3
