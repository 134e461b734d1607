"""The way of one sample from noise to a molecule, as frames of an XYZ file, noise first.

Elements are those of the result in every frame, because viewers want atoms that stay what they are; positions are x_t,
in angstrom, with the centre of mass at 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from reed_core.errors import InputError

from reed_molecule.build import Failure
from reed_molecule.generated import Generated
from reed_molecule.part import State
from reed_molecule.writers.xyz import write_xyz


@dataclass
class Trajectory:
    """Collects the positions of one sample; pass `watch` to a sampler.

    Attributes:
        number: Which sample.
        scale: Angstrom per model unit.
        frames: Time and positions, [n, 3] angstrom, of every step so far, padding included.
    """

    number: int
    scale: float
    frames: list[tuple[float, np.ndarray]] = field(default_factory=list)

    def watch(self, numbers: tuple[int, ...], time: float, state: State) -> None:
        """Notes where the sample is, if it is in this batch."""
        if self.number in numbers:
            row = state["coords"][numbers.index(self.number)]
            self.frames.append((time, row.detach().cpu().float().numpy() * np.float32(self.scale)))

    def write(self, path: Path, samples: Sequence[Generated]) -> None:
        """Writes the frames and the result as the last one.

        Raises:
            InputError: If the sample was not drawn or is no molecule, or the file cannot be written.
        """
        found = next((one for one in samples if one.number == self.number), None)
        if found is None or isinstance(found.item, Failure):
            raise InputError(f"sample {self.number} was not drawn as atoms, so it has no trajectory; choose another")
        last, n = found.item, len(found.item)
        frames = [replace(last, positions=place[:n]) for _, place in self.frames]
        comments = [f"sample {self.number} t={time:.4f}" for time, _ in self.frames]
        write_xyz(path, [*frames, last], [*comments, f"sample {self.number} t=0.0000"])
