"""A molecular diffusion model as it is kept on disk: the denoiser, what its numbers mean, and how large molecules are.

The number of atoms is not diffused. p(n) is the histogram of the training molecules, kept in the configuration, and is
part of the model (THEORY section 7): the bound of a molecule adds -log p(n).

A model may be told properties of molecules (`conditions`). It may have been trained with noise aligned to the data
(`alignment`): then its samples follow the flow of the coordinates, unless asked otherwise.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Product
from torch import Tensor, nn

from reed_molecule.alignment import Alignment
from reed_molecule.condition import Condition, Property, asked_row, standardised
from reed_molecule.network import Denoiser, NetworkConfig
from reed_molecule.process import Discrete, centre, molecule_process
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
        conditions: Properties that the network is told.
        alignment: How the noise of the coordinates was coupled to the data in training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["molecule"] = "molecule"
    elements: tuple[str, ...]
    formal_charges: tuple[int, ...]
    scale: float = Field(gt=0)
    sizes: dict[int, int] = Field(min_length=1)
    discrete: Discrete = "uniform"
    network: NetworkConfig = NetworkConfig()
    conditions: tuple[Property, ...] = ()
    alignment: Alignment = "none"

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        known = (len(self.elements), len(self.formal_charges))
        if known != (self.network.types, self.network.charges):
            raise ValueError(
                f"the network has {self.network.types} types and {self.network.charges} charges, not {known}"
            )
        names = [one.name for one in self.conditions]
        if len(names) != self.network.conditions or len(set(names)) != len(names):
            raise ValueError(f"the network is told {self.network.conditions} properties, not {names}")
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
        """The forward process with independent noise, as samplers and the bound need it, and the flat losses."""
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

    def condition(self, mask: Bool[Tensor, "b n"], asked: Mapping[str, float] | None = None) -> Condition:
        """The condition of molecules of which the same properties are asked.

        Args:
            mask: True where an atom exists.
            asked: Values by name, in the units of the training data; what is left out is unknown.

        Raises:
            InputError: If the model is not told such a property, or a value is not finite.
        """
        if not asked:
            return Condition(mask)
        row = standardised(self.config.conditions, asked_row(self.config.conditions, asked))
        return Condition(mask, row.to(mask.device).expand(len(mask), -1))

    def draw_sizes(self, numbers: Sequence[int], seed: int) -> list[int]:
        """Numbers of atoms of the numbered samples, each drawn from the histogram by its own stream."""
        sizes = sorted(self.config.sizes)
        counts = torch.tensor([self.config.sizes[size] for size in sizes], dtype=torch.float64)
        drawn = NoiseSource(seed, numbers).uniform(()) if len(numbers) else torch.zeros(0, dtype=torch.float64)
        places = torch.searchsorted(counts.cumsum(0) / counts.sum(), drawn, right=True)
        return [sizes[int(place)] for place in places.clamp(max=len(sizes) - 1)]


class Remembering:
    """A model that is given its last prediction as a guess, for one run of a sampler.

    What is remembered of the coordinates is the clean molecule: the guess is the velocity that leads there from the
    state at hand, which a step with fresh noise has moved off the line that the last velocity was of.

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
        here, time = centre(x_t["coords"], None if c is None else c.mask), t.to(x_t["coords"])[:, None, None]
        guess = self._last
        if guess is not None:
            guess = {**guess, "coords": (here - guess["coords"]) / time}
        said = self.model(x_t, t, c, guess)
        self._last = {**said, "coords": here - time * said["coords"]}
        return said


def new_config(
    vocabulary: Vocabulary,
    scale: float,
    counts: Sequence[int],
    network: NetworkConfig,
    discrete: Discrete,
    conditions: Sequence[Property] = (),
    alignment: Alignment = "none",
) -> ModelConfig:
    """The configuration of a model of a training set.

    Args:
        vocabulary: Of the set.
        scale: Angstrom per model unit.
        counts: Number of atoms of each training molecule.
        network: Sizes; types, charges and conditions are set to those given here.
        discrete: Noise of the discrete fields.
        conditions: Properties that the network is told.
        alignment: How noise is coupled to the data.

    Raises:
        InputError: If there is no molecule.
    """
    if not len(counts):
        raise InputError("no training molecules; give a data set that holds some")
    sizes: dict[int, int] = {}
    for count in sorted(int(count) for count in counts):
        sizes[count] = sizes.get(count, 0) + 1
    told = {"types": len(vocabulary.symbols), "charges": len(vocabulary.charges), "conditions": len(conditions)}
    fitted = network.model_copy(update=told)
    return ModelConfig(
        elements=vocabulary.symbols,
        formal_charges=vocabulary.charges,
        scale=scale,
        sizes=sizes,
        discrete=discrete,
        network=fitted,
        conditions=tuple(conditions),
        alignment=alignment,
    )
