"""A step with z from a cache against a step that runs the encoder, SiT and a frozen vision transformer side by side.

The encoder is timm's ViT-S/14 as of DINOv2 at 224 pixels (256 tokens of 384), with random weights: the same arithmetic.
Online, each step also reads the pixels; cached, it reads the tokens, in fp16, from a mapped file.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reed_core import presets
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.train.rows import Rows
from reed_image.network import SIZES, Condition

from train_bench import images

ENCODER, PIXELS, WIDTH, TOKENS = "vit_small_patch14_dinov2", 224, 384, 256


def ratios(size: str, batch: int, repeats: int, folder: Path, mark: Any) -> dict[str, list[float]]:
    """Times of a step over those of a step without a latent, by where z comes from.

    Args:
        size: Of SiT.
        batch: Images in a step.
        repeats: Rounds, in each of which the three kinds take one step in turn.
        folder: For the files.
        mark: Called after each round.
    """
    import timm

    torch.manual_seed(0)
    encoder = timm.create_model(ENCODER, pretrained=False, num_classes=0, img_size=PIXELS).eval()
    network = images.network(size)
    latent = Latent("tokens", f"blocks.{SIZES[size].depth // 3 - 1}", SIZES[size].width, WIDTH, hidden=images.HIDDEN)
    told, plain = presets.repa(Interpolant(), latent), presets.none(Interpolant())
    optimizer = torch.optim.AdamW([*network.parameters(), *told.parameters()], lr=1e-4, fused=True)
    rounds = repeats + 1
    random = np.random.default_rng(0)
    for name, shape, kind in (("pixels", (3, PIXELS, PIXELS), np.uint8), ("tokens", (TOKENS, WIDTH), np.float16)):
        held = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (rounds * batch, *shape))
        held[:] = random.integers(0, 100, held.shape, np.uint8)
        held.flush()
    pixels, tokens = (Rows.read(folder / f"{name}.npy") for name in ("pixels", "tokens"))

    def online(items: Any) -> dict[str, Representation]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            values = pixels.gather(items).float() / 127.5 - 1.0
            return {"tokens": Representation(encoder.forward_features(values)[:, encoder.num_prefix_tokens :].float())}

    def cached(items: Any) -> dict[str, Representation]:
        return {"tokens": Representation(tokens.gather(items).float())}

    kinds = {"none": (plain, None), "cached": (told, cached), "online": (told, online)}
    found: dict[str, list[float]] = {name: [] for name in ("cached", "online")}
    for number in range(rounds):
        items = torch.arange(number * batch, (number + 1) * batch)
        took = {}
        order = list(kinds)
        for name in order[number % 3 :] + order[: number % 3]:
            objective, make = kinds[name]
            since = time.perf_counter()
            noise = NoiseSource(0, items.tolist())
            x_0, c = noise.normal((4, 32, 32)), Condition(label=items % 1000)
            with torch.autocast("cpu", torch.bfloat16):
                loss = objective(network, x_0, noise, z=None if make is None else make(items), c=c)
            loss.total.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            took[name] = time.perf_counter() - since
        if number:  # the first round warms up
            for name, values in found.items():
                values.append(took[name] / took["none"])
        mark()
    return found
