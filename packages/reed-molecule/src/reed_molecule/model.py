"""A molecular diffusion model as it is kept on disk: the denoiser, what its numbers mean, and how large molecules are.

The number of atoms is not diffused. p(n) is the histogram of the training molecules, kept in the configuration, and is
part of the model (THEORY section 7): the bound of a molecule adds -log p(n).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Product
from torch import Tensor, nn

from reed_molecule.condition import Condition
from reed_molecule.network import Denoiser, NetworkConfig
from reed_molecule.process import Discrete, molecule_process
from reed_molecule.vocabulary import Vocabulary


class ModelConfig(BaseModel):
    """Everything that a model is beside its weights.

    Attributes:
        kind: The family of the weights; only this one exists.
        elements: Symbols of the vocabulary.
        formal_charges: Charges of the vocabulary.
        scale: Angstrom per model unit.
        sizes: How many training molecules have how many atoms.
        discrete: Noise of types, charges and bonds.
        network: Sizes of the network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["molecule"] = "molecule"
    elements: tuple[str, ...]
    formal_charges: tuple[int, ...]
    scale: float = Field(gt=0)
    sizes: dict[int, int] = Field(min_length=1)
    discrete: Discrete = "uniform"
    network: NetworkConfig = NetworkConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        known = (len(self.elements), len(self.formal_charges))
        if known != (self.network.types, self.network.charges):
            raise ValueError(
                f"the network has {self.network.types} types and {self.network.charges} charges, not {known}"
            )
        if min(self.sizes) < 1 or min(self.sizes.values()) < 0 or sum(self.sizes.values()) < 1:
            raise ValueError("sizes count molecules by their number of atoms, 1 or more")
        return self


class MoleculeModel(nn.Module):
    """A denoiser with its vocabulary, process and size distribution; called like the denoiser.

    Args:
        config: What it is.
    """

    Config = ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = Denoiser(config.network)

    @property
    def vocabulary(self) -> Vocabulary:
        """Elements and charges."""
        return Vocabulary(self.config.elements, self.config.formal_charges)

    @property
    def process(self) -> Product:
        """The forward process, with the flat losses."""
        return molecule_process(self.vocabulary, self.config.discrete)

    def forward(
        self,
        x_t: Mapping[str, Tensor],
        t: Float[Tensor, "b"],
        c: Condition | None = None,
        guess: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """As `Denoiser.forward`."""
        return self.network(x_t, t, c, guess)

    def draw_sizes(self, numbers: Sequence[int], seed: int) -> list[int]:
        """Numbers of atoms of the numbered samples, each drawn from the histogram by its own stream."""
        sizes = sorted(self.config.sizes)
        counts = torch.tensor([self.config.sizes[size] for size in sizes], dtype=torch.float64)
        drawn = NoiseSource(seed, numbers).uniform(()) if len(numbers) else torch.zeros(0, dtype=torch.float64)
        places = torch.searchsorted(counts.cumsum(0) / counts.sum(), drawn, right=True)
        return [sizes[int(place)] for place in places.clamp(max=len(sizes) - 1)]


class Remembering:
    """A model that is given its last prediction as a guess, for one run of a sampler.

    Args:
        model: The model.
    """

    def __init__(self, model: MoleculeModel) -> None:
        self.model = model
        self._last: dict[str, Tensor] | None = None

    def __call__(
        self, x_t: Mapping[str, Tensor], t: Float[Tensor, "b"], c: Condition | None = None
    ) -> dict[str, Tensor]:
        """Predicts, and remembers."""
        self._last = self.model(x_t, t, c, self._last)
        return self._last


def new_config(
    vocabulary: Vocabulary, scale: float, counts: Sequence[int], network: NetworkConfig, discrete: Discrete
) -> ModelConfig:
    """The configuration of a model of a training set.

    Args:
        vocabulary: Of the set.
        scale: Angstrom per model unit.
        counts: Number of atoms of each training molecule.
        network: Sizes; types and charges are set to those of the vocabulary.
        discrete: Noise of the discrete fields.

    Raises:
        InputError: If there is no molecule.
    """
    if not len(counts):
        raise InputError("no training molecules; give a data set that holds some")
    sizes: dict[int, int] = {}
    for count in sorted(int(count) for count in counts):
        sizes[count] = sizes.get(count, 0) + 1
    fitted = network.model_copy(update={"types": len(vocabulary.symbols), "charges": len(vocabulary.charges)})
    return ModelConfig(
        elements=vocabulary.symbols,
        formal_charges=vocabulary.charges,
        scale=scale,
        sizes=sizes,
        discrete=discrete,
        network=fitted,
    )
