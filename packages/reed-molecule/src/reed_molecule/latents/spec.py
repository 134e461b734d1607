"""One table `[[latents]]` of a recipe: which encoder, read where, with which head and weight.

kind          level           head             values
symmetry      token, global   vMF, Gaussian    symmetry functions of the geometry, made from the batch
pairs         pair            categorical      graph distances, bonds or distance bins, made from the batch
rdkit         global          vMF, Gaussian    descriptors or fingerprints; a cache, written by `featurize`
e3nn          token, global   "                states of an equivariant network, pretrained or random; a cache
bond_graph    token, global   "                states of a network of the bonds, pretrained or random; a cache
arrays        token, global   "                arrays on disk (Uni-Mol and the like); a cache
`symmetry` and `rdkit` are standardised on the training split. A global latent is asked of the mean of the tapped state
over the atoms that exist.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from reed_core.errors import InputError
from reed_core.head import Categorical, Gaussian, Head, VonMisesFisher
from reed_core.hub import CONFIG, from_pretrained
from reed_core.latent import Latent
from reed_core.representation import Encoder
from reed_core.train.recipe import named_by_kind

from reed_molecule.encoders.arrays import ArrayEncoder, Atoms
from reed_molecule.encoders.bond_graph import BondGraphConfig, BondGraphEncoder
from reed_molecule.encoders.clean import CleanMolecules
from reed_molecule.encoders.descriptors import RdkitEncoder
from reed_molecule.encoders.descriptors import What as Figures
from reed_molecule.encoders.equivariant import EquivariantConfig, EquivariantEncoder
from reed_molecule.encoders.network import NetworkEncoder
from reed_molecule.encoders.pairs import PairClasses
from reed_molecule.encoders.pairs import What as Pairs
from reed_molecule.encoders.standardised import SAMPLE, Standardised
from reed_molecule.encoders.symmetry import SymmetryFunctions
from reed_molecule.vocabulary import Vocabulary

if TYPE_CHECKING:
    from reed_molecule.network import NetworkConfig

Level = Literal["token", "pair", "global"]
PAIR_STATE = ":2"  # place of the pair states among what a block puts out
_QUESTION = {"tap", "weight", "name", "hidden", "projector", "head", "kappa", "sigma", "format"}


class _Spec(BaseModel):
    """What all kinds have in common.

    Attributes:
        tap: Module path in the network: `blocks.1` for node states, `blocks.1:2` for pair states.
        weight: Its weight in the loss.
        name: Its name in the log; by default its kind.
        hidden: Width of the projector's hidden layer; by default that of the tapped state.
        projector: Linear layers of the projector.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    tap: str
    weight: float = Field(gt=0)
    name: str = ""
    hidden: int | None = Field(None, ge=1)
    projector: int = Field(2, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        return named_by_kind(values)

    @model_validator(mode="after")
    def _level_fits(self) -> "_Spec":
        level: Level = getattr(self, "level")  # noqa: B009
        if (level == "pair") != self.tap.endswith(PAIR_STATE):
            raise ValueError(
                f"latent '{self.name}' of {level} level reads '{self.tap}'; pair latents read pair states "
                f"(blocks.1{PAIR_STATE}), others node states (blocks.1)"
            )
        return self

    @property
    def stored(self) -> bool:
        """Whether the values come from a cache."""
        return True


class _VectorSpec(_Spec):
    """What kinds whose z are vectors have in common.

    Attributes:
        level: Of each atom, or of the whole molecule.
        head: "cosine" (von Mises-Fisher) or "gaussian".
        kappa: Concentration of the first.
        sigma: Standard deviation of the second.
        format: How a cache stores them: float16, float32, int8 or pca-k (`reed_core.representation.format`).
    """

    level: Literal["token", "global"] = "token"
    head: Literal["cosine", "gaussian"] = "cosine"
    kappa: float = Field(1.0, gt=0)
    sigma: float = Field(1.0, gt=0)
    format: str = Field("float16", pattern=r"^(float16|float32|int8|pca-[1-9][0-9]*)$")

    @property
    def likelihood(self) -> Head:
        """The head."""
        return VonMisesFisher(self.kappa) if self.head == "cosine" else Gaussian(self.sigma)

    def parts(self, vocabulary: Vocabulary) -> dict[str, str]:
        """What the values depend on beside the molecules, as parts of a fingerprint; loads no encoder."""
        values = {"code": "1", **self.model_dump(mode="json", exclude=_QUESTION)}
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


class SymmetrySpec(_VectorSpec):
    """Symmetry functions (`reed_molecule.encoders.symmetry`).

    Attributes:
        radial: Radial functions.
        angular: Radial functions of the angular part; 0 leaves it out.
        cutoff: Angstrom.
        cached: Read them from a cache, rather than make them from each batch.
    """

    kind: Literal["symmetry"]
    radial: int = Field(16, ge=2)
    angular: int = Field(4, ge=0)
    cutoff: float = Field(5.0, gt=0)
    cached: bool = False

    @property
    def stored(self) -> bool:
        """As `cached` says."""
        return self.cached

    def dim_of(self, vocabulary: Vocabulary) -> int:
        """Width of z."""
        return self._functions(vocabulary).dim

    def encoder(self, data: CleanMolecules) -> Encoder:
        """The encoder, standardised on the molecules."""
        return Standardised(self._functions(data.molecules.vocabulary), data)

    def parts(self, vocabulary: Vocabulary) -> dict[str, str]:
        """With the elements and the sample of the standardisation."""
        return {**super().parts(vocabulary), "elements": ",".join(vocabulary.symbols), "sample": str(SAMPLE)}

    def _functions(self, vocabulary: Vocabulary) -> SymmetryFunctions:
        return SymmetryFunctions(vocabulary.symbols, self.radial, self.angular, self.cutoff, self.level)


class RdkitSpec(_VectorSpec):
    """RDKit's figures of a molecule (`reed_molecule.encoders.descriptors`).

    Attributes:
        what: "descriptors" or "morgan".
    """

    kind: Literal["rdkit"]
    level: Literal["global"] = "global"
    what: Figures = "descriptors"

    def dim_of(self, vocabulary: Vocabulary) -> int:
        """Number of figures."""
        return RdkitEncoder(self.what).dim

    def encoder(self, data: CleanMolecules) -> Encoder:
        """The encoder, standardised on the molecules."""
        return Standardised(RdkitEncoder(self.what), data)

    def parts(self, vocabulary: Vocabulary) -> dict[str, str]:
        """With RDKit's version and the sample of the standardisation."""
        return {**super().parts(vocabulary), "of": RdkitEncoder(self.what).fingerprint, "sample": str(SAMPLE)}


class _NetworkSpec(_VectorSpec):
    """States of a network of ours.

    Attributes:
        weights: A folder that `reed-molecule pretrain` wrote, or "random" for the control: a network that has learned
            nothing.
        layer: After which layer it is read, from 1; None takes the last.
        width: Of random networks.
        layers: Of random networks.
        seed: Of random networks.
    """

    weights: str = "random"
    layer: int | None = Field(None, ge=1)
    width: int = Field(64, ge=1)
    layers: int = Field(3, ge=1)
    seed: int = 0

    def config(self, vocabulary: Vocabulary) -> EquivariantConfig | BondGraphConfig:
        """The configuration of the network.

        Raises:
            InputError: If the weights are not there, or of another kind.
        """
        kind = EquivariantConfig if self.kind == "e3nn" else BondGraphConfig
        if self.weights == "random":
            sizes = {"elements": vocabulary.symbols, "width": self.width, "layers": self.layers}
            return kind.model_validate(sizes if self.kind == "e3nn" else {**sizes, "charges": vocabulary.charges})
        path = Path(self.weights) / CONFIG
        try:
            return kind.model_validate(json.loads(path.read_text(encoding="utf-8"))["model"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(
                f"no weights of a pretrained {self.kind} encoder in {self.weights} ({reason}); write them with: "
                f"reed-molecule pretrain {self.kind}"
            ) from error

    def dim_of(self, vocabulary: Vocabulary) -> int:
        """The width that the configuration says."""
        return self.config(vocabulary).dim

    def parts(self, vocabulary: Vocabulary) -> dict[str, str]:
        """With the configuration file, which holds the hash of the weights, in place of the folder's name."""
        values = super().parts(vocabulary)
        config = self.config(vocabulary).model_dump_json()
        if self.weights == "random":
            return {**values, "network": config, "torch": torch.__version__}
        for name in ("width", "layers", "seed"):
            del values[name]
        return {**values, "network": config, "weights": (Path(self.weights) / CONFIG).read_text(encoding="utf-8")}

    def encoder(self, data: CleanMolecules) -> Encoder:
        """The encoder; loads the weights, or draws them."""
        config = self.config(data.molecules.vocabulary)
        kind: Any = EquivariantEncoder if self.kind == "e3nn" else BondGraphEncoder
        if self.weights != "random":
            return NetworkEncoder(from_pretrained(kind, Path(self.weights)), self.level, self.layer)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self.seed)
            return NetworkEncoder(kind(config), self.level, self.layer)


class EquivariantSpec(_NetworkSpec):
    """States of an equivariant network (`reed_molecule.encoders.equivariant`)."""

    kind: Literal["e3nn"]


class BondGraphSpec(_NetworkSpec):
    """States of a network of the bond graph (`reed_molecule.encoders.bond_graph`)."""

    kind: Literal["bond_graph"]


class ArraySpec(_VectorSpec):
    """Arrays on disk (`reed_molecule.encoders.arrays`).

    Attributes:
        path: The file, or a pattern with {index} or {name}.
        key: The array in it.
        dim: Its width.
        atoms: Which atoms have a row: "all" or "heavy".
        version: Change it when the files change.
    """

    kind: Literal["arrays"]
    path: str
    key: str = "z"
    dim: int = Field(ge=1)
    atoms: Atoms = "all"
    version: str = ""

    def dim_of(self, vocabulary: Vocabulary) -> int:
        """As `dim` says."""
        return self.dim

    def encoder(self, data: CleanMolecules) -> Encoder:
        """The encoder; reads the files molecule by molecule."""
        return ArrayEncoder(self.path, self.key, self.dim, self.level, self.atoms, self.version)


class PairSpec(_Spec):
    """Classes of pairs (`reed_molecule.encoders.pairs`).

    Attributes:
        what: "graph", "bonds" or "distance".
    """

    kind: Literal["pairs"]
    what: Pairs = "graph"

    @property
    def level(self) -> Level:
        """Pair."""
        return "pair"

    @property
    def stored(self) -> bool:
        """Never: they are made from the batch."""
        return False

    @property
    def likelihood(self) -> Head:
        """Categorical."""
        return Categorical()

    def dim_of(self, vocabulary: Vocabulary) -> int:
        """Number of classes."""
        return PairClasses(self.what).dim

    def encoder(self, data: CleanMolecules) -> Encoder:
        """The encoder."""
        return PairClasses(self.what)


VectorSpec = SymmetrySpec | RdkitSpec | EquivariantSpec | BondGraphSpec | ArraySpec
LatentSpec = Annotated[
    SymmetrySpec | RdkitSpec | EquivariantSpec | BondGraphSpec | ArraySpec | PairSpec, Field(discriminator="kind")
]


def build_latents(specs: Sequence[LatentSpec], config: "NetworkConfig", vocabulary: Vocabulary) -> list[Latent]:
    """The latents of a recipe, as an objective takes them.

    Args:
        specs: The latents.
        config: Sizes of the network.
        vocabulary: Of the data.

    Raises:
        InputError: If weights of an encoder are missing.
    """
    latents = []
    for spec in specs:
        width = config.pairs if spec.level == "pair" else config.width
        latents.append(
            Latent(
                spec.name,
                spec.tap,
                width,
                spec.dim_of(vocabulary),
                spec.likelihood,
                spec.level,
                spec.weight,
                hidden=spec.hidden or width,
                layers=spec.projector,
            )
        )
    return latents
