"""Published SiT weights, key by key, as weights of our network in our convention.

What may differ is the direction of time. SiT (arXiv 2401.08740, code) has data at t' = 1 and v' = data - noise; REPA
and REED have data at t = 0 and v = noise - data, as here. With t' = 1 - t and v' = -v
    v(x, t) = -v'(x, 1 - t)
which is the same network with other weights, exactly. The sign goes into the last layer. The first layer of the time
embedding reads cos(w t') and sin(w t'), and with t' = 1 - t
    A cos(w t') + B sin(w t') = (A cos w + B sin w) cos(w t) + (A sin w - B cos w) sin(w t)
A network that predicts the noise keeps its sign.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from reed_core.errors import InputError
from torch import Tensor

from reed_image.network import SIZES, SiTConfig
from reed_image.network.embedding import FREQUENCIES, place_table, time_frequencies

Direction = Literal["sit", "repa"]
"""Which end of time is data: t = 1 ("sit"), or t = 0 ("repa"; REED as well)."""

POSITIONS = "pos_embed"
MOST_APART = 5e-3
"""How far published positions may lie from the formula: an average of weights in float32 wears them a little."""

OUTSIDE = {
    "x_embedder.proj.weight": "patch.weight",
    "x_embedder.proj.bias": "patch.bias",
    "t_embedder.mlp.0": "time.inner",
    "t_embedder.mlp.2": "time.outer",
    "y_embedder.embedding_table.weight": "label.table.weight",
    "final_layer.linear": "final.linear",
    "final_layer.adaLN_modulation.1": "final.modulation.linear",
}
INSIDE = {
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "attn.q_norm": "attention.query_norm",
    "attn.k_norm": "attention.key_norm",
    "mlp.fc1": "mlp.inner",
    "mlp.fc2": "mlp.outer",
    "adaLN_modulation.1": "modulation.linear",
}


class Converted(NamedTuple):
    """Weights of our network.

    Attributes:
        config: Its sizes.
        state: Its weights, in float32 or wider.
        dropped: Keys that belong to no part of the network: projectors of representation alignment.
    """

    config: SiTConfig
    state: dict[str, Tensor]
    dropped: tuple[str, ...]


def convert(
    published: Mapping[str, Tensor], direction: Direction, heads: int | None = None, velocity: bool = True
) -> Converted:
    """Weights of our network from those of SiT, REPA or REED.

    Args:
        published: Their state dict.
        direction: Which end of time is data there.
        heads: Attention heads; None for those of the published size with this width and depth.
        velocity: Whether it predicts a velocity, whose sign turns with time, or the noise.

    Raises:
        InputError: If keys are missing or unknown, or positions are not the fixed ones.
    """
    dropped = tuple(sorted(key for key in published if "projector" in key.partition(".")[0]))
    kept = _one_list_of_blocks({key: value for key, value in published.items() if key not in dropped})
    state = {}
    for key, value in kept.items():
        if key != POSITIONS:
            state[_name(key)] = value.to(torch.promote_types(value.dtype, torch.float32))
    config = _sizes(kept, heads)
    _check_positions(kept[POSITIONS], config)
    state["patch.weight"] = state["patch.weight"].flatten(1)
    if direction == "sit":
        state["time.inner.weight"] = _turned(state["time.inner.weight"])
        if velocity:
            for name in ("final.linear.weight", "final.linear.bias"):
                state[name] = -state[name]
    return Converted(config, state, dropped)


def projected(published: Mapping[str, Tensor]) -> bool:
    """Whether there are projectors of representation alignment among the weights."""
    return any("projector" in key.partition(".")[0] for key in published)


def doubled(published: Mapping[str, Tensor]) -> bool:
    """Whether the last layer has outputs that nobody reads (`SiTConfig.learn_sigma`)."""
    last, first = (_need(published, key) for key in ("final_layer.linear.weight", "x_embedder.proj.weight"))
    return last.shape[0] == 2 * first.shape[1:].numel()


def _one_list_of_blocks(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Early REPA weights count the blocks behind the projector anew, as `decoder_blocks`."""
    numbers = {int(key.split(".")[1]) for key in published if key.startswith("blocks.")}
    joined = {}
    for key, value in published.items():
        head, _, rest = key.partition(".")
        if head == "decoder_blocks":
            number, _, rest = rest.partition(".")
            key = f"blocks.{int(number) + len(numbers)}.{rest}"
        joined[key] = value
    return joined


def _name(key: str) -> str:
    table, head, rest = OUTSIDE, "", key
    if key.startswith("blocks."):
        _, number, rest = key.split(".", 2)
        table, head = INSIDE, f"blocks.{number}."
    for theirs, ours in table.items():
        if rest == theirs or rest.startswith(f"{theirs}."):
            return head + ours + rest.removeprefix(theirs)
    raise InputError(f"unknown weight '{key}'; expected those of a SiT, REPA or REED image network")


def _sizes(published: Mapping[str, Tensor], heads: int | None) -> SiTConfig:
    first, table = _need(published, "x_embedder.proj.weight"), _need(published, "y_embedder.embedding_table.weight")
    width, channels, patch = first.shape[:3]
    depth = len({key.split(".")[1] for key in published if key.startswith("blocks.")})
    tokens = _need(published, POSITIONS).shape[-2]
    grid = round(tokens**0.5)
    if grid**2 != tokens:
        raise InputError(f"{tokens} positions are not those of a square image; expected a square number")
    known = [size.heads for size in SIZES.values() if (size.width, size.depth) == (width, depth)]
    if heads is None and not known:
        raise InputError(f"width {width} and depth {depth} are of no published size; say how many heads it has")
    return SiTConfig(
        size=grid * patch,
        channels=channels,
        patch=patch,
        width=width,
        depth=depth,
        heads=heads or known[0],
        classes=len(table) - 1,
        mlp_ratio=len(_need(published, "blocks.0.mlp.fc1.weight")) / width,
        qk_norm="blocks.0.attn.q_norm.weight" in published,
        learn_sigma=doubled(published),
    )


def _need(published: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in published:
        raise InputError(f"no weight '{key}'; expected those of a SiT, REPA or REED image network")
    return published[key]


def _check_positions(found: Tensor, config: SiTConfig) -> None:
    expected = place_table(config.width, config.grid).to(found.device)
    apart = float((found.reshape(-1, found.shape[-1]).to(expected) - expected).abs().max())
    if not apart <= MOST_APART:
        raise InputError(f"positions are up to {apart:.3g} from the fixed sines and cosines; expected those of SiT")


def _turned(weight: Tensor) -> Tensor:
    """The first matrix of the time embedding, for 1 - t in the place of t."""
    wide = weight.double()
    cosine, sine = wide[:, : FREQUENCIES // 2], wide[:, FREQUENCIES // 2 :]
    angle = time_frequencies(torch.float64, weight.device)
    turned = [cosine * angle.cos() + sine * angle.sin(), cosine * angle.sin() - sine * angle.cos()]
    return torch.cat(turned, -1).to(weight.dtype)
