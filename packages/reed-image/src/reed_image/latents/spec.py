"""One table `[[latents]]` of a recipe: which encoder, read where, with which head and weight.

kind            level           made by
timm            token, global   any model of timm: a transformer's tokens, a convolutional network's map
mobilenet_v2    token, global   MobileNetV2 from a file, as a timm state dict
resnet20        token, global   ResNet-20 for 32-pixel pictures, from a file
layout          global          edges and colours: a second modality without weights
text            global          a language model's mean state over the caption of the picture
arrays          token, global   rows that were computed elsewhere, by the name of the picture

Tokens lie on the grid of the network that is guided. Every value comes from a cache that `reed-image featurize` writes.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from reed_core.errors import InputError
from reed_core.head import Gaussian, Head, VonMisesFisher
from reed_core.latent import Latent
from reed_core.representation import Encoder
from reed_core.reveal import Cutoff, RevealDensity, Uniform
from reed_core.train.recipe import named_by_kind

from reed_image.network import SiTConfig

DEFAULT_DATA = "../shared/data"
Level = Literal["token", "global"]
_ASKED = ("tap", "weight", "name", "head", "kappa", "sigma", "reveal", "hidden", "layers", "format")
_USE = frozenset((*_ASKED, "injection", "into", "components", "window"))


class _Spec(BaseModel):
    """What all kinds have in common.

    Attributes:
        injection: "implicit": the network is asked for it. "explicit": the network is told it, and a generator of
            its own draws it when pictures are drawn; of level global. "joint": it diffuses beside the picture; one of
            them at most.
        tap: Module path in the network: `blocks.7` is the eighth block. What the head reads, or the generator of an
            explicit one, at pure noise: what the network makes of class and text.
        weight: Its weight in the loss: of the head, of the generator, or of the field.
        name: Its name in the log; by default its kind.
        head: "cosine" (von Mises-Fisher) or "gaussian".
        kappa: Concentration of the first.
        sigma: Standard deviation of the second.
        reveal: Ends of the interval of diffusion time in which it is revealed, uniformly.
        hidden: Width of the projector's hidden layers, or of the generator; by default that of the network.
        layers: Linear layers of the projector, or blocks of the generator.
        into: Of an explicit one: the module whose output it scales and shifts. "time" is the conditioning vector.
        components: Of a joint one: how many of its principal components diffuse.
        window: Of a joint one: the diffusion times between which it is noised; (0.5, 1) has it done when the picture
            is half drawn.
        format: How the cache stores it: float16, float32, int8 or pca-k (`reed_core.representation.format`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    injection: Literal["implicit", "explicit", "joint"] = "implicit"
    tap: str = ""
    weight: float = Field(0.5, gt=0)
    name: str = ""
    head: Literal["cosine", "gaussian"] = "cosine"
    kappa: float = Field(1.0, gt=0)
    sigma: float = Field(1.0, gt=0)
    reveal: tuple[float, float] = (0.0, 1.0)
    hidden: int | None = Field(None, ge=1)
    layers: int = Field(3, ge=1)
    into: str = "time"
    components: int = Field(8, ge=1)
    window: tuple[float, float] = (0.0, 1.0)
    format: str = Field("float16", pattern=r"^(float16|float32|int8|pca-[1-9][0-9]*)$")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        return named_by_kind(values)

    @model_validator(mode="after")
    def _ordered(self) -> "_Spec":
        if not 0.0 <= self.reveal[0] < self.reveal[1] <= 1.0:
            raise ValueError(f"reveal = {list(self.reveal)}: expected two times, 0 <= low < high <= 1")
        if not 0.0 <= self.window[0] < self.window[1] <= 1.0:
            raise ValueError(f"window = {list(self.window)}: expected two times, 0 <= low < high <= 1")
        if not self.tap and self.injection != "joint":
            raise ValueError("tap is missing: the module that is read, as blocks.3")
        if self.injection != "implicit" and self.reveal != (0.0, 1.0):
            raise ValueError(f"reveal belongs to implicit latents; an {self.injection} one is there from the start")
        return self

    @property
    def likelihood(self) -> Head:
        """The head."""
        return VonMisesFisher(self.kappa) if self.head == "cosine" else Gaussian(self.sigma)

    @property
    def density(self) -> RevealDensity:
        """The reveal-time density."""
        return Uniform() if self.reveal == (0.0, 1.0) else Cutoff(*self.reveal)

    def parts(self, grid: int) -> dict[str, str]:
        """Every setting that the values depend on, by name; how they are stored and used in training is none of them.

        Args:
            grid: Tokens along a side.
        """
        values = {key: value for key, value in self.model_dump(mode="json").items() if key not in _USE}
        if values.get("level") == "token":
            values["grid"] = grid
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


class TimmSpec(_Spec):
    """Any model of timm.

    Attributes:
        model: Its name, as `timm.list_models()` has it.
        weights: "pretrained" (downloaded once), "random" (a control), or a safetensors file.
        level: "token", or "global": one vector.
        at: Which block or stage is read; negative ones from the end.
        pool: What the one vector is: the mean of the tokens, or the class token.
        seed: Of random weights.
        settings: Further arguments of `timm.create_model`.
    """

    kind: Literal["timm"]
    model: str
    weights: str = "pretrained"
    level: Level = "token"
    at: int = -1
    pool: Literal["mean", "class"] = "mean"
    seed: int = 0
    settings: dict[str, JsonValue] = Field(default_factory=dict)

    def encoder(self, grid: int) -> Encoder:
        """The encoder; loads its weights."""
        from reed_image.encoders import timm_encoder

        found: Any = self.weights if self.weights in ("pretrained", "random") else data_path(self.weights)
        own = {"at": self.at, "level": self.level, "pool": self.pool, "seed": self.seed}
        form: dict[str, Any] = {**self.settings, **own}
        return timm_encoder(self.model, grid=grid, weights=found, **form)


class _FileSpec(_Spec):
    """A network of a file.

    Attributes:
        weights: The safetensors file; as given, or below REED_DATA.
        level: "token" or "global".
    """

    weights: str
    level: Level = "token"


class MobileNetSpec(_FileSpec):
    """MobileNetV2.

    Attributes:
        at: Which stage: 0 to 4, of stride 2, 4, 8, 16, 32.
    """

    kind: Literal["mobilenet_v2"]
    at: int = -1

    def encoder(self, grid: int) -> Encoder:
        """The encoder; reads the file."""
        from reed_image.encoders import mobilenet_v2

        return mobilenet_v2(data_path(self.weights), grid=grid, at=self.at, level=self.level)


class ResNetSpec(_FileSpec):
    """ResNet-20.

    Attributes:
        at: Which stage: 0, 1 or 2.
    """

    kind: Literal["resnet20"]
    at: int = 2

    def encoder(self, grid: int) -> Encoder:
        """The encoder; reads the file."""
        from reed_image.encoders import resnet20

        return resnet20(data_path(self.weights), grid=grid, at=self.at, level=self.level)


class LayoutSpec(_Spec):
    """Edges and colours of the picture."""

    kind: Literal["layout"]

    def encoder(self, grid: int) -> Encoder:
        """The encoder."""
        from reed_image.encoders import Layout

        return Layout()


class TextSpec(_Spec):
    """A language model's state over the caption.

    Attributes:
        model: A folder, or "OWNER/NAME", as transformers loads it.
        captions: The file of captions, .jsonl or .tsv.
        layer: Which hidden states: 0 are the embeddings, -1 the last.
        see: Whether the model sees the picture too.
        prompt: The text, with {caption} where the caption goes.
        partial: Whether pictures may lack a caption.
    """

    kind: Literal["text"]
    model: str
    captions: str
    layer: int = -1
    see: bool = False
    prompt: str = "{caption}"
    partial: bool = False

    def encoder(self, grid: int) -> Encoder:
        """The encoder; loads the model."""
        from reed_image.encoders import load_text_encoder, read_captions

        options: dict[str, Any] = {"layer": self.layer, "see": self.see, "prompt": self.prompt}
        return load_text_encoder(self.model, read_captions(data_path(self.captions)), partial=self.partial, **options)


class ArraySpec(_Spec):
    """Rows that were computed elsewhere.

    Attributes:
        array: The `.npy` file.
        names: The file with the name of each row.
        partial: Whether pictures may lack a row.
    """

    kind: Literal["arrays"]
    array: str
    names: str
    partial: bool = False

    def encoder(self, grid: int) -> Encoder:
        """The table; maps the file."""
        from reed_image.encoders import ArrayEncoder

        found = ArrayEncoder(data_path(self.array), data_path(self.names), partial=self.partial)
        if found.level == "token" and found.values.shape[1] != grid**2:
            raise InputError(
                f"{self.array} has {found.values.shape[1]} tokens for each picture, the network {grid} x {grid}; "
                "give as many"
            )
        return found


LatentSpec = Annotated[
    TimmSpec | MobileNetSpec | ResNetSpec | LayoutSpec | TextSpec | ArraySpec, Field(discriminator="kind")
]
KINDS = ("timm", "mobilenet_v2", "resnet20", "layout", "text", "arrays")


def outline(spec: LatentSpec, grid: int) -> Encoder:
    """An encoder of the form of a latent's, which need not know anything: enough to measure what training costs.

    Args:
        spec: The latent.
        grid: Tokens along a side.
    """
    return spec.model_copy(update={"weights": "random"}).encoder(grid) if spec.kind == "timm" else spec.encoder(grid)


def data_path(name: str) -> Path:
    """Where a file lies: as given if that exists, else under the folder REED_DATA (default ../shared/data).

    Raises:
        InputError: If it is in neither place.
    """
    root = Path(os.environ.get("REED_DATA", DEFAULT_DATA))
    for path in (Path(name), root / name):
        if path.is_file():
            return path
    raise InputError(f"no file {name}, neither here nor in {root}; set REED_DATA to the folder that holds it")


def build_latents(
    specs: Sequence[LatentSpec], forms: Mapping[str, tuple[Level, int]], network: SiTConfig
) -> list[Latent]:
    """The latents of a recipe, as an objective takes them.

    Args:
        specs: The latents.
        forms: Level and width of the values of each, by name.
        network: The network that is asked.
    """
    return [
        Latent(
            spec.name,
            spec.tap,
            network.width,
            forms[spec.name][1],
            spec.likelihood,
            forms[spec.name][0],
            spec.weight,
            spec.density,
            hidden=spec.hidden or network.width,
            layers=spec.layers,
        )
        for spec in specs
    ]
