"""Check the theory (labels D1 to D16) on fresh random models, through reed_core's public functions.

    uv run tools/theory.py --seed 0 --dim 4 --steps 8

Draws three linear-Gaussian models (x_0 of --dim dimensions; variance-preserving, variance-exploding and anisotropic
schedules) and two categorical ones with one latent and --steps steps each, and five with two or three latents (at most
10 and 4 steps: there are T^L tuples of reveal steps). Prints the worst deviation of each label from an independently
computed truth, its limit and the verdict. Exits 1 if a verdict is bad, or a label has none.

Everything is float64. Deviations are relative to 1 + |truth|. A row marked >= is of something that has to be there: a
bias, or room between the two sides of an inequality. Truths come from `reed_core.bound.solvable.reference`
(torch.distributions, autograd, canonical parameters, products written out), from quadrature, and from running each
reveal time alone. The checks are the modules of `theory_checks`, beside this file.
"""

from typing import Annotated

import typer
from reed_core.console import run
from reed_core.errors import InputError

LABELS = ("D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D9", "D10", "D11", "D12", "D13", "D14", "D15", "D16")

app = typer.Typer(add_completion=False)


@app.command()
def main(
    seed: Annotated[int, typer.Option(help="Seed of the random models.")] = 0,
    dim: Annotated[int, typer.Option(help="Dimension of x_0 in the Gaussian models, at least 1.")] = 4,
    steps: Annotated[int, typer.Option(help="T, the number of diffusion steps, at least 2.")] = 8,
) -> None:
    """Checks the theory on fresh random models; exits 1 when a check fails."""
    if dim < 1 or steps < 2:
        raise InputError(f"got --dim {dim} --steps {steps}; expected dim >= 1 and steps >= 2")
    from theory_checks.measure import measure

    checks = measure(seed, dim, steps)
    print(f"seed {seed}, {dim} dimensions, {steps} steps, float64")
    width = max(len(check.what) for check in checks)
    for check in checks:
        sign, verdict = (">=" if check.at_least else "<="), ("pass" if check.passed else "FAIL")
        print(f"{check.label:<4} {check.what:<{width}} {check.value:9.2e} {sign} {check.limit:.0e}  {verdict}")
    failed = sum(not check.passed for check in checks)
    unmeasured = [label for label in LABELS if label not in {check.label for check in checks}]
    for label in unmeasured:
        print(f"{label:<4} no check  FAIL")
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    if failed or unmeasured:
        raise typer.Exit(1)


if __name__ == "__main__":
    run(app)
