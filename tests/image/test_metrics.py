"""Figures of merit as functions of features: against closed forms, naive loops, and at their edges."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reed_core.errors import InputError
from reed_image.encoders import VisionEncoder
from reed_image.metrics import (
    Features,
    Gaussian,
    GaussianStream,
    Record,
    Statistics,
    density_coverage,
    frechet_distance,
    gaussian,
    inception_score,
    kernel_distance,
    linear_probe,
    precision_recall,
    read_statistics,
    squared_mmd,
    write_statistics,
)
from reed_image.metrics.extractor import EncoderExtractor
from scipy.linalg import sqrtm
from torch import Tensor, nn


def rows(count: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mix + shift


def slow_frechet(one: Gaussian, other: Gaussian) -> float:
    """The formula as it is written, by the square root of a matrix that need not be symmetric."""
    a, b = one.covariance.numpy(), other.covariance.numpy()
    apart = (one.mean - other.mean).numpy()
    return float(apart @ apart + np.trace(a) + np.trace(b) - 2 * np.trace(np.real(sqrtm(a @ b))))


def test_frechet_of_gaussians_whose_distance_is_known() -> None:
    first, second = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 9.0, 0.0]).double()
    mean = torch.tensor([1.0, -2.0, 0.5]).double()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()).Q
    one = Gaussian(torch.zeros(3).double(), turn @ first.diag() @ turn.T)
    other = Gaussian(mean, turn @ second.diag() @ turn.T)
    known = float(mean.square().sum() + (first.sqrt() - second.sqrt()).square().sum())
    assert frechet_distance(one, other) == pytest.approx(known, rel=1e-12)
    # 2 x 2, not commuting: tr (AB)^(1/2) = sqrt(tr AB + 2 sqrt(det A det B))
    a, b = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double(), torch.tensor([[5.0, -2.0], [-2.0, 1.0]]).double()
    assert not torch.allclose(a @ b, b @ a)
    root = ((a @ b).trace() + 2 * (a.det() * b.det()).sqrt()).sqrt()
    zero = torch.zeros(2).double()
    found = frechet_distance(Gaussian(zero, a), Gaussian(zero, b))
    assert found == pytest.approx(float(a.trace() + b.trace() - 2 * root), rel=1e-12)
    # scaling: the distance of x and s x + m
    x = rows(400, 5, 1)
    scaled = gaussian(3 * x + 2)
    own = gaussian(x)
    expected = float((2 * own.mean + 2).square().sum() + 4 * own.covariance.trace())
    assert frechet_distance(own, scaled) == pytest.approx(expected, rel=1e-10)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 9), st.integers(0, 10_000))
def test_frechet_as_by_the_slow_square_root(width: int, seed: int) -> None:
    one, other = gaussian(rows(60, width, seed)), gaussian(rows(50, width, seed + 1, shift=0.3))
    found = frechet_distance(one, other)
    assert found == pytest.approx(slow_frechet(one, other), rel=1e-6, abs=1e-8)
    assert found == pytest.approx(frechet_distance(other, one), rel=1e-9)
    assert frechet_distance(one, one) < 1e-9 * float(one.covariance.trace())


def test_frechet_of_low_rank() -> None:
    x, y = rows(6, 40, 0), rows(9, 40, 1)
    one, other = gaussian(x), gaussian(y)
    assert torch.linalg.matrix_rank(one.covariance) == 5
    # without the zeros of the null space: singular values of the centred rows
    across = (x - x.mean(0)) @ (y - y.mean(0)).T / (5 * 8) ** 0.5
    shared = float(torch.linalg.svdvals(across).sum())
    apart = float((one.mean - other.mean).square().sum() + one.covariance.trace() + other.covariance.trace())
    assert frechet_distance(one, other) == pytest.approx(apart - 2 * shared, rel=1e-10)
    # a space that one fills and the other does not touch adds its own trace alone
    flat = Gaussian(torch.zeros(2).double(), torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double())
    tall = Gaussian(torch.zeros(2).double(), torch.tensor([[0.0, 0.0], [0.0, 4.0]]).double())
    assert frechet_distance(flat, tall) == pytest.approx(5.0, rel=1e-12)
    point = Gaussian(torch.ones(2).double(), torch.zeros(2, 2).double())
    assert frechet_distance(point, point) == 0
    assert frechet_distance(point, flat) == pytest.approx(3.0, rel=1e-12)


@pytest.mark.parametrize("width", [1, 3, 20])
def test_sums_do_not_depend_on_batches(width: int) -> None:
    x = rows(700, width, 3, shift=1e3).float()
    whole = gaussian(x)
    for size in (1, 7, 256, 300, 699):
        stream = GaussianStream()
        for part in x.split(size):
            stream.add(part)
        found = stream.finish()
        assert found.count == 700
        assert torch.equal(found.mean, whole.mean)
        assert torch.equal(found.covariance, whole.covariance)
    assert torch.allclose(whole.mean, x.double().mean(0), rtol=1e-14)
    direct = torch.from_numpy(np.cov(x.double().numpy(), rowvar=False)).reshape(width, width)
    assert torch.allclose(whole.covariance, direct, rtol=1e-10, atol=1e-10)


def test_a_stream_can_be_asked_on_the_way() -> None:
    x, stream = rows(300, 4, 0), GaussianStream()
    stream.add(x[:40])
    assert torch.equal(stream.finish().covariance, gaussian(x[:40]).covariance)
    stream.add(x[40:])
    assert torch.equal(stream.finish().covariance, gaussian(x).covariance)


def test_what_has_no_covariance_is_refused() -> None:
    for wrong in (torch.zeros(1, 3), torch.tensor([[1.0], [torch.nan]])):
        with pytest.raises(InputError):
            gaussian(wrong)
    with pytest.raises(InputError, match="two or more"):
        GaussianStream().finish()
    with pytest.raises(InputError, match="of different encoders"):
        frechet_distance(gaussian(rows(5, 2, 0)), gaussian(rows(5, 3, 0)))
    stream = GaussianStream()
    stream.add(torch.zeros(2, 3))
    with pytest.raises(InputError, match="width 4"):
        stream.add(torch.zeros(2, 4))


def slow_mmd(x: Tensor, y: Tensor) -> float:
    def kernel(one: Tensor, other: Tensor) -> float:
        return (float(one @ other) / len(one) + 1) ** 3

    def mean(pairs: list[float]) -> float:
        return sum(pairs) / len(pairs)

    own = [mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    return own[0] + own[1] - 2 * mean([kernel(a, b) for a in x for b in y])


def test_kernel_distance_is_the_loop() -> None:
    x, y = rows(7, 3, 0), rows(5, 3, 1, shift=0.5)
    assert squared_mmd(x, y) == pytest.approx(slow_mmd(x, y), rel=1e-10)
    whole = kernel_distance(x[:5], y, subsets=3, size=5)
    assert whole.mean == pytest.approx(slow_mmd(x[:5], y), rel=1e-9)
    assert whole.deviation == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn(2, 4000, 6, generator=generator)
    found = torch.tensor([squared_mmd(x, y) for x, y in zip(*(side.split(40) for side in pairs), strict=True)])
    assert abs(float(found.mean())) < 3 * float(found.std()) / len(found) ** 0.5
    assert float(found.min()) < 0  # of a single small set it falls below 0: it is not clamped
    same, other = (kernel_distance(pairs[0], pairs[1] + shift, subsets=5) for shift in (0, 0.5))
    assert abs(same.mean) < 0.02 < 0.2 < other.mean
    assert same.size == 1000
    assert kernel_distance(pairs[0, :9], pairs[1]).size == 4
    assert kernel_distance(pairs[0], pairs[1], subsets=5) == same
    with pytest.raises(InputError, match="width"):
        kernel_distance(pairs[0], pairs[1][:, :3])


def test_score_lies_between_one_and_the_number_of_classes() -> None:
    one_hot = 1e5 * torch.eye(5).repeat(20, 1)
    score = inception_score(one_hot, splits=1)
    assert score.mean == pytest.approx(5.0, rel=1e-12)
    assert inception_score(torch.zeros(40, 7)).mean == pytest.approx(1.0, rel=1e-12)
    assert inception_score(1e5 * torch.eye(5)[:1].repeat(30, 1), splits=3).mean == pytest.approx(1.0)
    logits = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).double()
    p = logits.softmax(1)
    direct = (p * (p.log() - p.mean(0).log())).sum(1).mean().exp()
    assert inception_score(logits, splits=1).mean == pytest.approx(float(direct), rel=1e-12)
    # sorted by class: cut in order, every part would have one class and the score 1
    ordered = 1e5 * torch.eye(10).repeat_interleave(50, 0)
    assert inception_score(ordered, splits=10).mean > 8
    with pytest.raises(InputError):
        inception_score(logits, splits=61)


def slow_shares(real: Tensor, fake: Tensor, k: int) -> tuple[float, float, float, float]:
    """Precision, recall, density, coverage by loops."""

    def radius(points: Tensor, place: int) -> float:
        return sorted(float((points[place] - other).norm()) for i, other in enumerate(points) if i != place)[k - 1]

    of_real, of_fake = ([radius(points, place) for place in range(len(points))] for points in (real, fake))
    apart = [[float((x - y).norm()) for y in fake] for x in real]
    n, m = len(real), len(fake)
    precision = sum(any(apart[i][j] <= of_real[i] for i in range(n)) for j in range(m)) / m
    recall = sum(any(apart[i][j] <= of_fake[j] for j in range(m)) for i in range(n)) / n
    density = sum(apart[i][j] < of_real[i] for i in range(n) for j in range(m)) / (k * m)
    coverage = sum(any(apart[i][j] < of_real[i] for j in range(m)) for i in range(n)) / n
    return precision, recall, density, coverage


def fast_shares(real: Tensor, fake: Tensor, k: int, **settings: Any) -> tuple[float, float, float, float]:
    first, second = precision_recall(real, fake, k, **settings), density_coverage(real, fake, k, **settings)
    return first.precision, first.recall, second.density, second.coverage


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(5, 16), st.integers(5, 16), st.floats(0, 3))
def test_manifolds_are_the_loops(seed: int, k: int, n: int, m: int, shift: float) -> None:
    real, fake = rows(n, 2, seed), rows(m, 2, seed + 1, shift)
    found = fast_shares(real, fake, k)
    assert found == pytest.approx(slow_shares(real, fake, k), abs=1e-12)
    assert fast_shares(real + 100, fake + 100, k, entries=7) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_manifolds_at_their_edges(k: int) -> None:
    x = rows(50, 8, 0)
    far = x + 1e4
    assert fast_shares(x, x, k) == pytest.approx((1, 1, 1, 1), abs=1e-12)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert fast_shares(x, x[order].float().double(), k)[:2] == (1, 1)
    assert fast_shares(x, far, k) == (0, 0, 0, 0)
    collapsed = x[:1].repeat(50, 1)
    found = fast_shares(x, collapsed, k)
    assert found[0] == 1  # every drawn picture is a real one
    assert found[1] == pytest.approx(1 / 50)  # and one real picture is drawn: balls of radius 0 are no larger
    assert found[3] < 0.5
    with pytest.raises(InputError, match="neighbour"):
        precision_recall(x[:k], x, k)
    with pytest.raises(InputError, match="width"):
        density_coverage(x, x[:, :3], k)


def test_a_linear_probe_reads_what_is_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (300,), generator=generator)
    noise = torch.randn(300, 10, generator=generator)
    told = noise + 6 * torch.nn.functional.one_hot(labels, 10)
    read, blind = linear_probe(told, labels), linear_probe(noise, labels)
    assert read.accuracy > 0.95
    assert abs(blind.accuracy - 1 / 3) < 4 * blind.error
    assert read.chance < 0.6
    assert read.tested == 60
    assert linear_probe(told, labels + 5) == read  # the names of classes do not matter
    assert linear_probe(told * 1e3 - 7, labels).accuracy == read.accuracy
    with pytest.raises(InputError, match="two"):
        linear_probe(told, torch.zeros(300, dtype=torch.long))


class Network:
    """An extractor by name alone."""

    classifies, preprocessing = False, "as it is"

    def __init__(self, name: str = "net", fingerprint: str = "weights=1 size=32") -> None:
        self.name, self.fingerprint = name, fingerprint

    def __call__(self, pixels: Tensor) -> Features:
        return Features(pixels.float().mean((2, 3)), None)


def written(path: Path, **changes: Any) -> Statistics:
    values: dict[str, Any] = {
        "encoder": "net",
        "fingerprint": "weights=1 size=32",
        "preprocessing": "as it is",
        "side": 32,
        "count": 20,
        "description": "pictures",
    }
    found = Statistics(gaussian(rows(20, 4, 0)), Record(**{**values, **changes}))
    write_statistics(path, found)
    return found


def test_statistics_come_back_and_belong_to_their_encoder(tmp_path: Path) -> None:
    place = tmp_path / "own.safetensors"
    kept = written(place)
    found = read_statistics(place)
    assert torch.equal(found.gaussian.covariance, kept.gaussian.covariance)
    assert torch.equal(found.gaussian.mean, kept.gaussian.mean)
    assert found.record == kept.record
    assert found.gaussian.count == 20
    found.check(Network(), 32)
    for wrong, side, said in (
        (Network("other"), 32, "of net, the features of other"),
        (Network(fingerprint="weights=2 size=32"), 32, r"encoder \(weights\) differs"),
        (Network(fingerprint="weights=1 size=64"), 32, r"encoder \(size\) differs"),
        (Network(), 64, "--size 64"),
    ):
        with pytest.raises(InputError, match=said):
            found.check(wrong, side)
    with pytest.raises(InputError, match="safetensors"):
        write_statistics(tmp_path / "own.npz", kept)


def test_references_of_adm_are_read(tmp_path: Path) -> None:
    x, spatial = rows(30, 4, 0).numpy(), rows(30, 3, 1).numpy()
    values = {"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)}
    whole = {**values, "mu_s": spatial.mean(0), "sigma_s": np.cov(spatial, rowvar=False)}
    np.savez(tmp_path / "whole.npz", **whole, arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    found = read_statistics(tmp_path / "whole.npz")
    assert found.gaussian.count is None
    assert found.spatial is not None
    assert torch.allclose(found.gaussian.covariance, gaussian(torch.from_numpy(x)).covariance)
    assert torch.allclose(found.spatial.covariance, gaussian(torch.from_numpy(spatial)).covariance)
    found.check(Network("inception"), 64)
    with pytest.raises(InputError, match="of inception"):
        found.check(Network(), 64)
    np.savez(tmp_path / "part.npz", **{name: value.astype(np.float32) for name, value in values.items()})
    assert read_statistics(tmp_path / "part.npz").spatial is None


def test_what_is_no_file_of_statistics_is_refused(tmp_path: Path) -> None:
    good = {"mu": np.zeros(3), "sigma": np.eye(3)}
    wrong: dict[str, dict[str, Any]] = {
        "pictures": {"arr_0": np.zeros((2, 4, 4, 3), np.uint8)},
        "shape": {**good, "sigma": np.eye(4)},
        "axes": {**good, "mu": np.zeros((3, 1))},
        "nan": {**good, "mu": np.full(3, np.nan)},
        "askew": {**good, "sigma": np.triu(np.ones((3, 3)))},
        "pickle": {**good, "mu": np.array([{}], dtype=object)},
    }
    for name, values in wrong.items():
        np.savez(tmp_path / f"{name}.npz", **values)
        with pytest.raises(InputError):
            read_statistics(tmp_path / f"{name}.npz")
    for name in ("torn.npz", "torn.safetensors", "absent.npz"):
        if "torn" in name:
            (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(InputError):
            read_statistics(tmp_path / name)


def test_making_smaller_is_antialiased() -> None:
    class Contrast(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.std((2, 3))

    zero, one = (0.0,) * 3, (1.0,) * 3
    network = Contrast()
    extractor = EncoderExtractor("contrast", VisionEncoder("contrast", network, network, 24, "global", zero, one))
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255
    found = extractor(board.to(torch.uint8).expand(2, 3, 64, 64))
    assert float(found.pooled.max()) < 0.05  # skipping pixels would leave 0.5
    kept = extractor(board[:24, :24].to(torch.uint8).expand(1, 3, 24, 24))
    assert torch.allclose(kept.pooled, torch.full((1, 3), 0.5), atol=1e-2)
    assert "antialiased, to 24" in extractor.preprocessing
