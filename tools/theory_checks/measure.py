"""Every check on every model of a seed: the worst figure of each."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from theory_checks import bound, divergence, heads, hybrid, joint, many, masked, presets, samplers
from theory_checks.check import Check
from theory_checks.setting import settings
from theory_checks.setting_many import settings_many

Checks = tuple[Callable[[Any], Iterator[Check]], ...]

SHARED: Checks = (
    joint.check_paths,
    bound.check_bound,
    bound.check_estimator,
    hybrid.check_normaliser,
    divergence.check_divergence,
    divergence.check_information,
    presets.check_presets,
    samplers.check_samplers,
)
GAUSSIAN: Checks = (
    *SHARED,
    hybrid.check_normaliser_gaussian,
    hybrid.check_scores,
    bound.check_squared_errors,
    heads.check_sphere,
    heads.check_space,
)
CATEGORICAL: Checks = (
    *SHARED,
    hybrid.check_logits,
    heads.check_classes,
    masked.check_masked,
    presets.check_weights,
)
MANY: Checks = (
    many.check_tuples,
    many.check_weights,
    many.check_bound,
    many.check_geometric_mean,
    many.check_samplers,
    many.check_scores,
)


def measure(seed: int, dim: int, steps: int) -> list[Check]:
    """The worst figure of each check over the models of one kind, in the order of the labels."""
    found: dict[tuple[str, str], list[Check]] = {}
    for setting in itertools.chain(settings(seed, dim, steps), settings_many(seed, dim, steps)):
        checks = {"gaussian": GAUSSIAN, "categorical": CATEGORICAL}.get(setting.kind, MANY)
        for check in checks:
            for row in check(setting):
                key = (row.label, f"{setting.kind}: {row.what}")
                found.setdefault(key, []).append(row)
    worst = [
        replace(min(rows, key=lambda row: (row.passed, row.margin)), what=what) for (_, what), rows in found.items()
    ]
    return sorted(worst, key=lambda row: int(row.label[1:]))
