"""Geometry around each atom, made of no weights: radial and angular symmetry functions by element.

With f(d) = (cos(pi d / cutoff) + 1) / 2 below the cutoff and 0 beyond, g_k(d) = exp(-(d - mu_k)^2 / (2 w^2)) f(d) and
neighbours j != i, the features of atom i are
    which element i is, one-hot
    R[e, k]       = sum_{j of e} g_k(d_ij)                                     mu_k evenly on [START, cutoff]
    A[e, f, k, l] = sum_{j of e, j' of f} g_k(d_ij) g_k(d_ij') P_l(cos angle(j, i, j'))           e <= f, l = 1, 2
R is the radial part of an atomic environment vector (ANI, doi 10.1039/C6SC05720A), A the power spectrum of SOAP (doi
10.1103/PhysRevB.87.184115) on few radial functions. A costs n^2 and not n^3: P_1 and P_2 are inner products of
the moments
    M1[e, k] = sum_j g_k r_j,   M2[e, k] = sum_j g_k (r_j r_j^T - I / 3),   r_j = (x_j - x_i) / d_ij
    sum g g P_1 = M1 . M1,   sum g g P_2 = 3/2 M2 : M2
Nothing changes under rotation, reflection, translation and the order of the neighbours.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool
from reed_core.errors import InputError
from reed_core.latent import Representation, pool_tokens
from reed_core.representation import named
from reed_core.state import State
from torch import Tensor

from reed_molecule.encoders.clean import pairs_of, types_of

START = 0.8  # angstrom: the centre of the first radial function
_TINY = 1e-12


class SymmetryFunctions:
    """Symmetry functions as z.

    Args:
        elements: The elements that may occur.
        radial: Radial functions of R.
        angular: Radial functions of A; 0 leaves A out.
        cutoff: Angstrom.
        level: "token", or "global": the mean over atoms.

    Raises:
        InputError: If a number is out of range.
    """

    name = "symmetry"

    def __init__(
        self,
        elements: tuple[str, ...],
        radial: int = 16,
        angular: int = 4,
        cutoff: float = 5.0,
        level: Literal["token", "global"] = "token",
    ) -> None:
        if radial < 2 or angular < 0 or angular == 1 or not cutoff > START:
            raise InputError(
                f"radial {radial}, angular {angular}, cutoff {cutoff:g}: expected two radial functions or more, two "
                f"angular ones or more (or none), and a cutoff above {START:g} angstrom"
            )
        self.elements, self.radial, self.angular, self.cutoff = elements, radial, angular, cutoff
        self.level = level
        self._first, self._second = torch.triu_indices(len(elements), len(elements))

    @property
    def dim(self) -> int:
        """Width of z."""
        kinds = len(self.elements)
        return kinds + kinds * self.radial + 2 * self.angular * len(self._first)

    @property
    def fingerprint(self) -> str:
        """The settings."""
        sizes = f"{self.radial},{self.angular},{self.cutoff},{self.level}"
        return named({"code": "symmetry-1", "elements": ",".join(self.elements), "sizes": sizes})

    @torch.no_grad()
    def __call__(self, x_0: State, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """Features of each atom, in the precision of the coordinates.

        Raises:
            InputError: If an element is not among those that may occur.
        """
        coords = x_0["coords"]
        exists = torch.ones(coords.shape[:2], dtype=torch.bool) if mask is None else mask
        types = types_of(x_0["numbers"], exists, self.elements)
        own = torch.nn.functional.one_hot(types, len(self.elements)).to(coords) * exists[..., None]
        apart = coords[:, None] - coords[:, :, None]  # from i to j
        distance = apart.square().sum(-1).clamp(min=_TINY).sqrt()
        near = pairs_of(exists) & (distance < self.cutoff)
        fade = torch.where(near, 0.5 * (torch.cos(torch.pi * distance / self.cutoff) + 1.0), 0.0)
        parts = [own, torch.einsum("bijk,bje->biek", self._functions(distance, self.radial, fade), own).flatten(2)]
        if self.angular:
            shells = self._functions(distance, self.angular, fade)
            ray = apart / distance[..., None]
            outer = ray[..., :, None] * ray[..., None, :] - torch.eye(3).to(coords) / 3.0
            one = torch.einsum("bijk,bje,bijx->biekx", shells, own, ray)
            two = torch.einsum("bijk,bje,bijx->biekx", shells, own, outer.flatten(-2))
            for moment, factor in ((one, 1.0), (two, 1.5)):
                parts.append(factor * (moment[:, :, self._first] * moment[:, :, self._second]).sum(-1).flatten(2))
        z = torch.cat(parts, -1) * exists[..., None]
        if self.level == "global":
            return Representation(pool_tokens(z, exists))
        return Representation(z, exists)

    def _functions(self, distance: Tensor, count: int, fade: Tensor) -> Tensor:
        """g_k of all distances, [b, n, n, k]."""
        centres = torch.linspace(START, self.cutoff, count, dtype=distance.dtype)
        width = float(centres[1] - centres[0])
        return torch.exp(-0.5 * ((distance[..., None] - centres) / width).square()) * fade[..., None]
