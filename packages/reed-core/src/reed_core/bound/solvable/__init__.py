"""Diffusion models with a latent that can be solved exactly: what any claim about the bound is measured against.

* `model`: what a solvable model offers, and the programs every model shares (the exact bound, the samplers' laws).
* `gaussian`: x_0 and z jointly Gaussian, T linear-Gaussian steps.
* `reference`: densities, KLs, normalisers and scores by other routes than `reed_core.bound.kernels`.
* `categorical`: x_0 and z on a few states, T random transition tables.
* `several`: what a model of several latents offers, the exact bound and the samplers' laws for any coupling.
* `several_gaussian`, `several_categorical`: the two models with z cut into latents, and a head for every set of them.
* `several_reference`: the costs, paths and normalisers of all sets, by products and sums written out.

Everything is float64.
"""
