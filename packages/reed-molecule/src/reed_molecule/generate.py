"""Molecules from trained weights: `load("qm9").sample(100)`, and what the command `sample` does.

A sample's random numbers are keyed by (seed, number), so drawing until enough are valid gives the same molecules as
drawing all at once: the first N of the numbered sequence that pass.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rdkit import Chem
from reed_core.bundled import named_folder
from reed_core.errors import InputError
from reed_core.hub import from_pretrained
from reed_core.noise import NoiseSource, mix_seed

from reed_molecule.build import Failure, to_molecules
from reed_molecule.condition import asked_row, warnings_of
from reed_molecule.flow import Sampler
from reed_molecule.formula import read_formula
from reed_molecule.generated import Generated, Only, Summary, judged
from reed_molecule.inpaint import Given, check_temperature
from reed_molecule.known import Known
from reed_molecule.model import MoleculeModel
from reed_molecule.molecule import Molecule
from reed_molecule.sample import Watch, check_guidance, sample

BUNDLED = Path(__file__).parent / "weights"
MOST_SAMPLES = 10_000_000
_ROUND = 64  # the least that is drawn at once while looking for molecules of a kind
_SIZES = 0x73697A65


@dataclass(frozen=True)
class Sizes:
    """How many atoms the samples get.

    Attributes:
        counts: Weight of each number of atoms.
    """

    counts: Mapping[int, int]

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1 or min(self.counts.values()) < 0 or not any(self.counts.values()):
            raise InputError(f"numbers of atoms {dict(list(self.counts.items())[:5])}: expected some, from 1")

    @classmethod
    def between(cls, low: int, high: int) -> "Sizes":
        """All numbers of atoms from `low` to `high`, equally likely."""
        return cls({count: 1 for count in range(low, high + 1)})

    def draw(self, numbers: Sequence[int], seed: int) -> list[int]:
        """One number of atoms for each sample, by its own stream."""
        if not len(numbers):
            return []
        sizes = sorted(self.counts)
        weights = torch.tensor([self.counts[size] for size in sizes], dtype=torch.float64)
        drawn = NoiseSource(mix_seed(seed, _SIZES), numbers).uniform(())
        places = torch.searchsorted(weights.cumsum(0) / weights.sum(), drawn, right=True)
        return [sizes[int(place)] for place in places.clamp(max=len(sizes) - 1)]


@dataclass(frozen=True)
class Request:
    """What to draw.

    Attributes:
        num: How many molecules.
        steps: Steps of each sample.
        seed: Of all random numbers.
        sizes: Numbers of atoms; None takes the training histogram.
        formula: Exact atoms instead, such as C7H10N2O.
        given: Known first atoms of every sample.
        resample: How often each step is taken.
        only: Which molecules count.
        at_most: Most samples drawn while looking for them; None is ten times `num`.
        properties: Values asked of every sample, in the units of the training data.
        guidance: How strongly they are followed, as in `sample.sample`.
        sampler: How the coordinates move; None takes what the weights were trained for.
        temperature: Divides the logits of types, charges and bonds.
    """

    num: int
    steps: int = 100
    seed: int = 0
    sizes: Sizes | None = None
    formula: str | None = None
    given: Given | None = None
    resample: int = 1
    only: Only = "any"
    at_most: int | None = None
    properties: Mapping[str, float] = field(default_factory=dict)
    guidance: float = 1.0
    sampler: Sampler | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_guidance(self.properties, self.guidance)
        check_temperature(self.temperature)
        if not 1 <= self.num <= MOST_SAMPLES or self.steps < 1 or self.resample < 1:
            raise InputError(
                f"{self.num} molecules in {self.steps} steps, each taken {self.resample} times; expected numbers from 1"
            )
        if self.at_most is not None and self.only == "any":
            raise InputError("a limit of samples goes with a kind of molecules to draw until; give --only")
        if self.at_most is not None and self.at_most < self.num:
            raise InputError(f"at most {self.at_most} samples cannot hold {self.num} molecules; give a higher limit")
        if self.formula is not None and (self.sizes is not None or self.given is not None):
            raise InputError("a formula says how many atoms there are; leave their number out")


@dataclass(frozen=True)
class Drawn:
    """What came of a request.

    Attributes:
        samples: All that was drawn, up to the last one kept, by number.
        kept: Those that count.
    """

    samples: list[Generated]
    kept: list[Generated]

    @property
    def summary(self) -> Summary:
        """Counts of all that was drawn."""
        return Summary.of(self.samples)


class Generator:
    """A model and the molecules that it was trained on.

    Args:
        model: The model, in evaluation mode, on the device it runs on.
        known: The molecules trained on; None where they are not known.
        name: What the weights are called.
    """

    def __init__(self, model: MoleculeModel, known: Known | None = None, name: str = "") -> None:
        self.model, self.known, self.name = model, known, name

    def sample(
        self,
        num: int = 1,
        *,
        steps: int = 100,
        seed: int = 0,
        atoms: int | None = None,
        formula: str | None = None,
        only: Only = "valid",
        at_most: int | None = None,
        properties: Mapping[str, float] | None = None,
        guidance: float = 1.0,
        sampler: Sampler | None = None,
        temperature: float = 1.0,
    ) -> list[Chem.Mol]:
        """Draws molecules until `num` are of the kind asked for, or the limit is reached: then there are fewer.

        Args:
            num: How many.
            steps: Steps of each; more is better and slower.
            seed: The same seed gives the same molecules.
            atoms: Atoms of each, hydrogens too; None draws it from the training histogram.
            formula: Exact atoms, such as "C7H10N2O".
            only: "valid", "connected", "stable" (no radical, too) or "novel"; "any" draws `num` and returns the valid.
            at_most: Most samples drawn; ten times `num` by default.
            properties: Values asked of every molecule, such as {"gap": 0.25}, in the units of the data trained on; a
                warning tells of one outside them.
            guidance: How strongly they are followed: 1 as learned, more for more, at twice the time.
            sampler: "ancestral" or "flow"; None takes what the weights were trained for.
            temperature: Of elements, charges and bonds; below 1 more molecules are stable, and fewer kinds are seen.

        Returns:
            Sanitised RDKit molecules with hydrogens and one conformer.

        Raises:
            InputError: If what is asked for cannot be drawn.
        """
        sizes = None if atoms is None else Sizes({atoms: 1})
        asked = dict(properties or {})
        request = Request(
            num, steps, seed, sizes, formula,
            only=only, at_most=at_most, properties=asked, guidance=guidance, sampler=sampler,
            temperature=temperature,
        )  # fmt: skip
        for line in self.far_off(asked):
            warnings.warn(line, stacklevel=2)
        found = self.draw(request)
        return [one.mol for one in found.kept if not isinstance(one.mol, Failure)]

    def far_off(self, properties: Mapping[str, float]) -> list[str]:
        """One line for every value asked for that lies outside those trained on.

        Raises:
            InputError: If the model is not told such a property, or a value is not finite.
        """
        asked_row(self.model.config.conditions, properties)
        return warnings_of(self.model.config.conditions, properties)

    def draw(
        self,
        request: Request,
        progress: Callable[[int], None] | None = None,
        watch: Watch | None = None,
        finish: Callable[[Molecule], Molecule] | None = None,
    ) -> Drawn:
        """Draws what a request asks for.

        Args:
            request: The request.
            progress: Called with the number of samples of each batch.
            watch: As in `sample.sample`.
            finish: Changes each molecule before it is judged.

        Raises:
            InputError: If what is asked for cannot be drawn.
        """
        if request.formula is not None:
            types = read_formula(request.formula, self.model.vocabulary)
            fixed = Given(torch.tensor(types))
            request = replace(request, formula=None, sizes=Sizes({len(types): 1}), given=fixed)
        if request.only == "novel" and self.known is None:
            raise InputError(f"--only novel: weights {self.name} come without the molecules they were trained on")
        limit = request.num if request.only == "any" else request.at_most or 10 * request.num
        samples: list[Generated] = []
        kept: list[Generated] = []
        while len(kept) < request.num and len(samples) < limit:
            for one in self._round(request, range(len(samples), self._until(request, samples, kept, limit)), progress,
                                   watch, finish):  # fmt: skip
                samples.append(one)
                if one.passes(request.only):
                    kept.append(one)
                if len(kept) == request.num:
                    break
        return Drawn(samples, kept)

    def _until(self, request: Request, samples: list[Generated], kept: list[Generated], limit: int) -> int:
        """The end of the next round, by the share that has passed so far. It changes no result."""
        if request.only == "any":
            return limit
        share = (len(kept) + 1) / (len(samples) + 1)
        return min(limit, len(samples) + max(_ROUND, math.ceil((request.num - len(kept)) / share)))

    def _round(
        self,
        request: Request,
        numbers: range,
        progress: Callable[[int], None] | None,
        watch: Watch | None,
        finish: Callable[[Molecule], Molecule] | None,
    ) -> list[Generated]:
        sizes = None if request.sizes is None else request.sizes.draw(numbers, request.seed)
        batches = sample(
            self.model,
            count=len(numbers) if sizes is None else None,
            sizes=sizes,
            steps=request.steps,
            seed=request.seed,
            first=numbers.start,
            progress=progress,
            given=request.given,
            resample=request.resample,
            watch=watch,
            properties=request.properties,
            guidance=request.guidance,
            sampler=request.sampler,
            temperature=request.temperature,
        )
        found: dict[int, Generated] = {}
        for batch in batches:
            built = to_molecules(batch.state, batch.mask, self.model.vocabulary, self.model.config.scale)
            for number, item in zip(batch.numbers, built, strict=True):
                if not isinstance(item, Failure):
                    item = replace(item, name=f"sample_{number}")
                    item = item if finish is None else finish(item)
                found[number] = judged(number, item, self.known)
        return [found[number] for number in numbers]


def load(weights: str | Path, device: torch.device | str = "cpu") -> Generator:
    """Loads trained weights.

    Args:
        weights: A folder that `reed-molecule train` wrote, or the name of weights that come with the package.
        device: Where to run them.

    Raises:
        InputError: If there are no such weights, they cannot be read, or the device is not there.
    """
    folder = weights_folder(weights)
    try:
        model = from_pretrained(MoleculeModel, folder).to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device} cannot be used ({str(error).splitlines()[0]}); try --device cpu") from error
    return Generator(model, Known.read(folder), str(weights))


def weights_folder(weights: str | Path) -> Path:
    """The folder of some weights, as `reed_core.bundled.named_folder` finds it.

    Raises:
        InputError: If it is neither a folder nor the name of weights that come with the package.
    """
    return named_folder(weights, BUNDLED, "reed-molecule train")
