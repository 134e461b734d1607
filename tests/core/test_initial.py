"""What is taken over from given weights, what stays random, and that all of it is said."""

import torch
from pydantic import BaseModel
from reed_core.train.initial import settings_that_differ, take_over
from torch import nn


def network(width: int = 3, depth: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2, width), *(nn.Linear(width, width) for _ in range(depth - 1)), nn.BatchNorm1d(width)
    )


def test_values_move_where_name_and_shape_agree_and_nowhere_else() -> None:
    torch.manual_seed(0)
    given, module = network(3, 2), network(3, 3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = take_over(module, given.state_dict())
    assert set(found.taken) | set(found.random) == set(before)
    assert not set(found.taken) & set(found.random)
    for name, value in module.state_dict().items():
        assert torch.equal(value, given.state_dict()[name] if name in found.taken else before[name])
    assert "2.weight" in found.reshaped  # a vector of the norm there, a matrix here
    assert found.reshaped["2.weight"] == ((3,), (3, 3))
    assert "3.running_mean" in found.absent
    assert "2.running_mean" in found.unused


def test_the_same_network_is_taken_over_whole() -> None:
    module = network()
    found = take_over(module, network().state_dict())
    assert found.random == found.unused == ()
    assert take_over(module, {}).taken == ()
    assert "reinitialised: nothing" in found.lines("x")
    assert found.lines("x")[-1].endswith("unknown to the weights: nothing")


def test_everything_is_said() -> None:
    found = take_over(network(3, 3), network(3, 2).state_dict())
    text = "\n".join(found.lines("W", ["depth (2 there, 3 here)"], ["two elements"]))
    assert all(name in text for name in (*found.random, *found.unused, "3 there, 3x3 here", "two elements", "depth"))
    assert f"{len(found.taken)} of {len(found.taken) + len(found.random)}" in text


def test_many_names_are_grouped_and_counted() -> None:
    blocks = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(2, 2) for _ in range(30))})
    found = take_over(blocks, {})
    line = found.lines("W")[1]
    assert "blocks.7.* (2)" in line
    assert "blocks.7.weight" not in line


def test_settings_are_compared_by_name() -> None:
    class Config(BaseModel):
        width: int = 4
        neighbours: int = 24

    assert settings_that_differ(Config(), Config()) == []
    assert settings_that_differ(Config(), Config(neighbours=8)) == ["neighbours (24 there, 8 here)"]
