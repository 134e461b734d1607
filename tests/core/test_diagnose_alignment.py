"""CKA and CKNNA against double loops; invariances; the table over depth."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reed_core.diagnose import block_paths, by_depth, cka, cknna, hsic, probe, unit_rows
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.process import Interpolant
from reed_core.train import Batch
from torch import Tensor, nn

SEEDS = st.integers(0, 10_000)


def features(seed: int, n: int = 24, d: int = 5) -> tuple[Tensor, Tensor]:
    """Two related sets of features, of different widths."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, d, generator=generator, dtype=torch.float64)
    b = torch.tanh(a @ torch.randn(d, d + 2, generator=generator, dtype=torch.float64))
    return a, b + 0.5 * torch.randn(n, d + 2, generator=generator, dtype=torch.float64)


def rotation(seed: int, d: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]


def slow_unbiased(K: list[list[float]], L: list[list[float]]) -> float:
    """Song et al., eq. 4: averages over tuples of different samples, in loops."""
    n = len(K)
    pairs = triples = quadruples = 0.0
    for i in range(n):
        for j in range(n):
            if j == i:
                continue
            pairs += K[i][j] * L[j][i]
            for q in range(n):
                if q in (i, j):
                    continue
                triples += 0.5 * (K[i][j] * L[j][q] + L[i][j] * K[j][q])
                for r in range(n):
                    if r not in (i, j, q):
                        quadruples += K[i][j] * L[q][r]
    return (
        pairs / (n * (n - 1)) + quadruples / (n * (n - 1) * (n - 2) * (n - 3)) - 2 * triples / (n * (n - 1) * (n - 2))
    )


def slow_masked(K: list[list[float]], L: list[list[float]]) -> float:
    """Song et al., eq. 5, in loops, as it is applied to kernels that are not symmetric. Diagonals are 0."""
    n = range(len(K))
    m = len(K)
    pairs = sum(K[i][j] * L[j][i] for i in n for j in n)
    chains = sum(0.5 * (K[i][j] * L[j][q] + L[i][j] * K[j][q]) for i in n for j in n for q in n)
    product = sum(K[i][j] for i in n for j in n) * sum(L[i][j] for i in n for j in n)
    return (pairs + product / ((m - 1) * (m - 2)) - 2 * chains / (m - 2)) / (m * (m - 3))


def slow_neighbours(K: list[list[float]], k: int) -> list[set[int]]:
    return [set(sorted((j for j in range(len(K)) if j != i), key=lambda j: -K[i][j])[:k]) for i in range(len(K))]


def slow_cknna(a: Tensor, b: Tensor, k: int, unbiased: bool) -> float:
    K, L = (a @ a.T).tolist(), (b @ b.T).tolist()
    n, near_K, near_L = len(K), slow_neighbours(K, k), slow_neighbours(L, k)

    def local(A: list[list[float]], B: list[list[float]], near_A: list[set[int]], near_B: list[set[int]]) -> float:
        near = [[j in near_A[i] and j in near_B[i] for j in range(n)] for i in range(n)]
        if unbiased:
            masked = [[[row[j] * near[i][j] for j in range(n)] for i, row in enumerate(M)] for M in (A, B)]
            return slow_masked(*masked)
        total = 0.0
        for i in range(n):
            for j in range(n):
                if near[i][j]:
                    total += (A[i][j] - sum(A[i]) / n) * (B[i][j] - sum(B[i]) / n)
        return total

    across = local(K, L, near_K, near_L)
    return across / math.sqrt(local(K, K, near_K, near_K) * local(L, L, near_L, near_L))


@pytest.mark.parametrize("unbiased", [False, True])
def test_against_double_loops(unbiased: bool) -> None:
    a, b = features(1, n=9)
    K, L = a @ a.T, b @ b.T
    if unbiased:
        assert hsic(K, L).item() == pytest.approx(slow_unbiased(K.tolist(), L.tolist()))
    else:
        H = torch.eye(9, dtype=torch.float64) - 1 / 9
        assert hsic(K, L, unbiased=False).item() == pytest.approx(torch.trace(K @ H @ L @ H).item() / 64)
    assert cknna(a, b, 4, unbiased) == pytest.approx(slow_cknna(a, b, 4, unbiased))


def test_the_unbiased_criterion_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    found = [
        [hsic(x @ x.T, y @ y.T, unbiased).item() for unbiased in (True, False)]
        for x, y in (torch.randn(2, 12, 3, generator=generator, dtype=torch.float64) for _ in range(400))
    ]
    mean, error = torch.tensor(found).mean(0), torch.tensor(found).std(0) / 20
    assert abs(mean[0]) < 4 * error[0]
    assert mean[1] > 10 * error[1]


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_rotation_scale_and_order_do_not_count(seed: int) -> None:
    a, b = features(seed)
    turned, order = 3.7 * a @ rotation(seed, 5), torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    for measure in (
        cka,
        lambda x, y: cka(x, y, debiased=True),
        lambda x, y: cknna(x, y, 5),
        lambda x, y: cknna(x, y, 5, unbiased=True),
    ):
        value = measure(a, b)
        assert measure(turned, b) == pytest.approx(value)
        assert measure(b, a) == pytest.approx(value)
        assert measure(a[order], b[order]) == pytest.approx(value)
        assert measure(a, turned) == pytest.approx(1.0)
        assert value <= 1.0 + 1e-9
    assert cka(a + 5.0, b) == pytest.approx(cka(a, b))


def test_unrelated_features_are_not_alike() -> None:
    a, b = torch.randn(2, 300, 200, generator=torch.Generator().manual_seed(0))
    assert abs(cka(a, b, debiased=True)) < 0.02
    assert cka(a, b) > 0.3  # the bias that the debiased one is there for
    assert cknna(unit_rows(a), unit_rows(b)) < 0.06
    assert abs(cknna(unit_rows(a), unit_rows(b), unbiased=True)) < 0.06


def test_a_common_mean_hides_neighbours_until_it_is_taken_off() -> None:
    a, _ = features(3, n=200)
    common = torch.zeros(5, dtype=torch.float64)
    common[0] = 300.0
    shifted = a + common
    assert cknna(a, shifted) < 0.5
    assert cknna(unit_rows(a), unit_rows(shifted)) == pytest.approx(1.0)


def test_what_cannot_be_compared() -> None:
    a, b = features(0)
    with pytest.raises(InputError, match="as many of both"):
        cka(a, b[:5])
    with pytest.raises(InputError, match="neighbours"):
        cknna(a, b, 24)
    assert math.isnan(cka(torch.ones(8, 2), b[:8]))


def test_a_probe_reads_what_is_linear_and_nothing_else() -> None:
    a, _ = features(0, n=400)
    generator = torch.Generator().manual_seed(1)
    z = a @ torch.randn(5, 3, generator=generator, dtype=torch.float64)
    assert probe(a, z).cosine > 0.9
    shuffled = probe(a, z[torch.randperm(400, generator=generator)])
    assert abs(shuffled.cosine - shuffled.constant) < 5 * shuffled.error
    # rows of a sample share its z: apart, they would give each other away
    number = torch.arange(400) // 8
    own, z = torch.randn(2, 50, 60, generator=generator, dtype=torch.float64)[:, number]
    assert probe(own, z).cosine > 0.5
    assert abs(probe(own, z, number).cosine) < 0.1
    with pytest.raises(InputError, match="folds"):
        probe(a[:3], z[:3])


class Stack(nn.Module):
    """Random layers; nothing trained."""

    def __init__(self, depth: int = 4, width: int = 24) -> None:
        super().__init__()
        self.inlet = nn.Linear(3, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth))
        with torch.no_grad():
            for block in self.blocks:
                block[0].weight.mul_(4.0)

    def forward(self, x_t: Tensor, t: Tensor, c: object = None) -> Tensor:
        h = self.inlet(x_t)
        for block in self.blocks:
            h = block(h)
        return h[..., :3]


def test_the_depth_that_holds_z_is_found() -> None:
    torch.manual_seed(0)
    net = Stack()
    x_0 = torch.randn(160, 3)
    with torch.no_grad():
        h = net.inlet(x_0)
        z = net.blocks[1](net.blocks[0](h))
    batches = [Batch(x_0[part], z={"z": Representation(z[part])}) for part in (slice(0, 100), slice(100, 160))]
    table = by_depth(net, Interpolant(), block_paths(net), "z", batches, (0.001, 0.5, 0.99), k=8)
    assert table.taps == ("blocks.0", "blocks.1", "blocks.2", "blocks.3")
    assert table.rows == 160
    assert table.cka[:, 0].argmax() == 1
    assert table.cknna[:, 0].argmax() == 1
    assert table.cknna[1, 0] > 0.95
    assert table.probe[1, 0] > 0.99
    assert bool((table.cka[:, 0] > table.cka[:, 1]).all())
    assert bool((table.cka[:, 2].abs() < 0.1).all())  # noise says nothing
    assert bool((table.probe[:, 2] < table.constant[2] + 0.1).all())
    assert net.training


def test_elements_are_compared_one_by_one_and_padding_is_not() -> None:
    torch.manual_seed(0)
    net = Stack(2)
    x_0, z = torch.randn(40, 5, 3), torch.randn(40, 5, 4)
    mask = torch.arange(5) < torch.randint(2, 6, (40, 1))
    rough = torch.where(mask[..., None], z, torch.nan)

    def table(value: Tensor, over: str, limit: int = 4096) -> Tensor:
        batch = Batch(x_0, mask=mask, z={"z": Representation(value)})
        found = by_depth(net, Interpolant(), ["blocks.1"], "z", [batch], [0.3], over=over, limit=limit, k=5)
        assert found.rows == min(limit, int(mask.sum()) if over == "elements" else 40)
        return torch.stack([found.cka, found.cknna, found.probe])

    for over in ("samples", "elements"):
        torch.testing.assert_close(table(rough, over), table(z, over))
    assert table(z, "elements", limit=60).isfinite().all()
    with pytest.raises(InputError, match="do not match"):
        table(z[:, :3], "elements")


def test_blocks_that_cannot_be_told_apart() -> None:
    with pytest.raises(InputError, match="name the paths"):
        block_paths(nn.Linear(2, 2))
    with pytest.raises(InputError, match="name the paths"):
        block_paths(nn.ModuleDict({"a": nn.Sequential(nn.Tanh(), nn.Tanh()), "b": nn.Sequential(nn.ReLU(), nn.ReLU())}))
