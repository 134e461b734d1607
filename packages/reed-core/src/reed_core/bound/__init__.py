"""The variational bound L_VB^z, made executable: reverse kernels, their hybrid, every term, and its inequalities.

* `evaluate`: the bound of a trained model on data, every term by Monte Carlo.
* `monte_carlo`: how each of its terms is drawn.
* `estimate`: its result: means with errors, what makes two bounds comparable, and their difference.
* `hybrid`: mixing predictions and token logits, what samplers need.
* `kernels`: Gaussian and categorical reverse kernels with KL, hybrid and log-normaliser.
* `joint`: log p^(tau)(x_{0:T}, z) for every reveal time, and its average over tau.
* `terms`: the terms of the bound on a grid of steps, and the estimator that keeps z with probability A_t.
* `many`: the same for several latents, with a kernel for every revealed set; `tuples`: their reveal steps.
* `divergence`: inequalities: the normaliser's bounds, the KL and TV bounds, what revealing costs and saves.
* `solvable`: models whose every distribution is known, and slow references, to measure all of this against.

Import from those modules. In the first three time is continuous; elsewhere steps t = 1..T lie on the last axis, at
index t - 1. Everything is in nats.
"""
