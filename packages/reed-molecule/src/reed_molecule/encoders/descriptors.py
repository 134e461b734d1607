"""What RDKit says of a whole molecule: descriptors of its graph, and Morgan fingerprints.

descriptors    all of `rdkit.Chem.Descriptors`, in the order of their names; what is not finite becomes 0, and the
               sign-keeping logarithm sign(x) log(1 + |x|) is taken, since some grow without bound
morgan         counts of circular substructures, folded, log(1 + count) (doi 10.1021/ci100050t)
Both are functions of the bond graph, not of the coordinates. A molecule that RDKit cannot sanitise is unknown.
"""

from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64
from rdkit import Chem
from rdkit.Chem import Descriptors, rdFingerprintGenerator
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import named
from reed_core.state import State
from torch import Tensor

from reed_molecule.encoders.clean import Named

What = Literal["descriptors", "morgan"]
BITS = 512
RADIUS = 2


class RdkitEncoder:
    """RDKit's figures as z, [b, d].

    Args:
        what: "descriptors" or "morgan".
    """

    level: Literal["global"] = "global"

    def __init__(self, what: What = "descriptors") -> None:
        self.name: str = what
        self.what = what
        self._functions = sorted(Descriptors.descList)
        self._morgan = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
        self.dim = len(self._functions) if what == "descriptors" else BITS

    @property
    def fingerprint(self) -> str:
        """What is computed, by which RDKit."""
        return named({"code": "rdkit-1", "what": self.what, "rdkit": version("rdkit")})

    def __call__(self, x_0: State, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """The figures of each molecule named in c."""
        assert isinstance(c, Named)
        z, known = np.zeros((len(c.molecules), self.dim)), np.zeros(len(c.molecules), dtype=bool)
        for row, molecule in enumerate(c.molecules):
            try:
                mol = Chem.RemoveHs(molecule.to_rdkit())
            except (InputError, ValueError):
                continue
            z[row], known[row] = self._figures(mol), True
        return Representation(torch.from_numpy(z).float(), torch.from_numpy(known))

    def _figures(self, mol: Chem.Mol) -> Float64[np.ndarray, " d"]:
        if self.what == "morgan":
            return np.log1p(self._morgan.GetCountFingerprintAsNumPy(mol).astype(np.float64))
        raw = np.array([function(mol) for _, function in self._functions], dtype=np.float64)
        raw = np.where(np.isfinite(raw), raw, 0.0)
        return np.sign(raw) * np.log1p(np.abs(raw))
