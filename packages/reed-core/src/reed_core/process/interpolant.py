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
which for the linear path and v-prediction is (1 - t) / t |v - v_hat|^2. Beside its integral stand
    prior:           KL(N(signal x_0, noise^2 I) || N(0, I)) at t_max
    reconstruction:  -log N(x_0; x_0_hat, (noise / signal)^2 I) at t_min, the decoder chosen here
`time_weight="elbo"` trains on these nats, per element; "flat", the unweighted mean square, is the usual surrogate.

Reverse kernel of the Markov process with these marginals (arXiv 2107.00630, eq. 25-29), s < t:
    q(x_s | x_t, x_0) = N(a r x_t + signal_s (1 - a^2 r) x_0,  noise_s^2 (1 - a^2 r) I)
    a = signal_t / signal_s,   r = noise_s^2 / noise_t^2
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import (
    Corrupted,
    HybridNats,
    draw_elements,
    expand_mask,
    expand_time,
    masked_mean,
    masked_sum,
)


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
        time_weight: What `loss` is: "flat", or "elbo", whose mean over t is the bound's denoising term per element.
    """

    path: Literal["linear", "trig"] = "linear"
    prediction: Literal["v", "eps", "x0"] = "v"
    t_min: float = 1e-3
    t_max: float = 1.0 - 1e-3
    time_weight: Literal["flat", "elbo"] = "flat"

    def __post_init__(self) -> None:
        if self.path not in ("linear", "trig") or self.prediction not in ("v", "eps", "x0"):
            raise InputError(
                f"unknown path '{self.path}' or prediction '{self.prediction}'; choose linear or trig and v, eps or x0"
            )
        if not 0.0 <= self.t_min < self.t_max <= 1.0:
            raise InputError(f"times run over 0 <= t_min < t_max <= 1, got {self.t_min:g} and {self.t_max:g}")
        if self.time_weight not in ("flat", "elbo") or (self.time_weight == "elbo" and self.t_min == 0.0):
            raise InputError(
                f"time_weight '{self.time_weight}' with t_min {self.t_min:g}; expected flat, or elbo with t_min > 0"
            )

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
        mask: Bool[Tensor, "b ..."] | None = None,
    ) -> Corrupted:
        """x_t = signal(t) x_0 + noise(t) eps; padding becomes 0, whatever it held.

        Args:
            x_0: Data, [b, ...].
            t: Times, [b].
            noise: One stream per sample.
            mask: True where an element exists, with leading axes of x_0: [b, n], [b, n, n] for pairs, ...
        """
        eps = draw_elements(noise.normal, x_0.shape[1:], mask).to(x_0)
        if mask is not None:
            kept = expand_mask(mask, x_0)
            x_0, eps = torch.where(kept, x_0, 0.0), torch.where(kept, eps, 0.0)
        at = self._at(t, x_0)
        x_t = at.signal * x_0 + at.noise * eps
        return Corrupted(x_0=x_0, x_t=x_t, t=t, target=self._said(x_0, eps, at), mask=mask)

    def loss(self, prediction: Float[Tensor, "b ..."], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Mean squared error per sample, over its own elements, in float32 or wider; weighted if `time_weight` says."""
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        error = masked_mean((prediction.to(dtype) - corrupted.target.to(dtype)).square(), corrupted.mask)
        return error if self.time_weight == "flat" else self.elbo_weight(corrupted.t.to(error)) * error

    def elbo_weight(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Nats per unit of summed squared error of this prediction at t (times uniform on [0, 1])."""
        at = self.coefficients(t)
        eps_weight = at.d_noise / at.noise - at.d_signal / at.signal  # -lambda' / 2
        if self.prediction == "eps":
            return eps_weight
        if self.prediction == "x0":
            weight = eps_weight * (at.signal / at.noise).square()
        else:
            determinant = at.signal * at.d_noise - at.d_signal * at.noise
            weight = eps_weight * (at.signal / determinant).square()
        return torch.where(at.signal == 0, torch.zeros_like(weight), weight)  # the limit: infinity times 0 squared

    def prior(
        self, like: Float[Tensor, "b ..."], noise: NoiseSource, mask: Bool[Tensor, "b ..."] | None = None
    ) -> Float[Tensor, "b ..."]:
        """Standard normal noise of the shape of `like`."""
        return draw_elements(noise.normal, like.shape[1:], mask).to(like)

    def step(
        self,
        prediction: Float[Tensor, "b ..."],
        x_t: Float[Tensor, "b ..."],
        t: Float[Tensor, "b"],
        s: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, "b ..."]:
        """One draw of q(x_s | x_t, x_0) at the predicted x_0; s = 0 gives the predicted x_0. Padding is held at 0.

        Args:
            prediction: What the denoiser says at t.
            x_t: State at t.
            t: Times, [b], in (0, 1].
            s: Times to go to, [b], 0 <= s < t.
            noise: One stream per sample.
            mask: True where an element exists.
        """
        dtype = torch.promote_types(torch.promote_types(prediction.dtype, x_t.dtype), torch.float32)
        said, here = prediction.to(dtype), x_t.to(dtype)
        now, after = self._at(t, here), self._at(s, here)
        elapsed = expand_time((t - s).to(here), here)
        cross = elapsed if self.path == "linear" else torch.sin(0.5 * math.pi * elapsed)
        # signal_s noise_t - signal_t noise_s = cross, so that nothing cancels when s is close to t.
        shrink = after.noise / now.noise * now.signal / after.signal  # a sqrt(r)
        fresh = cross * (after.signal * now.noise + now.signal * after.noise) / (after.signal * now.noise).square()
        mean = shrink * (after.noise / now.noise) * here
        mean = mean + after.signal * fresh * self._clean_and_noise(said, here, now)[0]
        drawn = draw_elements(noise.normal, x_t.shape[1:], mask).to(here)
        x_s = mean + after.noise * fresh.clamp(min=0).sqrt() * drawn
        if mask is not None:
            x_s = torch.where(expand_mask(mask, x_s), x_s, 0.0)
        return x_s.to(x_t.dtype)

    def prior_nats(self, x_0: Float[Tensor, "b ..."], mask: Bool[Tensor, "b ..."] | None = None) -> Float[Tensor, "b"]:
        """KL(N(signal x_0, noise^2 I) || N(0, I)) at t_max, summed over a sample's elements.

        Args:
            x_0: Data, [b, ...].
            mask: True where an element exists.
        """
        wide = x_0.to(torch.promote_types(x_0.dtype, torch.float32))
        signal, noise = (float(value) for value in self.coefficients(torch.tensor(self.t_max, dtype=torch.float64))[:2])
        spread = noise**2 - 1.0 - 2.0 * math.log(noise)
        return masked_sum(0.5 * ((signal * wide).square() + spread), mask)

    def nats(self, prediction: Float[Tensor, "b ..."], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """elbo_weight(t) |prediction - target|^2, per unit of time, in float32 or wider."""
        return self._weighted(prediction - self._wide(corrupted.target, prediction), corrupted)

    def hybrid_nats(
        self,
        unconditional: Float[Tensor, "b ..."],
        conditional: Float[Tensor, "b ..."],
        A: Float[Tensor, "b"],
        corrupted: Corrupted,
    ) -> HybridNats:
        """KL(q || p~) and log Z of p~ = p_u^{1-A} p_c^A / Z, per unit of time (THEORY D5, D14, D16).

        The error of the mixed prediction (1-A) e_u + A e_c, and -weight A (1-A) |e_u - e_c|^2.
        """
        target = self._wide(corrupted.target, unconditional)
        weight = expand_time(A.to(target), target)
        error = (1.0 - weight) * (unconditional - target) + weight * (conditional - target)
        apart = self._weighted(self._wide(unconditional, target) - conditional, corrupted)
        share = A.to(apart)
        return HybridNats(self._weighted(error, corrupted), -share * (1.0 - share) * apart)

    def reconstruction_nats(self, prediction: Float[Tensor, "b ..."], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """-log N(x_0; predicted x_0, (noise / signal)^2 I) at the time of `corrupted`, which should be t_min.

        This decoder is the posterior of x_0 under a flat prior: the spread that x_t alone leaves. Any decoder gives a
        bound; this one needs nothing to be learned, and is tight as t_min goes to 0.

        Raises:
            InputError: If t_min is 0, where the density is infinite.
        """
        if self.t_min == 0.0:
            raise InputError("the decoder's variance is 0 at t_min = 0, so no bound exists; expected t_min > 0")
        x_0 = self._wide(corrupted.x_0, prediction)
        x_t, at = corrupted.x_t.to(x_0), self._at(corrupted.t, x_0)
        clean = self._clean_and_noise(prediction.to(x_0), x_t, at)[0]
        scale = at.noise / at.signal
        nll = 0.5 * ((x_0 - clean) / scale).square() + scale.log() + 0.5 * math.log(2.0 * math.pi)
        return masked_sum(nll, corrupted.mask)

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

    def prediction_of(self, x_0: Tensor, x_t: Tensor, t: Float[Tensor, "b"]) -> Tensor:
        """The prediction at x_t that implies this clean data: the inverse of `predict_x0`."""
        at = self._at(t, x_t)
        return self._said(x_0, (x_t - at.signal * x_0) / at.noise, at)

    def _said(self, x_0: Tensor, eps: Tensor, at: Coefficients) -> Tensor:
        """The prediction of clean data and noise."""
        return {"v": at.d_signal * x_0 + at.d_noise * eps, "eps": eps, "x0": x_0}[self.prediction]

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

    def _wide(self, value: Tensor, other: Tensor) -> Tensor:
        """The value in the wider of both dtypes, float32 at least."""
        return value.to(torch.promote_types(torch.promote_types(value.dtype, other.dtype), torch.float32))

    def _weighted(self, error: Tensor, corrupted: Corrupted) -> Tensor:
        return masked_sum(error.square(), corrupted.mask) * self.elbo_weight(corrupted.t.to(error.dtype))
