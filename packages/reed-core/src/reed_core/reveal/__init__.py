"""Reveal-time densities: when, in diffusion time, is a latent z revealed?

z is revealed at a random time tau ~ alpha on [0, 1] (t = 0 is data, t = 1 is noise). What the bound needs of alpha is

    alpha(t)                       its density: weighs the alignment term (THEORY section 1)
    A(t) = P(tau >= t)             its survival function: the probability that x_t -> x_{t-1} already sees z
                                   (int_t^1 alpha when alpha has no atom)
    tau ~ alpha                    draws, for densities with an atom and for reveal-ancestral sampling (THEORY D13)

On a grid of T steps, step t = 1..T stands for the times in ((t-1)/T, t/T]:

    alpha_t = P((t-1)/T < tau <= t/T),   A_t = sum_{i>=t} alpha_i,   A_1 = 1

Training times are uniform, so alpha(t) is already the weight alpha / pi of a time drawn by a process. A density with an
atom has no such weight: it draws its own tau (`is_atomic`). Times may have any shape; results keep shape and dtype.

* `density`: what every distribution offers, and survival on a grid.
* `point`: PointMass.
* `flat`: Uniform, Cutoff and Table, constant on intervals.
* `curved`: Beta and Cosine.
"""

from reed_core.reveal.curved import Beta, Cosine
from reed_core.reveal.density import RevealDensity, survival_on_grid
from reed_core.reveal.flat import Cutoff, Table, Uniform
from reed_core.reveal.point import PointMass

__all__ = ["Beta", "Cosine", "Cutoff", "PointMass", "RevealDensity", "Table", "Uniform", "survival_on_grid"]
