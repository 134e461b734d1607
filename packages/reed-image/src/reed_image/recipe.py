"""A training recipe: data, network, latents and trainer in one typed configuration, read by `reed-image train`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from reed_core.curriculum import Curriculum, Schedule
from reed_core.train.config import TrainConfig
from reed_core.train.recipe import check_controls, remaining
from reed_core.train.recipe import recipe_path as find_recipe

from reed_image.data import Prepared
from reed_image.latents import LatentSpec
from reed_image.latents.text import TextCondition
from reed_image.network import SIZES, SiTConfig
from reed_image.network.config import preset

RECIPES = Path(__file__).parent / "recipes"


class NetworkSpec(BaseModel):
    """Sizes of the network; side and channels of x, and classes, are taken from the data.

    Attributes:
        preset: Depth, width and heads of a published size: "S", "B", "L" or "XL".
        patch: Side of a patch.
        width: In place of the preset's.
        depth: Likewise.
        heads: Likewise.
        mlp_ratio: Width of a hidden layer of a block's MLP, in widths.
        qk_norm: As in `SiTConfig`.
        rope: As in `SiTConfig`.
        classes: Whether the network is told the class, where pictures have one; by default, unless it is told a text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["S", "B", "L", "XL"] = "S"
    patch: int = Field(2, ge=1)
    width: int | None = Field(None, ge=8)
    depth: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    qk_norm: bool = False
    rope: bool = False
    classes: bool | None = None

    def of(self, prepared: Prepared, text_dim: int = 0) -> SiTConfig:
        """The network for some pictures.

        Args:
            prepared: The pictures.
            text_dim: Width of the tokens of the text it is told; 0 without.

        Raises:
            InputError: If the sizes do not fit together, or the patch does not divide the side of the latents.
        """
        manifest = prepared.manifest
        own = {"width": self.width, "depth": self.depth, "heads": self.heads}
        sizes = {**SIZES[self.preset]._asdict(), **{name: value for name, value in own.items() if value is not None}}
        known = max(len(manifest.classes), int(prepared.labels.max()) + 1)
        return preset(
            self.preset,
            self.patch,
            **sizes,
            size=manifest.autoencoder.side(manifest.recipe.size),
            channels=manifest.autoencoder.channels,
            classes=known if (not text_dim if self.classes is None else self.classes) else 0,
            text_dim=text_dim,
            mlp_ratio=self.mlp_ratio,
            qk_norm=self.qk_norm,
            rope=self.rope,
        )


class CurriculumSpec(BaseModel):
    """a(n) and b(n) over pictures seen (`reed_core.curriculum`).

    Attributes:
        denoising_warmup: Pictures over which the denoising weight b(n) rises from 0 to 1.
        alignment: How the alignment weight a(n) ends: "constant" (never), "linear", "cosine", or "stop".
        alignment_end: Pictures at which it is 0.
        scope: What they scale: "loss", or "learning_rate" as well.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    denoising_warmup: float = Field(0.0, ge=0)
    alignment: Literal["constant", "linear", "cosine", "stop"] = "constant"
    alignment_end: float | None = Field(None, gt=0)
    scope: Literal["loss", "learning_rate"] = "loss"

    @model_validator(mode="after")
    def _ends(self) -> "CurriculumSpec":
        if (self.alignment == "constant") != (self.alignment_end is None):
            raise ValueError("alignment_end belongs to linear, cosine and stop, and each of them needs it")
        return self

    def curriculum(self) -> Curriculum:
        """As an objective takes it."""
        fading = Schedule(decay=self.alignment, end=self.alignment_end)
        return Curriculum(fading, Schedule(warmup=self.denoising_warmup), self.scope)


class SamplingSpec(BaseModel):
    """The grid that a run draws every `train.sample_every` pictures, and at its end.

    Attributes:
        num: Pictures; 0 draws none, and then no autoencoder is needed.
        texts: What they are to show, in a run with [text]; none at all: captions of the data.
        steps: Steps of each.
        sampler: "euler", "heun" or "sde".
        cfg: Scale of classifier-free guidance; 1 is none.
        seed: Of the noise: the same pictures at every stage of the run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num: int = Field(40, ge=0)
    texts: tuple[str, ...] = ()
    steps: int = Field(25, ge=1)
    sampler: Literal["euler", "heun", "sde"] = "heun"
    cfg: float = Field(1.0, ge=0)
    seed: int = 0


class Recipe(BaseModel):
    """Everything that makes a run.

    Attributes:
        data: A folder that `reed-image prepare` wrote.
        valid: Another one, never trained on, whose denoising loss is measured; None measures nothing.
        batch_size: Pictures of a step, over all processes.
        drop: Probability that a picture's class and text are withheld, as guidance needs.
        path: Path between data and noise.
        prediction: What the network predicts.
        time_shift: 1, a factor, or "auto": by the dimension of x, as tokens of an encoder need (`reed_image.shift`).
        network: Sizes.
        text: What the network is told in words, or None.
        autoencoder: What decodes the samples: a name as `prepare` takes it; None: what made the latents.
        init: Weights to start from: a folder, a name of weights in the package, or None for random ones.
        latents: Latents; none trains without guidance.
        without: Names of latents to leave out, for an ablation.
        shuffle: The control: every picture is taught the z of another one.
        cache: The folder of caches that `featurize` writes.
        curriculum: How denoising and alignment weigh in the course of the run; only with latents.
        sampling: The grids that the run draws.
        train: The trainer's configuration; samples are pictures.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    valid: str | None = None
    batch_size: int = Field(256, ge=1)
    drop: float = Field(0.1, ge=0, lt=1)
    path: Literal["linear", "trig"] = "linear"
    prediction: Literal["v", "eps", "x0"] = "v"
    time_shift: Annotated[float, Field(gt=0)] | Literal["auto"] = 1.0
    network: NetworkSpec = NetworkSpec()
    text: TextCondition | None = None
    autoencoder: str | None = None
    init: str | None = None
    latents: tuple[LatentSpec, ...] = ()
    without: tuple[str, ...] = ()
    shuffle: bool = False
    cache: str = "cache"
    curriculum: CurriculumSpec = CurriculumSpec()
    sampling: SamplingSpec = SamplingSpec()
    train: TrainConfig

    @model_validator(mode="after")
    def _checked(self) -> "Recipe":
        check_controls(self.latents, self.without if self.latents else (), self.shuffle)
        if len([spec for spec in self.active if spec.injection == "joint"]) > 1:
            raise ValueError("two latents are joint; one field at most diffuses beside the picture")
        if self.joint is not None and (self.told or self.time_shift != 1):
            raise ValueError("a joint latent goes with neither explicit ones nor a time_shift")
        if self.sampling.texts and self.text is None:
            raise ValueError("sampling.texts belongs to a recipe with [text]")
        return self

    @property
    def active(self) -> tuple[LatentSpec, ...]:
        """The latents that are trained with."""
        return remaining(self.latents, self.without)

    @property
    def scored(self) -> tuple[LatentSpec, ...]:
        """Those that the objective has a head or a generator for: all but the joint one."""
        return tuple(spec for spec in self.active if spec.injection != "joint")

    @property
    def told(self) -> tuple[LatentSpec, ...]:
        """Those that the network is told."""
        return tuple(spec for spec in self.active if spec.injection == "explicit")

    @property
    def joint(self) -> LatentSpec | None:
        """The one that diffuses beside the picture."""
        return next((spec for spec in self.active if spec.injection == "joint"), None)


def recipe_path(name: str) -> Path:
    """A recipe file: a path, or the name of one in the package.

    Raises:
        InputError: If there is neither.
    """
    return find_recipe(name, RECIPES)
