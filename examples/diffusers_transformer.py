"""A transformer of diffusers, unmodified, trained with two latents at two depths.

x is a 4-channel 8 x 8 "latent image" of a blob. Each of its 16 patches has two z: what it holds (read after block 1)
and the way from it to the blob (read after block 3). Random weights, seconds on a CPU. Prints the losses of the first
and of the last steps; an alignment of -1 (a cosine of 1) is perfect, and is not attainable where x_t is mostly noise.

    python examples/diffusers_transformer.py        (needs diffusers)
"""

import torch
from diffusers import DiTTransformer2DModel
from jaxtyping import Float, Int
from reed_core import presets
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Loss
from reed_core.process import Interpolant
from torch import Tensor, nn
from torch.nn import functional as F

CENTRES = (torch.cartesian_prod(torch.arange(4), torch.arange(4)) + 0.5) / 4  # of the patches


class Denoiser(nn.Module):
    """diffusers' signature as `net(x_t, t, c)`."""

    def __init__(self) -> None:
        super().__init__()
        self.dit = DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, num_layers=4, sample_size=8, patch_size=2
        )

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """The velocity."""
        return self.dit(x_t, timestep=1000 * t, class_labels=c).sample[:, :4]


def blobs(count: int, seed: int) -> tuple[Float[Tensor, "b 4 8 8"], Float[Tensor, "b 2"], Int[Tensor, "b"]]:
    """Images of a blob, its place and its class."""
    generator = torch.Generator().manual_seed(seed)
    place, kind = torch.rand(count, 2, generator=generator), torch.randint(4, (count,), generator=generator)
    axis = torch.linspace(0, 1, 8)
    far = (axis[:, None] - place[:, :1, None]).square() + (axis[None] - place[:, 1:, None]).square()
    return 4 * torch.exp(-far / 0.05)[:, None] * F.one_hot(kind, 4)[..., None, None], place, kind


def train(steps: int, batch: int = 32) -> list[Loss]:
    """Trains, and returns the loss of every step."""
    torch.manual_seed(0)
    net = Denoiser()
    latents = [
        Latent("patch", tap="dit.transformer_blocks.0", tap_dim=32, dim=16),
        Latent("way", tap="dit.transformer_blocks.2", tap_dim=32, dim=2),
    ]
    objective = presets.reed(Interpolant(), latents)
    optimizer = torch.optim.AdamW([*net.parameters(), *objective.parameters()], lr=4e-3)
    losses = []
    for step in range(steps):
        x_0, place, kind = blobs(batch, step)
        patches = F.unfold(x_0, 2, stride=2).transpose(1, 2)  # [b, 16, 16]: 16 patches of 4 x 2 x 2 numbers
        z = {"patch": Representation(patches - patches.mean(1, keepdim=True))}
        z["way"] = Representation(place[:, None] - CENTRES)
        noise = NoiseSource(0, range(step * batch, (step + 1) * batch))
        loss = objective(net, x_0, noise, z=z, c=kind, n=step * batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss)
    return losses


if __name__ == "__main__":
    found = train(200)
    for title, part in {"first 20": found[:20], "last 20": found[-20:]}.items():
        values = {"denoising": [one.denoising for one in part]}
        values |= {name: [one.alignment[name] for one in part] for name in ("patch", "way")}
        print(title, {name: round(float(torch.cat(value).detach().mean()), 3) for name, value in values.items()})
