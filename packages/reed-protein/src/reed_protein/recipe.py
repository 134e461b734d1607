"""A training recipe: data, network, latents and trainer in one typed configuration, read by `reed-protein train`."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from reed_core.errors import InputError
from reed_core.train.config import TrainConfig
from reed_core.train.recipe import check_controls, remaining

from reed_protein.dataset import Chains, ChainSet
from reed_protein.latents.spec import LatentSpec
from reed_protein.layout_cath import CathLayout, read_cath
from reed_protein.layout_mpnn import MpnnChains, MpnnLayout
from reed_protein.network import NetworkConfig

DEFAULT_DATA = "../shared/data"
DataSpec = str | Annotated[MpnnLayout | CathLayout, Field(discriminator="layout")]


class Recipe(BaseModel):
    """Everything that makes a run.

    Attributes:
        train_set: A `.npz` of chains, or a table that names another layout (`layout_mpnn`, `layout_cath`); paths are
            relative to the folder REED_DATA (default ../shared/data).
        valid_set: The same, for choosing; never trained on. Of chains in clusters, the first of each is taken.
        batch_residues: Residues in a batch, padding included.
        jitter: Standard deviation of the coordinate noise, angstrom.
        time_weight: Weight of the denoising loss over time, "elbo" or "flat" (`reed_core.process.masked`).
        network: Sizes.
        init: Weights to start from: a folder, "bundled", or None for random ones.
        latents: Latents; none trains without guidance.
        without: Names of latents to leave out, for an ablation.
        shuffle: The control: every chain is taught the z of another one (`reed_protein.latents.control`).
        cache: The folder of caches that `featurize` writes.
        denoising_warmup: Chains over which the denoising weight b(n) rises from 0 to 1.
        alignment_end: Chains at which the alignment weight a(n) has fallen to 0; None keeps it at 1.
        curriculum_scope: What these scale: "loss", or "learning_rate" too (`reed_core.curriculum.Curriculum`).
        train: The trainer's configuration; samples are chains.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_set: DataSpec = "protein/backbones_train.npz"
    valid_set: DataSpec = "protein/backbones_valid.npz"
    batch_residues: int = Field(1500, ge=1)
    jitter: float = Field(0.1, ge=0)
    time_weight: Literal["elbo", "flat"] = "flat"
    network: NetworkConfig = NetworkConfig()
    init: str | None = None
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
        check_controls(self.latents, self.without if self.latents else (), self.shuffle)
        return self

    @property
    def active(self) -> tuple[LatentSpec, ...]:
        """The latents that are trained with."""
        return remaining(self.latents, self.without)


def data_path(name: str, folder: bool = False) -> Path:
    """Where a data file lies: as given if that exists, else under REED_DATA.

    Args:
        name: The file.
        folder: Look for a folder instead.

    Raises:
        InputError: If it is in neither place.
    """
    root = Path(os.environ.get("REED_DATA", DEFAULT_DATA))
    for path in (Path(name), root / name):
        if path.is_dir() if folder else path.is_file():
            return path
    kind = "folder" if folder else "file"
    raise InputError(f"no data {kind} {name}, neither here nor in {root}; set REED_DATA to the folder that holds it")


def open_chains(spec: DataSpec) -> Chains:
    """The chains that a recipe names.

    Raises:
        InputError: If they are missing, or of another layout.
    """
    if isinstance(spec, MpnnLayout):
        return MpnnChains(spec, data_path(spec.folder, folder=True))
    if isinstance(spec, CathLayout):
        return read_cath(spec, data_path(spec.path), None if spec.splits is None else data_path(spec.splits))
    return ChainSet.read(data_path(spec))
