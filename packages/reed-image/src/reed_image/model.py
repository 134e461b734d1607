"""An image diffusion model as it is kept on disk: the network, its process, and what its numbers mean as images.

What it draws are the normalised latents of an autoencoder, which the configuration names with shift and scale, or
without one pixels in [-1, 1]. It may read text, be told latents that it draws itself (`reed_image.told`), or diffuse a
second field beside x (`reed_image.latents.field`); the configuration says so, and what that takes is in the weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from reed_core.errors import InputError
from reed_core.hub import from_pretrained
from reed_core.inject import Injected
from reed_core.latent import Revealed
from reed_core.process import Interpolant, Process, Product
from reed_core.process.clock import Window
from reed_core.state import State
from torch import Tensor, nn

from reed_image.autoencoder import AutoencoderSpec
from reed_image.bundled import weights_folder
from reed_image.encoders.reader import ReaderSpec
from reed_image.latents.field import Projection
from reed_image.network import Condition, SiT, SiTConfig
from reed_image.shift import Shifted
from reed_image.told import ToldSpec, generators, injected


class JointSpec(BaseModel):
    """A latent that diffuses beside x (ReDi, arXiv 2504.16064).

    Attributes:
        name: Its name.
        dim: Width of z, before its components are taken.
        window: Diffusion times between which it is noised.
        weight: Weight of its loss beside that of x.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    dim: int = Field(ge=1)
    window: tuple[float, float] = (0.0, 1.0)
    weight: float = 0.5


class ModelConfig(BaseModel):
    """Everything that a model is beside its weights.

    Attributes:
        kind: The family of the weights; only this one exists.
        network: Sizes of the network.
        path: Path between data and noise.
        prediction: What the network predicts.
        autoencoder: What made the latents; None for pixels in [-1, 1].
        class_names: A name for every class, or none at all.
        time_shift: More than 1: times are drawn, and steps are taken, nearer to noise (`reed_image.shift`).
        text: What reads the texts it is told; None for a network that reads none.
        told: Latents that it is told.
        joint: The latent that diffuses beside x.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["image"] = "image"
    network: SiTConfig = SiTConfig()
    path: Literal["linear", "trig"] = "linear"
    prediction: Literal["v", "eps", "x0"] = "v"
    autoencoder: AutoencoderSpec | None = None
    class_names: tuple[str, ...] = ()
    time_shift: float = Field(1.0, gt=0)
    text: ReaderSpec | None = None
    told: tuple[ToldSpec, ...] = ()
    joint: JointSpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.class_names and len(self.class_names) != self.network.classes:
            raise ValueError(f"{len(self.class_names)} class names for {self.network.classes} classes")
        if self.autoencoder is not None:
            counts = {self.autoencoder.channels, len(self.autoencoder.shift), len(self.autoencoder.scale)}
            if counts != {self.network.channels}:
                raise ValueError(f"the network has {self.network.channels} channels, its autoencoder {counts}")
        if (self.joint is None) != (self.network.joint == 0):
            raise ValueError("a second field needs both the network's `joint` and the latent it is of")
        if self.joint is not None and (self.told or self.time_shift != 1):
            raise ValueError("a joint latent goes with neither explicit ones nor a time shift")
        return self


class ImageModel(nn.Module):
    """A network with its process and the meaning of its data; called like the network.

    The null condition of guidance is None: `ClassifierFree(model, None, scale)`.

    Args:
        config: What it is.
    """

    Config = ModelConfig
    adapters: nn.ModuleList
    generators: nn.ModuleDict
    projection: Projection

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = SiT(config.network)
        self._injected: tuple[Injected, ...] = ()
        if config.told:
            told = injected(self.network, config.told)
            self._injected = (told,)  # in a tuple: the network is registered once
            self.adapters = told.adapters
            self.generators = generators(config.told, config.network)
        if config.joint is not None:
            self.projection = Projection(config.joint.dim, config.network.joint)

    @property
    def process(self) -> Process:
        """The forward process, with the flat loss: of x, or of both fields."""
        config = self.config
        alone: Interpolant = Interpolant(path=config.path, prediction=config.prediction)
        if config.time_shift != 1:
            alone = Shifted(path=config.path, prediction=config.prediction, shift=config.time_shift)
        if config.joint is None:
            return alone
        clocks = {} if config.joint.window == (0.0, 1.0) else {"z": Window(*config.joint.window)}
        return Product({"x": alone, "z": alone}, clocks, {"z": config.joint.weight})

    @property
    def entered(self) -> dict[str, str]:
        """Where each latent that is told entered in the last forward; `reed_core.denoiser.Tap` asks it."""
        return self._injected[0].entered if self._injected else {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one x."""
        return self.config.network.channels, self.config.network.size, self.config.network.size

    def forward(
        self, x_t: State, t: Float[Tensor, "b"], c: Condition | None = None, z: Mapping[str, Revealed] | None = None
    ) -> State:
        """As `SiT.forward`, told the latents in z.

        Raises:
            InputError: If z is given to a model that is told none.
        """
        if self._injected:
            return self._injected[0](x_t, t, c, z)
        if z:
            raise InputError(f"the model is told no latents, got {', '.join(z)}; leave them out")
        return self.network(x_t, t, c)

    def sample(self, num: int = 1, classes: Sequence[str | int] = (), **settings: Any) -> Float[Tensor, "n 3 H W"]:
        """Draws pictures in [0, 1]; `reed_image.sample.pictures` says what can be set.

        Args:
            num: How many.
            classes: Names or numbers of classes, taken in turn; none at all takes every class in turn.
            settings: `texts`, `seed`, `steps`, `sampler`, `scale` of guidance, and the others.
        """
        from reed_image.sample import pictures  # which draws with this class

        return pictures(self, num, classes, **settings)


def load(weights: str | Path, device: Any = "cpu") -> ImageModel:
    """A model from trained weights.

    Args:
        weights: The folder `weights` of a run, or the name of weights that come with the package, as "cifar10".
        device: Where the model is to run.

    Returns:
        The model in evaluation mode, in float32.

    Raises:
        InputError: If there are no such weights, or they cannot be read.
    """
    return from_pretrained(ImageModel, weights_folder(weights)).to(device)
