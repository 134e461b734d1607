"""A training recipe: data, network, latents and trainer in one typed configuration, read by `reed-protein train`."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from reed_core.errors import InputError
from reed_core.train.config import TrainConfig

from reed_protein.network import NetworkConfig

DEFAULT_DATA = "../shared/data"


class LatentConfig(BaseModel):
    """One latent of `reed_protein.latents` and where it is read.

    Attributes:
        kind: Which latent.
        tap: Module path in the network: `encoder.2` (node state), `decoder.1.message` (pair state).
        weight: Its weight in the loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["identity", "environment", "contact"]
    tap: str
    weight: float = Field(gt=0)


class Recipe(BaseModel):
    """Everything that makes a run.

    Attributes:
        train_set: A `.npz` of chains; relative to the folder REED_DATA (default ../shared/data).
        valid_set: The same, for choosing; never trained on.
        batch_residues: Residues in a batch, padding included.
        jitter: Standard deviation of the coordinate noise, angstrom.
        time_weight: Weight of the denoising loss over time, "elbo" or "flat" (`reed_core.process.masked`).
        network: Sizes.
        latents: Latents; none trains without guidance.
        denoising_warmup: Chains over which the denoising weight b(n) rises from 0 to 1.
        alignment_end: Chains at which the alignment weight a(n) has fallen to 0; None keeps it at 1.
        train: The trainer's configuration; samples are chains.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_set: str = "protein/backbones_train.npz"
    valid_set: str = "protein/backbones_valid.npz"
    batch_residues: int = Field(1500, ge=1)
    jitter: float = Field(0.1, ge=0)
    time_weight: Literal["elbo", "flat"] = "flat"
    network: NetworkConfig = NetworkConfig()
    latents: tuple[LatentConfig, ...] = ()
    denoising_warmup: float = Field(0.0, ge=0)
    alignment_end: float | None = Field(None, gt=0)
    train: TrainConfig


def data_path(name: str) -> Path:
    """Where a data file lies: as given if that exists, else under REED_DATA.

    Raises:
        InputError: If it is in neither place.
    """
    root = Path(os.environ.get("REED_DATA", DEFAULT_DATA))
    for path in (Path(name), root / name):
        if path.is_file():
            return path
    raise InputError(f"no data file {name}, neither here nor in {root}; set REED_DATA to the folder that holds it")
