"""Gaussian interpolants between data and noise, for continuous x.

    x_t = signal(t) x_0 + noise(t) eps,   eps ~ N(0, I)
    linear: signal = 1 - t,          noise = t            (v = eps - x_0)
    trig:   signal = cos(pi t / 2),  noise = sin(pi t / 2)
    v = d x_t / dt = signal'(t) x_0 + noise'(t) eps

A denoiser predicts v, eps or x_0; the three determine each other given x_t:
    det = signal noise' - signal' noise                   (linear: 1, trig: pi / 2)
    x_0 = (noise' x_t - noise v) / det,   eps = (signal v - signal' x_t) / det

Continuous-time bound, with lambda = 2 log(signal / noise) (arXiv 2107.00630, eq. 17; THEORY D14):
    nats(t) = -lambda'(t) / 2 |eps - eps_hat|^2
which for the linear path and v-prediction is (1 - t) / t |v - v_hat|^2. It leaves out a decoder term at the smallest t.
The unweighted mean square is the usual training surrogate, and is what `loss` returns.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import Corrupted, expand_time, masked_mean


class Coefficients(NamedTuple):
    """signal(t), noise(t) and their time derivatives."""

    signal: Tensor
    noise: Tensor
    d_signal: Tensor
    d_noise: Tensor


@dataclass(frozen=True)
class Interpolant:
    """A Gaussian interpolant.

    Attributes:
        path: "linear" or "trig".
        prediction: What the denoiser predicts: "v", "eps" or "x0".
        t_min: Smallest training and sampling time (x_0 prediction divides by noise(t)).
        t_max: Largest training and sampling time (eps prediction divides by signal(t)).
    """

    path: Literal["linear", "trig"] = "linear"
    prediction: Literal["v", "eps", "x0"] = "v"
    t_min: float = 1e-3
    t_max: float = 1.0 - 1e-3

    def __post_init__(self) -> None:
        if self.path not in ("linear", "trig") or self.prediction not in ("v", "eps", "x0"):
            raise InputError(
                f"unknown path '{self.path}' or prediction '{self.prediction}'; choose linear or trig and v, eps or x0"
            )
        if not 0.0 <= self.t_min < self.t_max <= 1.0:
            raise InputError(f"times run over 0 <= t_min < t_max <= 1, got {self.t_min:g} and {self.t_max:g}")

    def coefficients(self, t: Tensor) -> Coefficients:
        """signal, noise and their derivatives at t (any shape)."""
        if self.path == "linear":
            return Coefficients(1.0 - t, t, -torch.ones_like(t), torch.ones_like(t))
        angle = 0.5 * math.pi * t
        return Coefficients(
            torch.cos(angle), torch.sin(angle), -0.5 * math.pi * torch.sin(angle), 0.5 * math.pi * torch.cos(angle)
        )

    def sample_time(self, noise: NoiseSource) -> Float[Tensor, "b"]:
        """Uniform times on [t_min, t_max)."""
        return self.t_min + (self.t_max - self.t_min) * noise.times()

    def corrupt(
        self,
        x_0: Float[Tensor, "b ..."],
        t: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Corrupted:
        """x_t = signal(t) x_0 + noise(t) eps; padding becomes 0, whatever it held.

        Args:
            x_0: Data, [b, ...] or [b, n, ...] with a mask.
            t: Times, [b].
            noise: One stream per sample.
            mask: True where an element exists.
        """
        eps = noise.normal(x_0.shape[1:]).to(x_0)
        if mask is not None:
            kept = mask.reshape(*mask.shape, *([1] * (x_0.ndim - 2)))
            x_0, eps = torch.where(kept, x_0, 0.0), torch.where(kept, eps, 0.0)
        at = self._at(t, x_0)
        x_t = at.signal * x_0 + at.noise * eps
        targets = {"v": at.d_signal * x_0 + at.d_noise * eps, "eps": eps, "x0": x_0}
        return Corrupted(x_0=x_0, x_t=x_t, t=t, target=targets[self.prediction], mask=mask)

    def loss(self, prediction: Float[Tensor, "b ..."], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Mean squared error per sample, over its own elements, in float32 or wider."""
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        return masked_mean((prediction.to(dtype) - corrupted.target.to(dtype)).square(), corrupted.mask)

    def elbo_weight(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Nats per unit of summed squared error of this prediction at t (times uniform on [0, 1])."""
        at = self.coefficients(t)
        eps_weight = at.d_noise / at.noise - at.d_signal / at.signal  # -lambda' / 2
        if self.prediction == "eps":
            return eps_weight
        if self.prediction == "x0":
            return eps_weight * (at.signal / at.noise).square()
        determinant = at.signal * at.d_noise - at.d_signal * at.noise
        return eps_weight * (at.signal / determinant).square()

    def prior(self, like: Float[Tensor, "b ..."], noise: NoiseSource) -> Float[Tensor, "b ..."]:
        """Standard normal noise of the shape of `like`."""
        return noise.normal(like.shape[1:]).to(like)

    def predict_v(self, prediction: Tensor, x_t: Tensor, t: Float[Tensor, "b"]) -> Tensor:
        """The velocity dx_t/dt that a prediction implies."""
        if self.prediction == "v":
            return prediction
        at = self._at(t, x_t)
        x_0, eps = self._clean_and_noise(prediction, x_t, at)
        return at.d_signal * x_0 + at.d_noise * eps

    def predict_x0(self, prediction: Tensor, x_t: Tensor, t: Float[Tensor, "b"]) -> Tensor:
        """The clean data that a prediction implies."""
        return self._clean_and_noise(prediction, x_t, self._at(t, x_t))[0]

    def predict_eps(self, prediction: Tensor, x_t: Tensor, t: Float[Tensor, "b"]) -> Tensor:
        """The noise that a prediction implies; the score of p(x_t) is -eps / noise(t)."""
        return self._clean_and_noise(prediction, x_t, self._at(t, x_t))[1]

    def _at(self, t: Float[Tensor, "b"], like: Tensor) -> Coefficients:
        """The coefficients for `like`, of its rank and dtype; computed in float32 or wider, as 1 - t needs."""
        wide = expand_time(t.to(like.device, torch.promote_types(like.dtype, torch.float32)), like)
        return Coefficients(*(value.to(like.dtype) for value in self.coefficients(wide)))

    def _clean_and_noise(self, prediction: Tensor, x_t: Tensor, at: Coefficients) -> tuple[Tensor, Tensor]:
        if self.prediction == "x0":
            return prediction, (x_t - at.signal * prediction) / at.noise
        if self.prediction == "eps":
            return (x_t - at.noise * prediction) / at.signal, prediction
        determinant = at.signal * at.d_noise - at.d_signal * at.noise
        return (
            (at.d_noise * x_t - at.noise * prediction) / determinant,
            (at.signal * prediction - at.d_signal * x_t) / determinant,
        )
