"""D1, D2: log p^(tau) of a path."""

from collections.abc import Iterator

from reed_core.bound.joint import expected_log_joint, log_joint_by_reveal
from reed_core.bound.solvable.reference import head_log_probs, log_joints

from theory_checks.check import Check, deviation, ours
from theory_checks.setting import Setting


def check_paths(s: Setting) -> Iterator[Check]:
    """D1, D2: log p^(tau) of a path; with exact heads for every tau, with inconsistent heads on average."""
    paths = s.model.sample(6, s.generator)
    found = log_joint_by_reveal(**head_log_probs(s.model.exact, paths, ours))
    said, truth = head_log_probs(s.wrong, paths, ours), log_joints(s.wrong, paths)
    worst = max(deviation(expected_log_joint(**said, alpha=alpha), truth @ alpha) for alpha in s.alphas.values())
    yield Check("D1", "log p^(tau) = log q on paths, every tau", deviation(found, s.model.log_forward(paths)[:, None]))
    yield Check("D2", "E_tau log p^(tau) on paths, inconsistent heads", worst)
