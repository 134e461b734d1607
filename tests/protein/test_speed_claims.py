"""What the speed of inverse folding rests on, counted rather than timed, and the opponent of tools/bench_protein.py."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from reed_core.noise import NoiseSource
from reed_protein.backbone import Backbone
from reed_protein.design import Designer
from reed_protein.network import MASK_TOKEN, Encoding, InverseFolding, Layer
from reed_protein.structure import Structure, read_structure
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

TOOLS = Path(__file__).parents[2] / "tools"
EXAMPLE = Path(__file__).parents[2] / "examples" / "2bjd_A.pdb"


@pytest.fixture(scope="module")
def bench() -> Iterator[Callable[[str], ModuleType]]:
    """The tool's modules by name, with its folder on the path, as when it is run."""
    sys.path.insert(0, str(TOOLS))
    yield lambda name: importlib.import_module(f"protein_bench.{name}")
    sys.path.remove(str(TOOLS))
    for name in [name for name in sys.modules if name.split(".")[0] == "protein_bench"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def structure() -> Structure:
    return read_structure(EXAMPLE)


@pytest.fixture
def designer(network: InverseFolding) -> Designer:
    return Designer(network)


def flops(action: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def decoder_pass(network: InverseFolding, encoding: Encoding) -> Tensor:
    with torch.no_grad():
        return network(torch.full(encoding.nodes.shape[:2], MASK_TOKEN), None, encoding)


def slow_logits(network: InverseFolding, encoding: Encoding, tokens: list[int], order: list[int]) -> Tensor:
    """The logits of a sequence decoded in an order, residue by residue, neighbour by neighbour."""
    hidden = network.tokens.weight[MASK_TOKEN]
    start = encoding.nodes[0] + hidden
    states = [dict[int, Tensor]() for _ in network.decoder]
    logits = torch.zeros(len(tokens), 20)
    for at in order:
        node = start[at]
        for layer, edge, known in zip(network.decoder, encoding.edges, states, strict=True):
            assert isinstance(layer, Layer)
            known[at] = node
            messages = []
            for place, other in enumerate(encoding.neighbours[0, at].tolist()):
                decoded = other in known and other != at
                letter = network.tokens.weight[tokens[other]] if decoded else hidden
                source = torch.cat([known[other] if decoded else start[other], letter])
                inner = layer.centre(node) + layer.around(source) + edge[0, at, place]
                message = torch.nn.functional.silu(layer.message.inner(torch.nn.functional.silu(inner)))
                messages.append(message * encoding.edge_weight[0, at, place])
            node = layer.norm1(node + layer.outer(torch.stack(messages).sum(0)))
            node = layer.norm2(node + layer.feed(node))
        logits[at] = network.out(node)
    return logits


def test_the_opponent_decodes_as_it_says(
    bench: Callable[[str], ModuleType], designer: Designer, structure: Structure
) -> None:
    encoding = designer.encode(structure)
    found = bench("autoregressive").decode(designer.network, encoding, NoiseSource(3, [0, 5]), 0.5)
    for row in range(2):
        tokens, order = found.tokens[row].tolist(), found.order[row].tolist()
        assert sorted(order) == list(range(len(structure)))
        with torch.no_grad():
            slow = slow_logits(designer.network, encoding, tokens, order)
        torch.testing.assert_close(found.logits[row], slow, atol=1e-4, rtol=1e-4)


def test_the_opponent_samples_its_logits(
    bench: Callable[[str], ModuleType], designer: Designer, structure: Structure
) -> None:
    decode = bench("autoregressive").decode
    encoding = designer.encode(structure)
    cold = decode(designer.network, encoding, NoiseSource(0, range(3)), 1e-6)
    assert torch.equal(cold.tokens, cold.logits.argmax(-1))
    alone = decode(designer.network, encoding, NoiseSource(0, [2]), 1e-6)
    torch.testing.assert_close(alone.logits[0], cold.logits[2], atol=1e-4, rtol=1e-4)
    warm = decode(designer.network, encoding, NoiseSource(0, range(3)), 2.0)
    assert 0.05 < (warm.tokens != warm.logits.argmax(-1)).float().mean() < 0.99


def test_the_opponent_does_no_more_arithmetic_than_one_pass(
    bench: Callable[[str], ModuleType], designer: Designer, structure: Structure
) -> None:
    encoding = designer.encode(structure)
    one_pass = flops(lambda: decoder_pass(designer.network, encoding))
    decode = bench("autoregressive").decode
    single = flops(lambda: decode(designer.network, encoding, NoiseSource(0, [0]), 0.1))
    several = flops(lambda: decode(designer.network, encoding, NoiseSource(0, range(5)), 0.1))
    assert single < 1.2 * one_pass
    assert several < 5 * single


def test_arithmetic_per_residue_does_not_grow_with_length(
    bench: Callable[[str], ModuleType], designer: Designer, structure: Structure
) -> None:
    tiled = bench("backbones").tiled
    each = []
    for length in (100, 500, 1500):
        made = tiled(structure, length)
        each.append(flops(lambda made=made: decoder_pass(designer.network, designer.encode(made))) / length)
    assert max(each) < 1.05 * min(each)


def test_ten_of_five_hundred_residues_take_at_most_ten_evaluations(
    bench: Callable[[str], ModuleType], designer: Designer, structure: Structure
) -> None:
    count, long = bench("evaluations").evaluations, bench("backbones").tiled(structure, 500)
    wanted = {"design": ",".join(long.residue_ids[3:500:50]), "steps": 100}
    assert 1 <= count(designer.network, lambda: designer.design(long, score="none", **wanted)) <= 10
    assert count(designer.network, lambda: designer.design(long, score="one-shot", **wanted)) <= 11
    assert count(designer.network, lambda: designer.design(long, **wanted)) <= 20


@pytest.mark.parametrize("steps", [1, 4, 1000])
def test_evaluations_are_bounded_by_steps_and_by_residues(
    steps: int, bench: Callable[[str], ModuleType], designer: Designer, structure: Structure
) -> None:
    evaluations = bench("evaluations").evaluations
    count = evaluations(designer.network, lambda: designer.design(structure, steps=steps, score="none"))
    assert 1 <= count <= min(steps, len(structure))


def test_a_structure_is_encoded_once_for_all_designs(
    designer: Designer, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    encode = designer.network.encode

    def counted(backbone: Backbone) -> Encoding:
        calls.append(backbone)
        return encode(backbone)

    monkeypatch.setattr(designer.network, "encode", counted)
    assert len(designer.design(structure, num=5, temperature=[0.1, 0.5], steps=3)) == 10
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["any-order", "one-shot", "none"])
def test_the_kind_of_score_changes_no_design(kind: str, designer: Designer, structure: Structure) -> None:
    wanted = {"num": 3, "steps": 5, "temperature": 0.5}
    found = designer.design(structure, score=kind, **wanted)
    assert [design.sequence for design in found] == [design.sequence for design in designer.design(structure, **wanted)]


def test_structures_of_the_bench(bench: Callable[[str], ModuleType], structure: Structure) -> None:
    backbones = bench("backbones")
    made = backbones.tiled(structure, 200)
    assert len(made) == 200
    assert made.sequence == (structure.sequence * 3)[:200]
    assert len(set(made.residue_ids)) == 200
    first, second = (made.coords[made.chain_index == chain, 1] for chain in (0, 1))
    assert torch.cdist(torch.from_numpy(first), torch.from_numpy(second)).min() > 2.5
    chosen = backbones.nearest([made, structure], 2 * len(structure) + 1)
    assert len(chosen.chains) == 2
    assert chosen.name.endswith(" AABA")


def test_the_fewest_sufficient_steps(bench: Callable[[str], ModuleType]) -> None:
    fewest = bench("curve").fewest
    found = {("random", 1): [0.30], ("random", 2): [0.40], ("random", 5): [0.38], ("random", 9): [0.41, 0.39]}
    assert fewest(found, "random", 0.005) == 9
    assert fewest(found, "random", 0.02 + 1e-9) == 2
    assert fewest(found, "random", 0.2) == 1
