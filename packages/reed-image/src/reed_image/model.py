"""An image diffusion model as it is kept on disk: the network, its process, and what its numbers mean as images.

What it draws are the normalised latents of an autoencoder, which the configuration names with shift and scale, or
without one pixels in [-1, 1].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, model_validator
from reed_core.hub import from_pretrained
from reed_core.process import Interpolant
from torch import Tensor, nn

from reed_image.autoencoder import AutoencoderSpec
from reed_image.network import Condition, SiT, SiTConfig


class ModelConfig(BaseModel):
    """Everything that a model is beside its weights.

    Attributes:
        kind: The family of the weights; only this one exists.
        network: Sizes of the network.
        path: Path between data and noise.
        prediction: What the network predicts.
        autoencoder: What made the latents; None for pixels in [-1, 1].
        class_names: A name for every class, or none at all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["image"] = "image"
    network: SiTConfig = SiTConfig()
    path: Literal["linear", "trig"] = "linear"
    prediction: Literal["v", "eps", "x0"] = "v"
    autoencoder: AutoencoderSpec | None = None
    class_names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.class_names and len(self.class_names) != self.network.classes:
            raise ValueError(f"{len(self.class_names)} class names for {self.network.classes} classes")
        if self.autoencoder is not None:
            counts = {self.autoencoder.channels, len(self.autoencoder.shift), len(self.autoencoder.scale)}
            if counts != {self.network.channels}:
                raise ValueError(f"the network has {self.network.channels} channels, its autoencoder {counts}")
        return self


class ImageModel(nn.Module):
    """A network with its process and the meaning of its data; called like the network.

    The null condition of guidance is None: `ClassifierFree(model, None, scale)`.

    Args:
        config: What it is.
    """

    Config = ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = SiT(config.network)

    @property
    def process(self) -> Interpolant:
        """The forward process, with the flat loss."""
        return Interpolant(path=self.config.path, prediction=self.config.prediction)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one x."""
        return self.config.network.channels, self.config.network.size, self.config.network.size

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, "b"], c: Condition | None = None
    ) -> Float[Tensor, "b c h w"]:
        """As `SiT.forward`."""
        return self.network(x_t, t, c)

    def sample(self, num: int = 1, classes: Sequence[str | int] = (), **settings: Any) -> Float[Tensor, "n 3 H W"]:
        """Draws pictures in [0, 1]; `reed_image.sample.pictures` says what can be set.

        Args:
            num: How many.
            classes: Names or numbers of classes, taken in turn; none at all takes every class in turn.
            settings: `seed`, `steps`, `sampler`, `scale` of guidance, and the others.
        """
        from reed_image.sample import pictures  # which draws with this class

        return pictures(self, num, classes, **settings)


def load(weights: str | Path, device: Any = "cpu") -> ImageModel:
    """A model from a folder that `reed_core.hub.save_pretrained` wrote.

    Args:
        weights: The folder.
        device: Where the model is to run.

    Returns:
        The model in evaluation mode, in float32.

    Raises:
        InputError: If the folder does not hold one.
    """
    return from_pretrained(ImageModel, Path(weights)).to(device)
