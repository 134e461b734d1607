"""The quick paths of the network against its plain one: in blocks, at wanted residues, beside a traced sequence."""

import pytest
import torch
from made_structures import helix
from reed_protein import messages
from reed_protein import network as network_module
from reed_protein.backbone import Backbone, residue_arrays
from reed_protein.messages import cone, in_blocks, reached, ripples
from reed_protein.network import MASK_TOKEN, UNKNOWN_TOKEN, Encoding, InverseFolding
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def encoded(network: InverseFolding, *lengths: int) -> Encoding:
    with torch.no_grad():
        return network.encode(Backbone.collate([residue_arrays(helix(n, seed=n)) for n in lengths]))


def some_tokens(size: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, MASK_TOKEN + 1, (size, length), generator=torch.Generator().manual_seed(seed))


def plain(network: InverseFolding, x: Tensor, encoding: Encoding) -> Tensor:
    """With gradients every message is formed at once."""
    assert torch.is_grad_enabled()
    return network(x, None, encoding).detach()


@pytest.mark.parametrize("block", [1, 7, 64])
def test_in_blocks_the_logits_are_the_same(
    network: InverseFolding, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "BLOCK", block)
    encodings = [encoded(network, 90), encoded(network, 37, 66, 9), encoded(network, 40).repeat(3)]
    for encoding in encodings:
        x = some_tokens(*encoding.nodes.shape[:2])
        expected = plain(network, x, encoding)
        with torch.no_grad():
            torch.testing.assert_close(network(x, None, encoding), expected, atol=1e-4, rtol=1e-5)


def test_an_encoding_is_the_same_in_blocks(network: InverseFolding) -> None:
    backbone = Backbone.collate([residue_arrays(helix(n, seed=n)) for n in (70, 20)])
    with_gradients = network.encode(backbone)
    quick = encoded(network, 70, 20)
    torch.testing.assert_close(quick.nodes, with_gradients.nodes.detach(), atol=1e-4, rtol=1e-5)
    for one, other in zip(quick.edges, with_gradients.edges, strict=True):
        torch.testing.assert_close(one, other.detach(), atol=1e-4, rtol=1e-5)


def test_who_taps_the_messages_sees_all_of_them(network: InverseFolding) -> None:
    encoding, seen = encoded(network, 90), list[Tensor]()
    message = network.decoder[1].message
    with torch.no_grad():
        assert in_blocks(message, encoding.nodes)
        quick = network(some_tokens(1, 90), None, encoding)
        handle = message.register_forward_hook(lambda module, inputs, output: seen.append(output))
        assert not in_blocks(message, encoding.nodes)
        tapped = network(some_tokens(1, 90), None, encoding)
        handle.remove()
    assert [tuple(one.shape) for one in seen] == [(1, 90, 12, 32)]
    torch.testing.assert_close(tapped, quick, atol=1e-4, rtol=1e-5)
    assert not in_blocks(message, encoding.nodes), "nor with gradients"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("nearly_all", [0.9, 1.1])
def test_wanted_logits_are_those_of_all(
    network: InverseFolding, share: float, shared: bool, nearly_all: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "_NEARLY_ALL", nearly_all)
    monkeypatch.setattr(network_module, "BLOCK", 11)
    encoding = encoded(network, 90).repeat(3) if shared else encoded(network, 90, 60, 90)
    x = some_tokens(3, 90)
    wanted = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < share
    expected = plain(network, x, encoding)[wanted]
    with torch.no_grad():
        found = network(x, None, encoding, wanted)
    torch.testing.assert_close(found[wanted], expected, atol=1e-4, rtol=1e-5)
    with_gradients = network(x, None, encoding, wanted)[wanted].detach()
    torch.testing.assert_close(with_gradients, expected, atol=1e-4, rtol=1e-5)


def test_samples_that_are_alike_are_evaluated_once(network: InverseFolding) -> None:
    one, x = encoded(network, 60), some_tokens(1, 60)
    shared = one.repeat(8)
    assert shared.shared
    assert not one.shared
    assert not encoded(network, 30, 30).shared

    def flops(tokens: Tensor, encoding: Encoding, wanted: Tensor | None = None) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(tokens, None, encoding, wanted)
        return int(counter.get_total_flops())

    alike = x.expand(8, -1)
    assert flops(alike, shared) == flops(x, one)
    other = alike.clone()
    other[3, 3] = (other[3, 3] + 1) % UNKNOWN_TOKEN
    assert flops(other, shared) == 8 * flops(x, one)
    with torch.no_grad():
        torch.testing.assert_close(network(alike, None, shared)[5], plain_row(network, x, one), atol=1e-4, rtol=1e-5)
        wanted = torch.eye(8, 60, dtype=torch.bool)
        found = network(alike, None, shared, wanted)[wanted]
        torch.testing.assert_close(found, network(x, None, one)[0, :8], atol=1e-4, rtol=1e-5)


def plain_row(network: InverseFolding, x: Tensor, encoding: Encoding) -> Tensor:
    with torch.enable_grad():
        return plain(network, x, encoding)[0]


@pytest.mark.parametrize("changes", [0, 1, 4, 60])
def test_beside_a_trace_the_logits_are_those_of_an_evaluation(network: InverseFolding, changes: int) -> None:
    encoding, base = encoded(network, 120), some_tokens(1, 120)
    generator = torch.Generator().manual_seed(changes)
    x = base.repeat(5, 1)
    for row in range(5):
        x[row, torch.randperm(120, generator=generator)[:changes]] = MASK_TOKEN
    for share in (0.01, 0.2, 1.0):
        wanted = torch.rand(x.shape, generator=generator) < share
        with torch.no_grad():
            found = network.beside(network.trace(base, encoding), x, encoding.repeat(5), wanted)
            expected = network(x, None, encoding.repeat(5))
        torch.testing.assert_close(found[wanted], expected[wanted], atol=1e-4, rtol=1e-5)


def test_what_a_residue_depends_on_and_what_it_reaches(network: InverseFolding) -> None:
    """Against the definition, residue by residue."""
    neighbours = encoded(network, 50, 30).neighbours
    lists = [set(row) for row in neighbours.flatten(0, 1).tolist()]
    assert reached(torch.tensor([3, 77]), neighbours).tolist() == sorted(lists[3] | lists[77])
    wanted = torch.zeros(2, 50, dtype=torch.bool)
    wanted[0, 4] = wanted[1, 20] = True
    last = {4, 70}
    middle = lists[4] | lists[70]
    first = set().union(*(lists[at] for at in middle))
    found = cone(wanted, neighbours, 3)
    assert [place.tolist() for place in found] == [sorted(places) for places in (first, middle, last)]
    changed = torch.zeros(2, 50, dtype=torch.bool)
    changed[0, 9] = True
    one = {at for at in first if 9 in lists[at]}
    two = {at for at in middle if lists[at] & one}
    assert [place.tolist() for place in ripples(changed, neighbours, found)] == [sorted(one), sorted(two), sorted(last)]


def test_the_cost_of_a_residue_beside_a_trace_does_not_grow_with_length(network: InverseFolding) -> None:
    def flops(length: int) -> int:
        encoding, base = encoded(network, length), some_tokens(1, length)
        x = base.clone()
        x[0, length // 2] = MASK_TOKEN
        wanted = x != base
        wanted[0, length // 2] = True
        with torch.no_grad():
            trace = network.trace(base, encoding)
            with FlopCounterMode(display=False) as counter:
                network.beside(trace, x, encoding, wanted)
        return int(counter.get_total_flops())

    assert flops(600) == pytest.approx(flops(200), rel=0.2)
