"""Diffusion models with a latent that can be solved exactly: what any claim about the bound is measured against.

* `model`: what a solvable model offers, and the programs every model shares (the exact bound, the samplers' laws).
* `gaussian`: x_0 and z jointly Gaussian, T linear-Gaussian steps.
* `reference`: densities, KLs, normalisers and scores by other routes than `reed_core.bound.kernels`.
* `categorical`: x_0 and z on a few states, T random transition tables.

Everything is float64.
"""
