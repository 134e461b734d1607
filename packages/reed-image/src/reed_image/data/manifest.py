"""What a folder of prepared pictures says of itself: the file `manifest.json`, written last."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from reed_image.autoencoder.model import AutoencoderSpec
from reed_image.data.crop import Crop

FORMAT, MANIFEST, PROGRESS = 1, "manifest.json", "progress.json"
Stored = Literal["float16", "float32"]


class Recipe(BaseModel):
    """What determines every byte of a prepared folder; two with the same recipe are the same.

    Attributes:
        format: Version of the layout.
        source: Fingerprint of the source.
        size: Side of the pictures, in pixels.
        crop: How a picture becomes square.
        flips: Whether a mirrored copy of each picture follows it.
        images: Whether the pictures are kept beside the latents.
        dtype: Type of the stored latents.
        smallest: Shortest side that was accepted, in pixels.
        limit: At most this many pictures of the source, or None.
        batch: Pictures encoded at once.
        fit: Pictures whose latents set the normalisation; 0: that of the autoencoder.
        autoencoder: The autoencoder before any fitting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    source: str
    size: int
    crop: Crop
    flips: bool
    images: bool
    dtype: Stored
    smallest: int
    limit: int | None
    batch: int
    fit: int
    autoencoder: AutoencoderSpec


class File(BaseModel):
    """One file: its size in bytes and its SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: str


class PreparedManifest(BaseModel):
    """The file `manifest.json`.

    Attributes:
        recipe: What determined the content.
        description: The source, for a person.
        autoencoder: What decodes the latents: the recipe's, with the normalisation in force.
        classes: Names of the classes; empty without.
        pictures: Number of pictures; latents are twice as many with flips.
        skipped: Pictures of the source that are not there, by reason; their names are in `skipped.tsv`.
        mean: Of the stored latents, per channel.
        std: Likewise; of draws, where there is a deviation.
        files: The files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Recipe
    description: str
    autoencoder: AutoencoderSpec
    classes: tuple[str, ...]
    pictures: int
    skipped: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: dict[str, File]


class Progress(BaseModel):
    """How far an interrupted preparation came: the file `progress.json`.

    Attributes:
        recipe: What it prepares.
        autoencoder: The autoencoder, with the normalisation in force.
        position: Pictures of the source that are dealt with.
        pictures: Pictures written.
        skipped: Pictures left out, by reason.
        first: Per channel, the sum of the latents.
        second: Likewise, of their squares.
        names: Bytes of `names.txt`.
        skipped_names: Bytes of `skipped.tsv`.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: Recipe
    autoencoder: AutoencoderSpec
    position: int = 0
    pictures: int = 0
    skipped: dict[str, int] = {}
    first: list[float]
    second: list[float]
    names: int = 0
    skipped_names: int = 0
