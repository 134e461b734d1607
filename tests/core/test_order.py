"""The order of data: permutations, and batches of similar sizes within a budget, against a slow obvious planner."""

import numpy as np
import pytest
from reed_core.train.order import Cost, even, groups, permutation, shuffler


def one_by_one(
    sizes: np.ndarray, budget: int, cost: Cost, generator: np.random.Generator, order: np.ndarray, window: int
) -> list[list[int]]:
    """Items are added to a batch until the next would break the budget."""
    costs = sizes.astype(np.float64) ** (2 if cost == "quadratic" else 1)
    width = max(1, int(window * budget / max(costs[order].mean(), 1.0)))
    batches = []
    for start in range(0, len(order), width):
        batch: list[int] = []
        for item in sorted(order[start : start + width].tolist(), key=lambda item: sizes[item]):
            if batch and costs[item] * (len(batch) + 1) > budget:
                batches.append(batch)
                batch = []
            batch.append(item)
        batches.append(batch)
    return [batches[place] for place in generator.permutation(len(batches))]


@pytest.mark.parametrize("cost", ["linear", "quadratic"])
@pytest.mark.parametrize(
    ("count", "low", "high", "budget"), [(900, 1, 60, 400), (57, 0, 3, 7), (1, 5, 6, 2), (40, 9, 10, 1)]
)
def test_groups_are_those_of_the_obvious_planner(cost: Cost, count: int, low: int, high: int, budget: int) -> None:
    sizes = np.random.default_rng(count).integers(low, high, count)
    for epoch in range(3):
        generator = shuffler(7, epoch)
        wanted = one_by_one(sizes, budget, cost, generator, generator.permutation(count), 8)
        assert groups(sizes, budget, cost, shuffler(7, epoch), window=8) == wanted


@pytest.mark.parametrize("cost", ["linear", "quadratic"])
def test_a_plan_keeps_every_item_once_within_the_budget(cost: Cost) -> None:
    sizes = np.random.default_rng(0).integers(1, 50, 700)
    budget = 300
    plan = groups(sizes, budget, cost, shuffler(0, 0))
    assert sorted(item for batch in plan for item in batch) == list(range(700))
    for batch in plan:
        each = int(sizes[batch].max()) ** (2 if cost == "quadratic" else 1)
        assert len(batch) == 1 or each * len(batch) <= budget
    assert plan == groups(sizes, budget, cost, shuffler(0, 0))
    assert plan != groups(sizes, budget, cost, shuffler(0, 1))
    assert plan != groups(sizes, budget, cost, shuffler(1, 0))


def test_an_order_limits_the_items() -> None:
    sizes = np.arange(1, 21)
    plan = groups(sizes, 40, "linear", shuffler(0, 0), order=np.array([3, 17, 5]))
    assert sorted(item for batch in plan for item in batch) == [3, 5, 17]
    assert groups(sizes, 40, "linear", shuffler(0, 0), order=np.array([], dtype=np.int64)) == []


def test_windows_waste_little_on_padding() -> None:
    sizes = np.random.default_rng(0).normal(45, 11, 12000).astype(np.int64).clip(8, 100)

    def filled(plan: list[list[int]]) -> float:
        return float(np.square(sizes).sum()) / sum(len(batch) * float(sizes[batch].max()) ** 2 for batch in plan)

    shuffled = even(permutation(0, 0, len(sizes)), 64)
    assert filled(shuffled) < 0.6 < 0.9 < filled(groups(sizes, 64 * 45**2, "quadratic", shuffler(0, 0)))


def test_permutations_differ_by_seed_and_epoch_and_hold_every_item() -> None:
    orders = {tuple(permutation(seed, epoch, 30).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert np.array_equal(permutation(3, 2, 30), permutation(3, 2, 30))


@pytest.mark.parametrize(("count", "size", "whole", "lengths"), [
    (10, 4, False, [4, 4, 2]), (10, 4, True, [4, 4]), (8, 4, True, [4, 4]), (3, 4, True, [3]),
])  # fmt: skip
def test_even_batches(count: int, size: int, whole: bool, lengths: list[int]) -> None:
    batches = even(permutation(0, 0, count), size, whole)
    assert [len(batch) for batch in batches] == lengths
    assert [item for batch in batches for item in batch] == permutation(0, 0, count)[: sum(lengths)].tolist()
