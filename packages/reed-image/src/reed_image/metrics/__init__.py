"""Figures of merit of pictures: functions of feature arrays. What makes features is in the modules beside them."""

from reed_image.metrics.features import Extractor, Features
from reed_image.metrics.gaussian import Gaussian, GaussianStream, frechet_distance, gaussian
from reed_image.metrics.kernel import KernelDistance, kernel_distance, squared_mmd
from reed_image.metrics.linear_probe import LinearProbe, linear_probe
from reed_image.metrics.manifold import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from reed_image.metrics.score import Score, inception_score
from reed_image.metrics.statistics import Record, Statistics, read_statistics, write_statistics

__all__ = [
    "DensityCoverage",
    "Extractor",
    "Features",
    "Gaussian",
    "GaussianStream",
    "KernelDistance",
    "LinearProbe",
    "PrecisionRecall",
    "Record",
    "Score",
    "Statistics",
    "density_coverage",
    "frechet_distance",
    "gaussian",
    "inception_score",
    "kernel_distance",
    "linear_probe",
    "precision_recall",
    "read_statistics",
    "squared_mmd",
    "write_statistics",
]
