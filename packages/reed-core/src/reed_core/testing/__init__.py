"""Checks that you run on your own process, latent, encoder, denoiser or sampler, in any test framework or none.

    from reed_core.testing import check_process
    check_process(MyProcess(), x_0, mask)

Each check returns None, or raises AssertionError with one line: what was looked at, what was measured, what was
expected. Random numbers come from `seed`, so a check that passes always passes. Statistical checks compare two sets of
draws by the Kolmogorov-Smirnov distance at a level of 1e-4; a pass says that no gross error was found, no more.
"""

from reed_core.testing.bound import check_bound
from reed_core.testing.denoiser import check_denoiser, check_no_leak
from reed_core.testing.encoder import check_encoder
from reed_core.testing.latent import check_latent
from reed_core.testing.process import check_process
from reed_core.testing.sampler import check_sampler

__all__ = [
    "check_bound",
    "check_denoiser",
    "check_encoder",
    "check_latent",
    "check_no_leak",
    "check_process",
    "check_sampler",
]
