"""SiT on made latents: arrays in mapped files, and what the benches train on them. The values are noise."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reed_core import presets
from reed_core.latent import Latent
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from reed_core.train import Batch
from reed_core.train.arrays import ArrayData
from reed_core.train.rows import Rows
from reed_image.network import SIZES, Condition, SiT, preset

TOKENS, Z = 256, 768  # 256 pixels in an autoencoder that divides by 8, patches of 2; DINOv2-B's width
HIDDEN = 2048  # of REPA's projector


@dataclass(frozen=True)
class Classes:
    """Data whose condition is the network's, not a bare class.

    Attributes:
        data: The data.
    """

    data: ArrayData

    def plan(self, epoch: int) -> list[list[int]]:
        """That of the data."""
        return self.data.plan(epoch)

    def batch(self, items: Any, noise: NoiseSource) -> Batch:
        """That of the data, its classes as a `Condition`."""
        batch = self.data.batch(items, noise)
        return replace(batch, c=Condition(label=batch.c))


def made(folder: Path, count: int, batch: int, guided: bool) -> Classes:
    """Latents [4, 32, 32] and tokens [256, 768], fp16, in mapped files.

    Args:
        folder: Where the files go.
        count: Images.
        batch: Images in a step.
        guided: Whether batches carry the tokens.
    """
    random = np.random.default_rng(0)
    shapes = {"x": (4, 32, 32), "z": (TOKENS, Z)}
    for name, shape in shapes.items():
        path = folder / f"{name}.npy"
        if not path.exists():
            held = np.lib.format.open_memmap(path, "w+", np.float16, (count, *shape))
            for row in held:
                row[:] = random.standard_normal(shape, np.float32)
            held.flush()
    latents = {"tokens": Rows.read(folder / "z.npy")} if guided else {}
    labels = torch.arange(count) % 1000
    return Classes(ArrayData(Rows.read(folder / "x.npy"), batch, 0, labels, 1000, 0.1, latents=latents))


def network(name: str) -> SiT:
    """SiT-`name`/2, random."""
    torch.manual_seed(0)
    return SiT(preset(name, 2))


def objective(name: str, guided: bool) -> Objective:
    """Plain diffusion, or REPA's: tokens told to a third of the depth, through a projector of three layers."""
    if not guided:
        return presets.none(Interpolant())
    size = SIZES[name]
    latent = Latent("tokens", f"blocks.{size.depth // 3 - 1}", size.width, Z, hidden=HIDDEN)
    return presets.repa(Interpolant(), latent)
