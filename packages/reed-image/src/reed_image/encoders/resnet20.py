"""ResNet-20 for 32-pixel pictures (He et al. 2016, arXiv 1512.03385, section 4.2): a small encoder that was trained.

Three stages of three blocks, 16, 32 and 64 channels, stride 1, 2 and 4; shortcuts of option A: every second pixel, and
zeros in the new channels.
"""

from pathlib import Path

from jaxtyping import Float
from reed_core.errors import InputError
from torch import Tensor, nn
from torch.nn import functional as F

from reed_image.encoders.timm_model import load_weights
from reed_image.encoders.vision import Level, VisionEncoder, map_to_tokens

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two convolutions and the shortcut.

    Args:
        inner: Channels in.
        outer: Channels out.
        stride: Of the first convolution.
    """

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride, self.added = stride, outer - inner

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d H W"]:
        """One block."""
        hidden = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        kept = x[:, :, :: self.stride, :: self.stride]
        before = self.added // 2
        return F.relu(hidden + F.pad(kept, (0, 0, 0, 0, before, self.added - before)))


class ResNet20(nn.Module):
    """The network.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        stages = []
        for inner, outer in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False):
            stride = 1 if inner == outer else 2
            stages.append(nn.Sequential(Block(inner, outer, stride), Block(outer, outer, 1), Block(outer, outer, 1)))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(WIDTHS[-1], classes)

    def stages(self, x: Float[Tensor, "b 3 H W"]) -> tuple[Tensor, Tensor, Tensor]:
        """The maps after each stage."""
        first = self.layer1(F.relu(self.bn1(self.conv1(x))))
        second = self.layer2(first)
        return first, second, self.layer3(second)

    def forward(self, x: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b k"]:
        """Logits of the classes."""
        return self.linear(self.stages(x)[-1].mean((2, 3)))


def resnet20(path: Path, *, grid: int, at: int = 2, level: Level = "token") -> VisionEncoder:
    """ResNet-20 with weights from a file, as an encoder; normalised as for ImageNet.

    Args:
        path: A safetensors file.
        grid: Tokens along a side.
        at: Which stage: 0, 1 or 2.
        level: "token" or "global".

    Raises:
        InputError: If the file is something else, or there is no such stage.
    """
    if at not in range(len(WIDTHS)):
        raise InputError(f"stage {at} of ResNet-20; it has 0, 1 and 2")
    network = ResNet20()
    load_weights(network, Path(path), "ResNet-20")

    def read(x: Tensor) -> Tensor:
        tokens = map_to_tokens(network.stages(x)[at])
        return tokens if level == "token" else tokens.mean(1)

    return VisionEncoder("resnet20", network, read, grid * 2**at, level, version=f"resnet20,at={at}")
