"""Our training step beside the peers', online and from a cache, on the same mapped files.

Ours is the step of `reed_core.train`, as `reed-image train` takes it: data gathered, noise of each sample drawn, then
network, losses, clipping, AdamW and the average of the weights. Online, z is made in the step by the same frozen
encoder with random weights, under autocast like the peers'. `bare` is the network, the projector and (online) the
encoder alone, which all share: theirs over bare is the most that any trainer of them could win. All take turns, so that
ratios are of one run.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from protein_bench import clock
from reed_core import presets
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.train import TrainConfig
from reed_core.train.arrays import ArrayData
from reed_core.train.ema import Ema
from reed_core.train.optimizer import make_optimizer
from reed_core.train.parallel import pieces
from reed_core.train.rows import Rows
from reed_core.train.step import Guided, MadePiece, Stepper, Work
from reed_image.encoders import VisionEncoder, timm_encoder
from reed_image.network import SiTConfig
from reed_image.network.sit import SiT
from train_bench.images import HIDDEN, Classes

from image_bench.peers import CLIP, DECAY, DROP, RATE, Peer

Precision = Literal["fp32", "bf16"]
LOW = {"fp32": None, "bf16": torch.bfloat16}
ARMS = ("ours_cached", "theirs_cached", "bare_cached", "ours_online", "theirs_online", "bare_online")


class Files:
    """Latents, 8-bit pictures and tokens of made data, in mapped files; the values are noise.

    Args:
        folder: Where they go.
        count: Pictures.
        config: The network.
        encoder: The encoder of the pictures.
    """

    def __init__(self, folder: Path, count: int, config: SiTConfig, encoder: VisionEncoder) -> None:
        random = np.random.default_rng(0)
        shapes = {
            "x": ((config.channels, config.size, config.size), np.float16),
            "pixels": ((3, 8 * config.size, 8 * config.size), np.uint8),
            "z": ((encoder.tokens, encoder.dim), np.float16),
        }
        for name, (shape, kind) in shapes.items():
            held = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (count, *shape))
            for row in held:
                row[:] = (
                    random.integers(0, 256, shape) if name == "pixels" else random.standard_normal(shape, np.float32)
                )
            held.flush()
        self.x, self.pixels, self.z = (Rows.read(folder / f"{name}.npy") for name in ("x", "pixels", "z"))
        self.labels = torch.arange(count) % config.classes


class Ours:
    """Our trainer of one network, step by step.

    Args:
        network: The network; trained.
        latent: What it is asked.
        files: The data.
        batch: Pictures of a step.
        precision: Of the network and the encoder.
        encoder: Makes z in the step; None: z is read.
    """

    def __init__(
        self,
        network: SiT,
        latent: Latent,
        files: Files,
        batch: int,
        precision: Precision,
        encoder: VisionEncoder | None = None,
    ) -> None:
        self.device = next(network.parameters()).device
        config = TrainConfig(samples=10**6, learning_rate=RATE, clip=CLIP, ema=DECAY, decay=0.0, precision=precision)
        objective = presets.repa(Interpolant(), latent).to(self.device)
        guided = Guided(network, objective, precision, compiled=False)
        optimizer = make_optimizer(dict(guided.named_parameters()), config)
        self.stepper = Stepper(guided, guided, optimizer, Ema(network, DECAY), config, self.device)
        self.latent, self.files, self.encoder, self.low = latent, files, encoder, LOW[precision]
        tokens = {} if encoder is not None else {latent.name: files.z}
        classes = network.config.classes
        self.data = Classes(ArrayData(files.x, batch, 0, files.labels, classes, DROP, latents=tokens))
        self.taken = 0

    def step(self, items: list[int]) -> None:
        """One step, from data that lie in files."""
        noise = NoiseSource(0, range(self.taken, self.taken + len(items)))
        batch = self.data.batch(items, noise)
        if self.encoder is not None:
            batch = replace(batch, z=lambda: self._online(items))
        work = Work(self.taken, len(items), [MadePiece(pieces(items)[0], batch, noise)])
        self.stepper.take(work, self.taken // len(items) + 1)
        self.taken += len(items)

    @torch.no_grad()
    def _online(self, items: list[int]) -> dict[str, Representation]:
        assert self.encoder is not None
        with torch.autocast(self.device.type, self.low, enabled=self.low is not None):
            pixels = self.files.pixels.gather(torch.tensor(items)).to(self.device)
            return {self.latent.name: self.encoder(pixels.float() / 255)}


def timed(
    config: SiTConfig,
    encoder: tuple[str, int],
    batch: int,
    rounds: int,
    precision: Precision,
    device: str,
    folder: Path,
    tick: Callable[[], None],
    hidden: int = HIDDEN,
) -> dict[str, list[float]]:
    """Seconds of a step of each of `ARMS`, a value for each round (`protein_bench.clock`).

    Args:
        config: The network.
        encoder: A model of timm, and the block or stage that is read.
        batch: Pictures of a step.
        rounds: Rounds; one more warms up.
        precision: Of network and encoder.
        device: Where.
        folder: For the files.
        tick: Called after each step.
        hidden: Width of the projector's hidden layers.
    """
    model = timm_encoder(encoder[0], grid=config.grid, at=encoder[1], weights="random").to(device)
    files = Files(folder, batch * (rounds + 1), config, model)
    depth = max(1, config.depth // 3)
    latent = Latent("tokens", f"blocks.{depth - 1}", config.width, model.dim, hidden=hidden)
    torch.manual_seed(0)
    networks = [SiT(config).to(device) for _ in ARMS]
    ours = [
        Ours(net, latent, files, batch, precision, own) for net, own in zip(networks[:2], (None, model), strict=True)
    ]
    theirs = [Peer(net, latent, LOW[precision]) for net in networks[2:]]
    pixels, x, labels = files.pixels, files.x, files.labels

    def arm(step: Callable[[list[int]], Any]) -> Callable[[], None]:
        plan = iter([list(range(start, start + batch)) for start in range(0, batch * (rounds + 1), batch)])

        def once() -> None:
            step(next(plan))
            if device != "cpu":
                torch.cuda.synchronize()

        return once

    def peer(items: list[int], trainer: Peer, online: bool) -> None:
        rows = torch.tensor(items)
        z = trainer.encoded(model, pixels.gather(rows)) if online else files.z.gather(rows).float()
        trainer.step(x.gather(rows).float(), labels[rows], z)

    def bare(items: list[int], trainer: Peer, online: bool) -> None:
        rows = torch.tensor(items)
        if online:
            trainer.encoded(model, pixels.gather(rows))
        trainer.bare(x.gather(rows).float(), labels[rows])

    made = {
        "ours_cached": arm(ours[0].step),
        "theirs_cached": arm(lambda items: peer(items, theirs[0], online=False)),
        "bare_cached": arm(lambda items: bare(items, theirs[2], online=False)),
        "ours_online": arm(ours[1].step),
        "theirs_online": arm(lambda items: peer(items, theirs[1], online=True)),
        "bare_online": arm(lambda items: bare(items, theirs[3], online=True)),
    }
    return clock.seconds(made, rounds, tick)
