"""Made-up weights with the keys and shapes of published SiT and REPA files, and what those networks compute, slowly.

The network is written out from the formulas of arXiv 2212.09748 and 2401.08740, in the convention of its own file.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
WIDTH, DEPTH, HEADS, PATCH, CHANNELS, GRID, CLASSES = 32, 3, 2, 2, 4, 4, 5
SIZE = GRID * PATCH


def positions(width: int = WIDTH, grid: int = GRID) -> Tensor:
    """Row by row: sines and cosines of the column, then of the row."""
    table = torch.zeros(grid * grid, width, dtype=torch.float64)
    quarter = width // 4
    for i in range(grid):
        for j in range(grid):
            for k in range(quarter):
                rate = 1 / 10000 ** (k / quarter)
                for half, place in enumerate((j, i)):
                    table[i * grid + j, 2 * half * quarter + k] = math.sin(place * rate)
                    table[i * grid + j, (2 * half + 1) * quarter + k] = math.cos(place * rate)
    return table[None]


def weights(doubled: bool, qk_norm: bool = False, projectors: bool = False, legacy: bool = False) -> State:
    """Random weights under published names, float64."""
    generator = torch.Generator().manual_seed(3)
    D, out = WIDTH, PATCH**2 * CHANNELS * (2 if doubled else 1)
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj.weight": (D, CHANNELS, PATCH, PATCH),
        "x_embedder.proj.bias": (D,),
        "y_embedder.embedding_table.weight": (CLASSES + 1, D),
    }

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    linear("t_embedder.mlp.0", D, 256)
    linear("t_embedder.mlp.2", D, D)
    for k in range(DEPTH):
        block = f"decoder_blocks.{k - 2}" if legacy and k >= 2 else f"blocks.{k}"
        linear(f"{block}.attn.qkv", 3 * D, D)
        linear(f"{block}.attn.proj", D, D)
        linear(f"{block}.mlp.fc1", 4 * D, D)
        linear(f"{block}.mlp.fc2", D, 4 * D)
        linear(f"{block}.adaLN_modulation.1", 6 * D, D)
        if qk_norm:
            for norm in ("q_norm", "k_norm"):
                shapes[f"{block}.attn.{norm}.weight"] = shapes[f"{block}.attn.{norm}.bias"] = (D // HEADS,)
    linear("final_layer.adaLN_modulation.1", 2 * D, D)
    linear("final_layer.linear", out, D)
    if projectors:
        for k, (outputs, inputs) in enumerate(((64, D), (64, 64), (48, 64))):
            linear(f"projectors.0.{2 * k}", outputs, inputs)
    state = {}
    for name, shape in shapes.items():
        spread = 0.3 if len(shape) == 1 else 1.2 / math.sqrt(math.prod(shape[1:]))
        state[name] = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    state["pos_embed"] = positions()
    return state


def run(state: State, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """The first `CHANNELS` channels of what the published network says at its own time t."""
    p, D = PATCH, WIDTH

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(value: Tensor, eps: float = 1e-6) -> Tensor:
        centred = value - value.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()

    def silu(value: Tensor) -> Tensor:
        return value / (1 + torch.exp(-value))

    def per_head(name: str, value: Tensor) -> Tensor:
        if f"{name}.weight" not in state:
            return value
        return norm(value, 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]

    rates = [10000 ** (-k / 128) for k in range(128)]
    features = [[math.cos(float(one) * r) for r in rates] + [math.sin(float(one) * r) for r in rates] for one in t]
    c = linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", torch.tensor(features, dtype=torch.float64))))
    c = silu(c + state["y_embedder.embedding_table.weight"][label])
    h = F.conv2d(x, state["x_embedder.proj.weight"], state["x_embedder.proj.bias"], stride=p)
    h = h.flatten(2).transpose(1, 2) + state["pos_embed"]
    for k in range(DEPTH):
        name = f"blocks.{k}"
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = linear(f"{name}.adaLN_modulation.1", c)[:, None].split(
            D, -1
        )
        qkv = linear(f"{name}.attn.qkv", norm(h) * (1 + scale_1) + shift_1)
        parts = []
        for head in range(HEADS):
            own = slice(head * D // HEADS, (head + 1) * D // HEADS)
            q, key, v = (one[..., own] for one in qkv.split(D, -1))
            q, key = per_head(f"{name}.attn.q_norm", q), per_head(f"{name}.attn.k_norm", key)
            score = torch.exp(q @ key.transpose(1, 2) / math.sqrt(D // HEADS))
            parts.append(score @ v / score.sum(-1, keepdim=True))
        h = h + gate_1 * linear(f"{name}.attn.proj", torch.cat(parts, -1))
        inner = linear(f"{name}.mlp.fc1", norm(h) * (1 + scale_2) + shift_2)
        inner = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        h = h + gate_2 * linear(f"{name}.mlp.fc2", inner)
    shift, scale = linear("final_layer.adaLN_modulation.1", c)[:, None].split(D, -1)
    said = linear("final_layer.linear", norm(h) * (1 + scale) + shift)
    out = torch.zeros_like(x)
    channels = said.shape[-1] // p**2
    for i in range(GRID):
        for j in range(GRID):
            for a in range(p):
                for b in range(p):
                    start = (a * p + b) * channels
                    out[:, :, i * p + a, j * p + b] = said[:, i * GRID + j, start : start + CHANNELS]
    return out
