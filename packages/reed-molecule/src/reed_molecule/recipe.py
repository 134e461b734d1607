"""A training recipe: data, process, network and trainer in one typed configuration, read by `reed-molecule train`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from reed_core.train.config import TrainConfig
from reed_core.train.recipe import check_controls, remaining
from reed_core.train.recipe import recipe_path as find_recipe

from reed_molecule.alignment import Alignment
from reed_molecule.latents.spec import LatentSpec
from reed_molecule.network import NetworkConfig
from reed_molecule.process import Discrete

RECIPES = Path(__file__).parent / "recipes"


class Recipe(BaseModel):
    """Everything that makes a run.

    Attributes:
        data: A prepared file of molecules; its split `train` is trained on, its split `valid` only measured.
        batch_pairs: Largest b n^2 of a batch of b molecules of up to n atoms.
        scale: Angstrom per model unit; None takes the spread of the training coordinates.
        discrete: Noise of types, charges and bonds: "uniform" or "masked".
        time_weight: Weight of the losses over time: "flat" or "elbo".
        weights: Weights of fields in the training loss (`coords`, `types`, `charges`, `bonds`); `process.WEIGHTS` for
            those left out.
        conditions: Properties of the prepared file that the network is told.
        drop: Share of molecules whose properties are all hidden, as guidance needs; of several properties, each alone
            is hidden as often again, so that a part of them can be asked for.
        parts: Share of the molecules of which a part is given, clean (`cuts`), as `complete` needs it; 0 gives none.
        alignment: How the noise of the coordinates is coupled to each molecule: "none", "rotation", or "transport"
            (permutation, then rotation). What it costs: noise is no longer independent of the data, so the bound and
            the ancestral kernel do not belong to such a model; it is sampled by the flow of its coordinates
            (`reed_molecule.alignment`).
        init: Weights to start from: a folder, the name of bundled ones, or None for random ones.
        network: Sizes; its `types` and `charges` are taken from the data.
        latents: Latents; none trains without guidance.
        without: Names of latents to leave out, for an ablation.
        shuffle: The control: every molecule is taught the z of another one (`reed_molecule.latents.control`).
        cache: The folder of caches that `featurize` writes.
        denoising_warmup: Molecules over which the denoising weight b(n) rises from 0 to 1, with latents.
        alignment_end: Molecules at which the alignment weight a(n) has fallen to 0, with latents; None: never.
        curriculum_scope: What these scale: "loss", or "learning_rate" too (`reed_core.curriculum.Curriculum`).
        train: The trainer's configuration; samples are molecules.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    batch_pairs: int = Field(21_000, ge=1)
    scale: float | None = Field(None, gt=0)
    discrete: Discrete = "uniform"
    time_weight: Literal["flat", "elbo"] = "flat"
    weights: dict[Literal["coords", "types", "charges", "bonds"], float] = Field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    drop: float = Field(0.1, ge=0, lt=1)
    parts: float = Field(0.0, ge=0, le=1)
    alignment: Alignment = "none"
    init: str | None = None
    network: NetworkConfig = NetworkConfig()
    latents: tuple[LatentSpec, ...] = ()
    without: tuple[str, ...] = ()
    shuffle: bool = False
    cache: str = "cache"
    denoising_warmup: float = Field(0.0, ge=0)
    alignment_end: float | None = Field(None, gt=0)
    curriculum_scope: Literal["loss", "learning_rate"] = "loss"
    train: TrainConfig

    @model_validator(mode="after")
    def _checked(self) -> "Recipe":
        check_controls(self.latents, self.without, self.shuffle)
        if len(set(self.conditions)) != len(self.conditions):
            raise ValueError(f"conditions {', '.join(self.conditions)}: expected each name once")
        if self.alignment != "none" and self.time_weight == "elbo":
            raise ValueError('time_weight "elbo" weighs by a bound that aligned noise has not; expected "flat"')
        if self.parts and self.alignment != "none":
            raise ValueError("a given part fixes where its atoms go, aligned noise turns it away; set one of the two")
        return self

    @property
    def active(self) -> tuple[LatentSpec, ...]:
        """The latents that are trained with."""
        return remaining(self.latents, self.without)


def recipe_path(name: str) -> Path:
    """A recipe file: a path, or the name of one in the package.

    Raises:
        InputError: If there is neither.
    """
    return find_recipe(name, RECIPES)
