"""Two small problems on which every preset is trained: a mixture in the plane, and the 8x8 digits of scikit-learn.

Each gives data, what encoders see in it, a network, and a figure of quality. In both,

    features   what an encoder that knows the data sees (mixture: a vector of the component; digits: a convolutional
               classifier trained on the training split, 4x4 positions)
    random     what an encoder that knows nothing sees (the same kind of network, untrained)
    coarse     a class (mixture: which of 8 rings; digits: which digit)
    fine       the rest (mixture: which of 6 points of the ring; digits: 8 principal components of the pooled features)
    code       a small vector, for what diffuses beside x (mixture: the component's centre; digits: as `fine`)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from torch import Tensor, nn
from torch.nn import functional as F

PROCESS = Interpolant()
WIDTH = 64


@dataclass(frozen=True)
class Task:
    """A problem.

    Attributes:
        name: Its name.
        train: Training data.
        held_out: Data never trained on.
        seen: What encoders see in the training data, by name.
        seen_held_out: The same for the held-out data.
        level: Level of `features` and `random`.
        classes: Number of classes of `coarse`, and of `fine` (0 when it is a vector).
        network: Makes a fresh denoiser; "blocks.0" .. "blocks.3" are its hidden states, WIDTH wide.
        joint: Makes a fresh denoiser of {"x", "z"}, z being `code`.
        perceive: A frozen, differentiable encoder of x, for the perceptual loss.
        quality: Error of a denoiser, 0 or a floor being perfect.
        steps: Training steps.
        batch: Samples a step.
        rate: Learning rate.
    """

    name: str
    train: Tensor
    held_out: Tensor
    seen: dict[str, Tensor]
    seen_held_out: dict[str, Tensor]
    level: str
    classes: tuple[int, int]
    network: Callable[[], nn.Module]
    joint: Callable[[], nn.Module]
    perceive: nn.Module
    quality: Callable[[nn.Module], float]
    steps: int
    batch: int
    rate: float


class Clock(nn.Module):
    """Time as features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, t: Tensor) -> Tensor:
        """The features of t [b], [b, WIDTH]."""
        phase = t[:, None].float() * torch.arange(1, 9, device=t.device) * math.pi / 2
        return self.layers(torch.cat([phase.sin(), phase.cos()], -1))


class Block(nn.Module):
    """A residual block; with attention over tokens when there are any."""

    def __init__(self, heads: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.attend = nn.ModuleList([nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)])
        if not heads:
            self.attend = nn.ModuleList()
        self.mix = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """The hidden state after this block."""
        if self.heads:
            norm, project, out = self.attend
            q, k, v = project(norm(hidden)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            hidden = hidden + out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return hidden + self.mix(hidden)


class Network(nn.Module):
    """A small residual network on vectors or tokens that predicts the velocity; nothing in it knows of latents."""

    def __init__(self, inputs: int, tokens: int = 0) -> None:
        super().__init__()
        self.inputs = inputs
        self.inlet = nn.Linear(5 * inputs if not tokens else inputs, WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, WIDTH)) if tokens else None
        self.clock = Clock()
        self.blocks = nn.Sequential(*(Block(4 if tokens else 0) for _ in range(4)))
        self.outlet = nn.Linear(WIDTH, inputs)

    def embed(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The hidden state before the first block."""
        if self.place is None:
            angle = torch.cat([x_t * math.pi / 2, x_t * math.pi], -1)
            return self.inlet(torch.cat([x_t, angle.sin(), angle.cos()], -1)) + self.clock(t)
        return self.inlet(x_t) + self.place + self.clock(t)[:, None]

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        """The velocity at x_t and t."""
        return self.outlet(self.blocks(self.embed(x_t, t)))


class JointNetwork(nn.Module):
    """`Network` with a second field z [b, k], told to and asked of every token."""

    def __init__(self, inputs: int, tokens: int, code: int) -> None:
        super().__init__()
        self.body = Network(inputs, tokens)
        self.tell, self.ask = nn.Linear(code, WIDTH), nn.Linear(WIDTH, code)

    def forward(self, x_t: dict[str, Tensor], t: Tensor, c: Any = None) -> dict[str, Tensor]:
        """The velocities of both fields."""
        told = self.tell(x_t["z"])
        hidden = self.body.embed(x_t["x"], t)
        hidden = self.body.blocks(hidden + (told if hidden.ndim == 2 else told[:, None]))
        pooled = hidden if hidden.ndim == 2 else hidden.mean(1)
        return {"x": self.body.outlet(hidden), "z": self.ask(pooled)}


class Rings:
    """48 equally likely Gaussians in the plane: six around each of eight points of a circle."""

    WIDTH = 0.06

    def __init__(self) -> None:
        outer, inner = (torch.arange(count) * (2 * math.pi / count) for count in (8, 6))
        ring = torch.stack([outer.cos(), outer.sin()], -1)
        small = torch.stack([inner.cos(), inner.sin()], -1)
        self.centres = (1.4 * ring[:, None] + 0.32 * small).flatten(0, 1)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points, and their components."""
        which = torch.randint(48, (count,), generator=generator)
        return self.centres[which] + self.WIDTH * torch.randn(count, 2, generator=generator), which

    def velocity(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[eps - x_0 | x_t], by Bayes' rule over the Gaussians."""
        signal, noise = (1 - t)[:, None], t[:, None]
        variance = (signal * self.WIDTH) ** 2 + noise**2
        away = x_t[:, None] - signal[..., None] * self.centres
        share = torch.softmax(-away.square().sum(-1) / (2 * variance), -1)
        within = signal * self.WIDTH**2 / variance * torch.einsum("nk,nkd->nd", share, away)
        return (x_t - share @ self.centres - within) / noise


def mixture(seed: int) -> Task:
    """The mixture; quality is the error of the velocity against the exact one, per coordinate."""
    rings, generator = Rings(), torch.Generator().manual_seed(1000 + seed)
    vectors = torch.randn(48, 32, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(6)
    blind = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 32)).requires_grad_(False)

    def see(x: Tensor, which: Tensor) -> dict[str, Tensor]:
        centre = rings.centres[which]
        return {"features": vectors[which], "random": blind(x), "coarse": which // 6, "fine": which % 6, "code": centre}

    train, held_out = rings.sample(16384, generator), rings.sample(4096, generator)
    noise = NoiseSource(77, range(4096))
    at = PROCESS.corrupt(held_out[0], PROCESS.sample_time(noise), noise)
    truth = rings.velocity(at.x_t, at.t)

    def quality(denoiser: nn.Module) -> float:
        return float((denoiser(at.x_t, at.t) - truth).square().mean())

    return Task(
        name="mixture",
        train=train[0],
        held_out=held_out[0],
        seen=see(*train),
        seen_held_out=see(*held_out),
        level="global",
        classes=(8, 6),
        network=lambda: Network(2),
        joint=lambda: JointNetwork(2, 0, 2),
        perceive=blind,
        quality=quality,
        steps=1600,
        batch=128,
        rate=3e-3,
    )


class Classifier(nn.Module):
    """A convolutional classifier of digits; `features` is its last map, 4x4 positions of 32 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 32, 3, padding=1),
        )
        self.out = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Feature tokens [b, 16, 32] of patches [b, 16, 4]."""
        return self.features(to_image(x)).flatten(2).mT

    def classify(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.out(F.silu(self(x)).mean(1))


def to_image(x: Tensor) -> Tensor:
    """Patches [b, 16, 4] as images [b, 1, 8, 8]."""
    return x.reshape(-1, 4, 4, 2, 2).permute(0, 1, 3, 2, 4).reshape(-1, 1, 8, 8)


def to_patches(image: Tensor) -> Tensor:
    """Images [b, 8, 8] as patches [b, 16, 4]."""
    return image.reshape(-1, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(-1, 16, 4)


def train_classifier(x: Tensor, label: Tensor) -> Classifier:
    """The encoder of the digits, from the training split alone."""
    torch.manual_seed(8)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    for step in range(600):
        which = torch.randint(len(x), (128,))
        loss = F.cross_entropy(model.classify(x[which]), label[which], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 600)
        optimizer.step()
    return model.requires_grad_(False)


def digits(seed: int) -> Task:
    """The digits; quality is the held-out error of the velocity against eps - x_0 of fixed draws (its floor is > 0)."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(9))  # one split for every seed
    x = to_patches(torch.tensor(raw.images / 8.0 - 1.0, dtype=torch.float32))[order]
    label = torch.tensor(raw.target)[order]
    cut = 1437
    encoder = train_classifier(x[:cut], label[:cut])
    torch.manual_seed(10)
    blind = Classifier().requires_grad_(False)
    pooled = F.silu(encoder(x)).mean(1)
    mean = pooled[:cut].mean(0)
    _, scale, basis = torch.pca_lowrank(pooled[:cut] - mean, q=8)
    code = (pooled - mean) @ basis / (scale / cut**0.5)
    seen = {"features": encoder(x), "random": blind(x), "coarse": label, "fine": code, "code": code}
    noise = NoiseSource(77, range(4 * (len(x) - cut)))
    clean = x[cut:].repeat(4, 1, 1)
    at = PROCESS.corrupt(clean, PROCESS.sample_time(noise), noise)

    def quality(denoiser: nn.Module) -> float:
        return float(PROCESS.loss(denoiser(at.x_t, at.t), at).mean())

    return Task(
        name="digits",
        train=x[:cut],
        held_out=x[cut:],
        seen={name: value[:cut] for name, value in seen.items()},
        seen_held_out={name: value[cut:] for name, value in seen.items()},
        level="token",
        classes=(10, 0),
        network=lambda: Network(4, 16),
        joint=lambda: JointNetwork(4, 16, 8),
        perceive=encoder,
        quality=quality,
        steps=1200,
        batch=64,
        rate=2e-3,
    )


TASKS = {"mixture": mixture, "digits": digits}
