"""Optimal-transport alignment: the noise of the coordinates is moved towards the molecule that it corrupts.

Of eps, drawn independently with zero centre of mass, every molecule takes (EquiFM, arXiv 2312.07168; SemlaFlow,
arXiv 2406.07266)
    transport:  eps_i <- eps_pi(i),  pi = argmin_pi sum_i |x_i - eps_pi(i)|^2     (assignment of its atoms), then
    rotation:   eps_i <- R eps_i,    R = argmin_{R in SO(3)} sum_i |x_i - R eps_i|^2    (Kabsch; no reflection)
Neither raises the squared distance. With H = sum_i eps_i x_i^T = U S V^T the rotation is V diag(1, 1, det V U^T) U^T.
Where atoms lie on a line, or there are fewer than three, many rotations are optimal: H + DELTA |H| I in place of H
takes the one that turns least, which rounding cannot exchange for another (and is optimal up to terms in DELTA^2).

Marginal. Averaged over the turns and orders of a molecule, which an equivariant network cannot tell apart, aligned
noise is N(0, P) again: sampling starts from the same prior.

What it costs. Given x_0 the noise is not Gaussian, so
    q(x_t | x_0) is not N(signal x_0, noise^2 P): the variational bound does not hold (THEORY section 7), and
    the ancestral kernel q(x_s | x_t, x_0), whose fresh noise is independent of x_0, is not that of this coupling.
The velocity E[d x_t / dt | x_t] still carries the prior to the data: such a model is sampled by the flow of its
coordinates (`flow`). Its bound may be evaluated with independent noise (`MoleculeModel.process`), for which it was not
trained. Validation losses are those of its own coupling, not to be compared with those of another.
"""

from dataclasses import dataclass, replace
from typing import Literal, NoReturn

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Product
from reed_core.process.base import Corrupted, HybridNats
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from reed_molecule.process import Centred, recast

Alignment = Literal["none", "rotation", "transport"]
DELTA = 1e-4


def rotation(noise: Float64[np.ndarray, "n 3"], data: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "3 3"]:
    """The proper rotation R that brings the points R noise_i nearest to data_i; of several, the smallest turn."""
    H = noise.T @ data
    size = float(np.linalg.norm(H))
    U, _, Vt = np.linalg.svd(H + DELTA * (size or 1.0) * np.eye(3))
    side = np.sign(np.linalg.det(U @ Vt))
    return (Vt.T * np.array([1.0, 1.0, side])) @ U.T


def aligned_points(
    noise: Float64[np.ndarray, "n 3"], data: Float64[np.ndarray, "n 3"], alignment: Alignment, repeats: int = 1
) -> Float64[np.ndarray, "n 3"]:
    """The noise of one molecule, aligned to it.

    Args:
        noise: Points about their centre of mass.
        data: The molecule, about its own.
        alignment: What may be changed: nothing, the orientation, or the order of the points, too.
        repeats: How often order and orientation are taken in turn.
    """
    if alignment == "none":
        return noise
    for _ in range(repeats if alignment == "transport" else 1):
        if alignment == "transport":
            noise = noise[linear_sum_assignment(data @ noise.T, maximize=True)[1]]  # |x|^2, |eps|^2 sum to constants
        noise = noise @ rotation(noise, data).T
    return noise


def aligned_noise(
    noise: Float[Tensor, "b n 3"],
    data: Float[Tensor, "b n 3"],
    mask: Bool[Tensor, "b n"] | None,
    alignment: Alignment,
) -> Float[Tensor, "b n 3"]:
    """The noise of a batch, each molecule's aligned to it alone, in float64 on the CPU.

    Args:
        noise: Noise of zero centre of mass; 0 in the padding, which stays.
        data: Molecules of zero centre of mass.
        mask: True where an atom exists; None where all do.
        alignment: As in `aligned_points`.
    """
    points, molecules = (value.detach().cpu().double().numpy() for value in (noise, data))
    out = points.copy()
    real = np.ones(points.shape[:2], dtype=bool) if mask is None else mask.cpu().numpy()
    for row, atoms in enumerate(real):
        out[row, atoms] = aligned_points(points[row, atoms], molecules[row, atoms], alignment)
    return torch.from_numpy(out).to(noise)


@dataclass(frozen=True)
class Aligned(Centred):
    """`Centred`, whose noise is aligned to the data: for training alone. It has no bound; samples take `flow.Flowing`.

    Attributes:
        alignment: How.
    """

    alignment: Alignment = "transport"

    def corrupt(
        self,
        x_0: Float[Tensor, "b n d"],
        t: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Corrupted:
        """x_t = signal(t) x_0 + noise(t) eps with aligned eps; arguments as in `Interpolant.corrupt`."""
        drawn = super().corrupt(x_0, t, noise, mask)
        x_0, at = drawn.x_0, self._at(t, drawn.x_0)
        eps = aligned_noise(self.predict_eps(drawn.target, drawn.x_t, t), x_0, mask, self.alignment)
        return replace(drawn, x_t=at.signal * x_0 + at.noise * eps, target=self._said(x_0, eps, at))

    def prior_nats(self, x_0: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b"]:
        """Refused: there is no bound."""
        _refuse()

    def nats(self, prediction: Float[Tensor, "b n d"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Refused: there is no bound."""
        _refuse()

    def hybrid_nats(
        self,
        unconditional: Float[Tensor, "b n d"],
        conditional: Float[Tensor, "b n d"],
        A: Float[Tensor, "b"],
        corrupted: Corrupted,
    ) -> HybridNats:
        """Refused: there is no bound."""
        _refuse()

    def reconstruction_nats(self, prediction: Float[Tensor, "b n d"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Refused: there is no bound."""
        _refuse()


def _refuse() -> NoReturn:
    raise InputError(
        "noise aligned to the data is not the forward process of any bound; evaluate under independent noise, the "
        "`process` of the model"
    )


def aligned(process: Product, alignment: Alignment) -> Product:
    """The process of molecules with the noise of its coordinates aligned to the data."""
    return process if alignment == "none" else recast(process, Aligned, alignment=alignment)
