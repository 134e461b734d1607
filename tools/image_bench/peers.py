"""A training step as the published trainers of REPA and REED take it, written anew from their description.

    z          from a frozen encoder in the step (pictures normalised, then resized, under autocast), or handed over
    loss       mean |v - v_hat|^2, and for each sample and each latent in turn - mean cos(P(h), z), over their number
    step       backward, the gradient clipped, AdamW, and the average of the weights parameter by parameter

The network, the projector and the encoder are ours, so that the step alone is compared. Data loading, moments of the
autoencoder and logging are left out.
"""

import copy
from typing import Any

import torch
from reed_core.latent import Latent
from reed_core.projector import Projector
from reed_image.encoders import VisionEncoder
from reed_image.network import Condition, SiT
from torch import Tensor, nn
from torch.nn import functional as F
from train_bench.alignment import looped

RATE, CLIP, DECAY, WEIGHT, DROP = 1e-4, 1.0, 0.9999, 0.5, 0.1


class Peer:
    """The trainer of one network.

    Args:
        network: The network; trained.
        latent: What it is asked; where it is read, and how wide it is.
        low: The type under autocast; None is float32.
    """

    def __init__(self, network: SiT, latent: Latent, low: torch.dtype | None = None) -> None:
        self.network, self.low = network, low
        self.kind = next(network.parameters()).device.type
        self.projector = Projector(latent.tap_dim, latent.dim, latent.hidden, latent.layers).to(self.kind)
        self.parts = nn.ModuleList([network, self.projector])
        self.average = copy.deepcopy(self.parts).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.parts.parameters(), RATE, (0.9, 0.999), weight_decay=0.0)
        self.seen: list[Tensor] = []
        network.get_submodule(latent.tap or "").register_forward_hook(self._see)

    def _see(self, _module: Any, _inputs: Any, out: Tensor) -> None:
        self.seen.append(out)

    def autocast(self) -> torch.autocast:
        """Where the network and the encoder compute."""
        return torch.autocast(self.kind, self.low, enabled=self.low is not None)

    @torch.no_grad()
    def encoded(self, encoder: VisionEncoder, pixels: Tensor) -> Tensor:
        """The tokens of 8-bit pictures, [b, n, d]."""
        mean, std = (torch.tensor(value, device=self.kind)[:, None, None] for value in (encoder.mean, encoder.std))
        with self.autocast():
            x = (pixels.to(self.kind) / 255.0 - mean) / std
            return encoder.read(F.interpolate(x, encoder.size, mode="bicubic"))

    def loss(self, x_0: Tensor, eps: Tensor, t: Tensor, label: Tensor, z: Tensor) -> Tensor:
        """The loss of a batch."""
        self.seen.clear()
        time = t[:, None, None, None]
        with self.autocast():
            said = self.network((1 - time) * x_0 + time * eps, t, Condition(label))
            projected = self.projector(self.seen[0])
        denoising = (said - (eps - x_0)).square().flatten(1).mean(1).mean()
        return denoising + WEIGHT * looped(projected.float(), z.float())

    def bare(self, x_0: Tensor, label: Tensor) -> None:
        """The network and the projector forward and backward, and nothing else: what no step can leave out."""
        self.seen.clear()
        x_0, label = x_0.to(self.kind), label.to(self.kind)
        with self.autocast():
            said = self.network(x_0, torch.rand(len(x_0), device=self.kind), Condition(label))
            projected = self.projector(self.seen[0])
        (said.sum() + projected.sum()).backward()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, x_0: Tensor, label: Tensor, z: Tensor) -> None:
        """One step on data that lies on the CPU."""
        x_0, label, z = x_0.to(self.kind), label.to(self.kind), z.to(self.kind)
        label = torch.where(torch.rand(len(label), device=self.kind) < DROP, -1, label)
        loss = self.loss(x_0, torch.randn_like(x_0), torch.rand(len(x_0), device=self.kind), label, z)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parts.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.parts.parameters(), strict=True):
                mean.mul_(DECAY).add_(value, alpha=1 - DECAY)
