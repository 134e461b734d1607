"""Judging pictures against real ones, and hidden states against classes and encoders: what `evaluate` prints.

Figures are named by what they are. `fid`, `kid` and `is` are those of InceptionV3 with the published weights; with any
other encoder they are `fd[ENCODER]`, `kid[ENCODER]` and `is[ENCODER]`, and never FID: their numbers do not compare.

Features are made in one pass over the pictures; without kid, pr, dc or a floor only sums are kept (`GaussianStream`).
The floor is the same figure between two disjoint random parts of the reference: what a perfect model would score with
so many pictures. The first part has as many pictures as were judged, and at most half.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from reed_core.errors import InputError
from torch import Tensor

from reed_image.metrics.features import Extractor
from reed_image.metrics.gaussian import Gaussian, GaussianStream, frechet_distance, gaussian
from reed_image.metrics.inception import INCEPTION
from reed_image.metrics.kernel import kernel_distance
from reed_image.metrics.manifold import NEIGHBOURS_DC, NEIGHBOURS_PR, density_coverage, precision_recall
from reed_image.metrics.pictures import Pictures, Squares
from reed_image.metrics.report import Figure, Report
from reed_image.metrics.score import SPLITS, inception_score
from reed_image.metrics.statistics import Record, Statistics

Metric = Literal["fd", "kid", "pr", "dc", "is"]
METRICS: tuple[Metric, ...] = ("fd", "kid", "pr", "dc", "is")
_PAIRED = frozenset(("kid", "pr", "dc"))  # which need the features of both sides, and not their Gaussians alone
Progress = Callable[[int], Any]


@dataclass(frozen=True)
class Collected:
    """What one pass over some pictures left, for one extractor.

    Attributes:
        gaussian: Mean and covariance of the features.
        features: All of them, float32 on the CPU, where they are needed.
        logits: Likewise.
    """

    gaussian: Gaussian
    features: Float[Tensor, "n d"] | None
    logits: Float[Tensor, "n k"] | None

    @property
    def count(self) -> int:
        """Pictures."""
        return int(self.gaussian.count or 0)


def collect(
    squares: Squares,
    extractors: Sequence[Extractor],
    batch: int = 64,
    keep: bool = True,
    logits: bool = False,
    progress: Progress | None = None,
) -> list[Collected]:
    """Features of some pictures by every extractor, in one pass.

    Args:
        squares: The pictures.
        extractors: The extractors.
        batch: Pictures at once.
        keep: Whether all features are kept, or their sums alone.
        logits: Whether logits are kept, of extractors that have them.
        progress: Called with the number of pictures of each batch.

    Raises:
        InputError: If the pictures cannot be used, or are fewer than two.
    """
    streams = [GaussianStream() for _ in extractors]
    features: list[list[Tensor]] = [[] for _ in extractors]
    said: list[list[Tensor]] = [[] for _ in extractors]
    for pixels in squares.batches(batch):
        for place, extractor in enumerate(extractors):
            found = extractor(pixels)
            pooled = found.pooled.float().cpu()
            streams[place].add(pooled)
            if keep:
                features[place].append(pooled)
            if logits and found.logits is not None:
                said[place].append(found.logits.float().cpu())
        if progress is not None:
            progress(len(pixels))
    return [
        Collected(stream.finish(), torch.cat(rows) if rows else None, torch.cat(own) if own else None)
        for stream, rows, own in zip(streams, features, said, strict=True)
    ]


def metrics_of(text: str, featured: bool = True) -> tuple[Metric, ...]:
    """The metrics that were asked for, in the order of `METRICS`.

    Args:
        text: Their names, with commas between.
        featured: Whether the reference is pictures, and not statistics alone.

    Raises:
        InputError: If one is unknown, asked twice, or needs the pictures.
    """
    names = text.split(",")
    if any(one not in METRICS for one in names) or len(set(names)) != len(names):
        raise InputError(f"metrics {text or 'none'}: expected some of {','.join(METRICS)}, each once")
    needs = [one for one in names if one in _PAIRED]
    if needs and not featured:
        raise InputError(f"{needs[0]} compares pictures with pictures; give --reference in place of --statistics")
    return tuple(one for one in METRICS if one in names)


def needs_features(metrics: Sequence[str]) -> bool:
    """Whether metrics need the features of every picture, and not their sums alone."""
    return not _PAIRED.isdisjoint(metrics)


def figures(
    extractor: Extractor,
    drawn: Collected,
    real: Collected | Statistics | None,
    metrics: Sequence[str],
    seed: int = 0,
    device: Any = "cpu",
) -> list[Figure]:
    """The figures of one extractor.

    Args:
        extractor: What made the features.
        drawn: What is judged.
        real: What it is compared with.
        metrics: Which figures; those that the extractor or the reference cannot give are left out.
        seed: Seeds subsets and parts.
        device: Where distances are computed; it must have float64.
    """
    canonical = extractor.name == INCEPTION
    found: list[Figure] = []

    def name(kind: str, plain: str | None = None) -> str:
        return plain if canonical and plain is not None else f"{kind}[{extractor.name}]"

    def add(kind: str, value: float, deviation: float | None, against: int | None) -> None:
        found.append(Figure(kind, value, deviation, drawn.count, against))

    if real is not None and "fd" in metrics:
        add(
            name("fd", "fid"),
            frechet_distance(drawn.gaussian.to(device), real.gaussian.to(device)),
            None,
            real.gaussian.count,
        )
    if isinstance(real, Collected) and real.features is not None and drawn.features is not None:
        x, y = real.features.to(device), drawn.features.to(device)
        if "kid" in metrics:
            kernel = kernel_distance(x, y, seed=seed)
            add(name("kid", "kid"), kernel.mean, kernel.deviation, real.count)
        if "pr" in metrics:
            shares = precision_recall(x, y)
            add(name("precision"), shares.precision, None, real.count)
            add(name("recall"), shares.recall, None, real.count)
        if "dc" in metrics:
            cover = density_coverage(x, y)
            add(name("density"), cover.density, None, real.count)
            add(name("coverage"), cover.coverage, None, real.count)
    if "is" in metrics and drawn.logits is not None:
        score = inception_score(drawn.logits, min(SPLITS, drawn.count), seed)
        add(name("is", "is"), score.mean, score.deviation, 0)
    return found


def floor_figures(
    extractor: Extractor, real: Collected, judged: int, metrics: Sequence[str], seed: int = 0, device: Any = "cpu"
) -> list[Figure]:
    """The figures between two disjoint parts of the reference, drawn at random.

    Args:
        extractor: What made the features.
        real: The reference, with its features.
        judged: Pictures that were judged: the size of the first part, up to half of the reference.
        metrics: Which figures.
        seed: Seeds the parts.
        device: As of `figures`.

    Raises:
        InputError: If the reference is too small.
    """
    least = 2 + max(NEIGHBOURS_PR, NEIGHBOURS_DC)
    if real.features is None or real.count < 2 * least:
        raise InputError(f"a floor from {real.count} pictures of the reference; it needs {2 * least}")
    order = torch.randperm(real.count, generator=torch.Generator().manual_seed(seed))
    cut = min(judged, real.count // 2)
    parts = []
    for rows in (order[:cut], order[cut:]):
        own = real.features[rows]
        parts.append(Collected(gaussian(own), own, None if real.logits is None else real.logits[rows]))
    return figures(extractor, parts[0], parts[1], metrics, seed, device)


def evaluate(
    samples: Pictures,
    reference: Pictures | Statistics,
    extractors: Sequence[Extractor],
    metrics: Sequence[str],
    *,
    side: int | None = None,
    floor: bool = False,
    batch: int = 64,
    seed: int = 0,
    device: Any = "cpu",
    progress: tuple[Progress | None, Progress | None] = (None, None),
) -> tuple[Report, list[Statistics]]:
    """Judges pictures against a reference.

    Args:
        samples: What is judged.
        reference: Real pictures, or their statistics.
        extractors: What makes features; with statistics, the one they are of.
        metrics: Some of `METRICS`.
        side: Side that samples are cropped to; None: they have one side, and it stays.
        floor: Whether the figures are computed within the reference, too.
        batch: Pictures at once; figures do not depend on it but for rounding within the network.
        seed: Seeds subsets and parts.
        device: Where distances are computed.
        progress: Called with the number of samples, and of pictures of the reference, of each batch.

    Returns:
        The report, and statistics of the reference by each extractor.

    Raises:
        InputError: If something cannot be compared.
    """
    chosen = metrics_of(",".join(metrics), isinstance(reference, Pictures))
    if "is" in chosen and not any(one.classifies for one in extractors):
        raise InputError("is needs a classifier: --encoder inception, or resnet20; leave it out with another encoder")
    if isinstance(reference, Statistics):
        if len(extractors) != 1:
            raise InputError(f"{len(extractors)} encoders for statistics of one; give the encoder they are of")
        reference.check(extractors[0])
        if floor:
            raise InputError("a floor is between pictures of the reference; give --reference in place of --statistics")
    keep, scored = needs_features(chosen), "is" in chosen
    shown = Squares(samples, side, None if side is None else "adm")
    drawn = collect(shown, extractors, batch, keep, scored, progress[0])
    assert shown.side is not None
    if isinstance(reference, Statistics):
        reference.check(extractors[0], shown.side)
        report = Report(samples.description, reference.record.description, shown.side)
        statistics, real = [reference], None
    else:
        squares = Squares(reference, shown.side, "adm")
        real = collect(squares, extractors, batch, keep or floor, scored and floor, progress[1])
        report = Report(samples.description, reference.description, shown.side)
        statistics = [described(one, found.gaussian, squares) for one, found in zip(extractors, real, strict=True)]
        report.warnings += [*_remarks("sample", shown), *_remarks("reference", squares)]
    for place, extractor in enumerate(extractors):
        against = statistics[place] if real is None else real[place]
        width = len(drawn[place].gaussian.mean)
        own = {key: getattr(extractor, key) for key in ("name", "fingerprint", "preprocessing")}
        report.encoders.append({**own, "width": width})
        report.figures += figures(extractor, drawn[place], against, chosen, seed, device)
        if floor and real is not None:
            report.floor += floor_figures(extractor, real[place], drawn[place].count, chosen, seed, device)
        if "fd" in chosen:
            report.warnings += _bias(extractor.name, drawn[place].count, against.gaussian.count, width)
    return report, statistics


def described(extractor: Extractor, found: Gaussian, squares: Squares) -> Statistics:
    """Statistics with all they depend on."""
    record = Record(
        encoder=extractor.name,
        fingerprint=extractor.fingerprint,
        preprocessing=extractor.preprocessing,
        side=squares.side,
        count=found.count,
        description=squares.pictures.description,
    )
    return Statistics(found, record)


def _bias(name: str, drawn: int, real: int | None, width: int) -> list[str]:
    """What is to be said of a Frechet distance of so few pictures."""
    least = min(drawn, real) if real is not None else drawn
    if least <= width:
        return [
            f"{least} pictures for {width} features of {name}: the covariance has rank {least - 1}, and the Frechet "
            "distance is far too large; it compares only with figures of the same number of pictures"
        ]
    if drawn < 10_000:
        return [
            f"the Frechet distance of {drawn} pictures ({name}) is biased upward; compare figures of equal numbers only"
        ]
    return []


def _remarks(what: str, squares: Squares) -> list[str]:
    said = []
    if squares.unusable:
        said.append(f"{squares.unusable} {what} pictures cannot be used and are left out")
    if squares.changed:
        larger = f", {squares.enlarged} of them enlarged" if squares.enlarged else ""
        said.append(f"{squares.changed} {what} pictures were cropped to {squares.side} pixels{larger}")
    return said
