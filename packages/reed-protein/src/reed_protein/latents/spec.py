"""One table `[[latents]]` of a recipe: which encoder, read where, with which head and weight.

kind            level          head           values
identity        token          categorical    tables, made from the batch
environment     token          vMF            "
contact         pair           categorical    "
3di             token          categorical    a FASTA file, held in memory
esm             token          vMF, Gaussian  a cache that `reed-protein featurize` writes
esm_attention   pair           "              "
arrays          token, pair    "              "   (AlphaFold 3 embeddings and the like)
teacher         token, pair    "              "
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from reed_core.errors import InputError
from reed_core.head import Categorical, Gaussian, Head, VonMisesFisher
from reed_core.hub import CONFIG
from reed_core.latent import Latent
from reed_core.representation import Encoder
from reed_core.train.recipe import named_by_kind

from reed_protein.encoders import (
    ArrayEncoder,
    Contact,
    Environment,
    EsmAttention,
    EsmTokens,
    Identity,
    StructuralAlphabet,
    Teacher,
    load_esm2,
)
from reed_protein.encoders.esm2 import SIZES, Joining, downloaded
from reed_protein.network import NetworkConfig

Level = Literal["token", "pair"]
MARGIN = 8  # edges a cache holds beyond those of the network, for graphs of jittered coordinates


class _Spec(BaseModel):
    """What all kinds have in common.

    Attributes:
        tap: Module path in the network: `encoder.2` (node state), `decoder.1.message` (pair state).
        weight: Its weight in the loss.
        name: Its name in the log; by default its kind.
        hidden: Width of the projector's hidden layer; by default that of the network, half of it for pairs.
        layers: Linear layers of the projector.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    tap: str
    weight: float = Field(gt=0)
    name: str = ""
    hidden: int | None = Field(None, ge=1)
    layers: int = Field(2, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        return named_by_kind(values)

    @property
    def stored(self) -> bool:
        """Whether the values come from a cache."""
        return False

    @property
    def level(self) -> Level:
        """Token or pair."""
        return "token"


class TableSpec(_Spec):
    """`identity`, `environment` or `contact` (`reed_protein.encoders.tables`)."""

    kind: Literal["identity", "environment", "contact"]

    @property
    def level(self) -> Level:
        """Contacts are pairs."""
        return "pair" if self.kind == "contact" else "token"

    @property
    def likelihood(self) -> Head:
        """The head: categorical, but for the environment's vectors."""
        return VonMisesFisher() if self.kind == "environment" else Categorical()

    @property
    def dim_of(self) -> int:
        """Width of z, or number of classes."""
        return self.encoder(2).dim

    def encoder(self, k: int) -> Identity | Environment | Contact:
        """The encoder on a graph of k neighbours."""
        match self.kind:
            case "identity":
                return Identity()
            case "environment":
                return Environment(k)
            case "contact":
                return Contact(k)


class AlphabetSpec(_Spec):
    """3Di states of a FASTA file.

    Attributes:
        path: The file; relative to REED_DATA.
    """

    kind: Literal["3di"]
    path: str

    @property
    def likelihood(self) -> Head:
        """Categorical."""
        return Categorical()

    @property
    def dim_of(self) -> int:
        """Twenty classes."""
        return StructuralAlphabet.dim

    def encoder(self, k: int) -> Encoder:
        """The encoder; reads the file."""
        from reed_protein.recipe import data_path

        return StructuralAlphabet(data_path(self.path))


class _StoredSpec(_Spec):
    """What caches hold.

    Attributes:
        head: "cosine" (von Mises-Fisher) or "gaussian".
        kappa: Concentration of the first.
        sigma: Standard deviation of the second.
        format: How the cache stores them: float16, float32, int8 or pca-k (`reed_core.representation.format`).
    """

    head: Literal["cosine", "gaussian"] = "cosine"
    kappa: float = Field(1.0, gt=0)
    sigma: float = Field(1.0, gt=0)
    format: str = Field("float16", pattern=r"^(float16|float32|int8|pca-[1-9][0-9]*)$")

    @property
    def stored(self) -> bool:
        """A cache holds them."""
        return True

    @property
    def likelihood(self) -> Head:
        """The head."""
        return VonMisesFisher(self.kappa) if self.head == "cosine" else Gaussian(self.sigma)

    def parts(self, edges: int) -> dict[str, str]:
        """Every setting that the values depend on, by name; how they are stored and used in training is none of them.

        Args:
            edges: Edges per residue of a pair latent.
        """
        use = {"tap", "weight", "name", "hidden", "layers", "head", "kappa", "sigma", "format"}
        values = {key: value for key, value in self.model_dump(mode="json").items() if key not in use}
        values["edges"] = edges if self.level == "pair" else None
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}

    def within_reach(self) -> bool:
        """Whether the encoder can be had without a download."""
        return True


class _EsmSpec(_StoredSpec):
    """What the two kinds of ESM-2 latents have in common.

    Attributes:
        model: Name of the model, as esm2_t33_650M_UR50D.
        path: A checkpoint, or a folder with MODEL.pt; None downloads it.
        chains: How the chains of a complex are read (`reed_protein.encoders.esm2`).
        dim: Width of z; needed only for a model that is none of the released ones.
    """

    model: str = "esm2_t33_650M_UR50D"
    path: str | None = None
    chains: Joining = "separate"
    dim: int | None = Field(None, ge=1)

    def within_reach(self) -> bool:
        """Whether the checkpoint was given, or is in torch's hub folder."""
        return self.path is not None or downloaded(self.model).is_file()


class EsmSpec(_EsmSpec):
    """States of a layer of ESM-2.

    Attributes:
        layer: Which layer; None takes the last.
    """

    kind: Literal["esm"]
    layer: int | None = Field(None, ge=0)

    @property
    def dim_of(self) -> int:
        """Width of the model."""
        return self.dim or _size(self.model).width

    def encoder(self, k: int) -> Encoder:
        """The encoder; loads the model."""
        return EsmTokens(load_esm2(self.model, _path(self.path)), self.layer, self.chains)


class EsmAttentionSpec(_EsmSpec):
    """Attention maps of ESM-2 on the edges of the graph.

    Attributes:
        maps: Layers whose maps are taken, from 1; None takes all (660 maps of the 650M model).
    """

    kind: Literal["esm_attention"]
    maps: tuple[int, ...] | None = None

    @property
    def level(self) -> Level:
        """Pair."""
        return "pair"

    @property
    def dim_of(self) -> int:
        """Layers times heads."""
        if self.dim is not None:
            return self.dim
        size = _size(self.model)
        return size.heads * (size.layers if self.maps is None else len(self.maps))

    def encoder(self, k: int) -> Encoder:
        """The encoder; loads the model."""
        return EsmAttention(load_esm2(self.model, _path(self.path)), k, self.maps, self.chains)


class ArraySpec(_StoredSpec):
    """Arrays on disk (`reed_protein.encoders.arrays`).

    Attributes:
        pattern: Path of a chain's file, with {id}.
        key: The array in it.
        dim: Its width.
        shape: "token" for [L, d], "pair" for [L, L, d].
        rows: Which residues its rows belong to.
        version: Change it when the files change.
    """

    kind: Literal["arrays"]
    pattern: str
    key: str
    dim: int = Field(ge=1)
    shape: Level = "token"
    rows: Literal["resolved", "known", "sequence"] = "resolved"
    version: str = ""

    @property
    def level(self) -> Level:
        """As `shape` says."""
        return self.shape

    @property
    def dim_of(self) -> int:
        """As `dim` says."""
        return self.dim

    def encoder(self, k: int) -> Encoder:
        """The encoder."""
        return ArrayEncoder(
            self.pattern,
            self.key,
            self.dim,
            self.shape,
            self.rows,
            k if self.shape == "pair" else 0,
            version=self.version,
        )


class TeacherSpec(_StoredSpec):
    """A state of a trained network of ours on the clean sequence.

    Attributes:
        weights: A folder of weights; "bundled" for those that come with the package.
        read: The module that is read: "decoder.2", or for pairs "decoder.1.message".
    """

    kind: Literal["teacher"]
    weights: str = "bundled"
    read: str = "decoder.2"

    @property
    def level(self) -> Level:
        """A message is a pair state."""
        return "pair" if self.read.endswith(".message") else "token"

    @property
    def dim_of(self) -> int:
        """The width that the configuration of the weights names."""
        path = weights_folder(self.weights) / CONFIG
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["model"]["width"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"no weights of a teacher in {path.parent} ({error}); give a folder of weights") from error

    def parts(self, edges: int) -> dict[str, str]:
        """With the hash of the weights, which their configuration holds, in place of the folder's name."""
        assert self.dim_of  # or there are no weights, which it says in one line
        held = (weights_folder(self.weights) / CONFIG).read_bytes()
        return {**super().parts(edges), "weights": hashlib.sha256(held).hexdigest()}

    def encoder(self, k: int) -> Encoder:
        """The encoder; loads the weights."""
        pair = self.level == "pair"
        return Teacher.load(weights_folder(self.weights), self.read, self.level, k if pair else 0)


StoredSpec = EsmSpec | EsmAttentionSpec | ArraySpec | TeacherSpec
LatentSpec = Annotated[
    TableSpec | AlphabetSpec | EsmSpec | EsmAttentionSpec | ArraySpec | TeacherSpec, Field(discriminator="kind")
]


def build_latents(specs: Sequence[LatentSpec], config: NetworkConfig) -> list[Latent]:
    """The latents of a recipe, as an objective takes them."""
    latents = []
    for spec in specs:
        latents.append(
            Latent(
                spec.name,
                spec.tap,
                config.width,
                spec.dim_of,
                spec.likelihood,
                spec.level,
                spec.weight,
                hidden=spec.hidden or (config.width if spec.level == "token" else config.width // 2),
                layers=spec.layers,
            )
        )
    return latents


def weights_folder(name: str) -> Path:
    """A folder of weights; "bundled" names those that come with the package."""
    from reed_protein.design import BUNDLED

    return BUNDLED if name == "bundled" else Path(name)


def _size(model: str) -> Any:
    if model not in SIZES:
        raise InputError(f"'{model}' is no released ESM-2 model ({', '.join(SIZES)}); give dim, and path, for your own")
    return SIZES[model]


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
