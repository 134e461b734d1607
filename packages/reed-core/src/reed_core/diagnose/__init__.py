"""Diagnoses: which layer, which weight, when to stop, and how good a cosine can be. None of them changes a network."""

from reed_core.diagnose.alignment import cka, cknna, hsic, unit_rows
from reed_core.diagnose.attainable import AttainableCosine, CosineByTime, attainable_cosine, cosine_by_time
from reed_core.diagnose.depth import DepthTable, block_paths, by_depth
from reed_core.diagnose.gradients import GradientStatistics, GradientTable, gradient_table
from reed_core.diagnose.posterior import log_likelihood, posterior
from reed_core.diagnose.probe import Probe, probe
from reed_core.diagnose.recommend import DepthEvidence, Recommendation, recommend

__all__ = [
    "AttainableCosine",
    "CosineByTime",
    "DepthEvidence",
    "DepthTable",
    "GradientStatistics",
    "GradientTable",
    "Probe",
    "Recommendation",
    "attainable_cosine",
    "block_paths",
    "by_depth",
    "cka",
    "cknna",
    "cosine_by_time",
    "gradient_table",
    "hsic",
    "log_likelihood",
    "posterior",
    "probe",
    "recommend",
    "unit_rows",
]
