"""DPM-Solver++(2M) for an interpolant: a multistep second-order solver in log-SNR (arXiv 2211.01095, algorithm 2).

With lambda = log(signal / noise), which falls with t, and D(t) the denoiser's x_0, the probability flow is exactly
    x_s = noise_s/noise_t x_t + noise_s int_{lambda_t}^{lambda_s} e^lambda D d lambda
D held constant over the step gives order 1 (it is DDIM); extrapolated from the step before, order 2:
    x_s = noise_s/noise_t x_t + (signal_s - signal_t noise_s / noise_t) D~
    D~ = D_i + (D_i - D_{i-1}) h_i / (2 h_{i-1}),   h_i = lambda_s - lambda_t
One evaluation a step. The first step has no past and is of order 1; with t_max = 1 the log-SNR starts at minus
infinity, so h_0 is infinite and the second step is of order 1 as well. The last step returns D(t_min), as the other
solvers do: from there to t = 0 the log-SNR is infinite, and the exact step with constant D is D.

It pays where data are concentrated, as D then hardly moves; for data as wide as the noise v is the smoother function,
and Heun on uniform times is better at equal cost.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.denoiser import Denoiser
from reed_core.process.interpolant import Interpolant
from reed_core.sample.batch import at_time, hold
from reed_core.sample.grid import Grid, LogSNRTimes, place


@torch.no_grad()
def dpm_solve(
    process: Interpolant,
    denoiser: Denoiser,
    x: Float[Tensor, "b ..."],
    steps: int,
    c: Any = None,
    mask: Bool[Tensor, "b n"] | None = None,
    grid: Grid | None = None,
) -> Float[Tensor, "b ..."]:
    """Integrates from noise to data with steps + 1 evaluations.

    Args:
        process: The process the denoiser was trained on.
        denoiser: The denoiser, or a guidance around one.
        x: Noise at t = 1, as `process.prior` draws it.
        steps: Steps of the time grid, at least 1.
        c: The condition.
        mask: True where an element exists; padding is held at 0.
        grid: Where the steps lie between t_max and t_min; None: equal steps of log-SNR.

    Returns:
        Samples at t = 0.

    Raises:
        InputError: If steps < 1.
    """
    times = place(grid or LogSNRTimes(process), process.t_max, process.t_min, steps)
    at = process.coefficients(torch.tensor(times, dtype=torch.float64))
    signal, noise = at.signal.tolist(), at.noise.tolist()
    lengths = (at.signal / at.noise).log().diff().tolist()  # h_i; the first is infinite when t_max = 1

    def clean(x_t: Tensor, time: float) -> Tensor:
        t = at_time(x_t, time)
        return hold(process.predict_x0(denoiser(x_t, t, c), x_t, t), mask)

    x = hold(x, mask)
    before: Tensor | None = None
    for step in range(steps):
        now = clean(x, times[step])
        ahead = now
        if before is not None and lengths[step - 1] != float("inf"):
            ahead = now + (now - before) * (lengths[step] / (2.0 * lengths[step - 1]))
        shrink = noise[step + 1] / noise[step]
        x = shrink * x + (signal[step + 1] - signal[step] * shrink) * ahead
        before = now
    return clean(x, process.t_min)
