import dataclasses

import numpy as np
import pytest
import torch
from made_structures import helix
from reed_protein.backbone import Backbone, chain_positions, residue_arrays
from reed_protein.features import (
    build_graph,
    edge_features,
    gather_nodes,
    local_frame,
    nearest_neighbours,
    with_virtual_cb,
)
from reed_protein.network import MASK_TOKEN, InverseFolding, NetworkConfig


def batch(*lengths: int) -> Backbone:
    return Backbone.collate([residue_arrays(helix(n, seed=n)) for n in lengths])


def row(backbone: Backbone, index: int, length: int) -> Backbone:
    return Backbone(*(getattr(backbone, f.name)[index : index + 1, :length] for f in dataclasses.fields(backbone)))


def tokens_for(backbone: Backbone, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, MASK_TOKEN + 1, backbone.mask.shape, generator=generator)


def test_alone_and_in_a_padded_batch_the_logits_agree(network: InverseFolding) -> None:
    together = batch(37, 80, 9)
    tokens = tokens_for(together)
    logits = network(tokens, None, together)
    for index, length in enumerate((37, 80, 9)):
        alone = network(tokens[index : index + 1, :length], None, row(together, index, length))
        torch.testing.assert_close(logits[index, :length], alone[0], atol=1e-5, rtol=0)


def test_what_stands_in_the_padding_changes_nothing(network: InverseFolding) -> None:
    together = batch(30, 60)
    tokens = tokens_for(together)
    before = network(tokens, None, together)[0, :30]
    coords = together.coords.clone()
    coords[0, 30:] = coords[0, :30] + 0.1
    other = tokens.clone()
    other[0, 30:] = 3
    after = network(other, None, dataclasses.replace(together, coords=coords))[0, :30]
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_rotation_and_translation_change_nothing(network: InverseFolding, seed: int) -> None:
    backbone = batch(70)
    tokens = tokens_for(backbone)
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    rotation = rotation * torch.linalg.det(rotation).sign()
    moved = dataclasses.replace(
        backbone, coords=backbone.coords @ rotation.T + 20 * torch.randn(3, generator=generator)
    )
    torch.testing.assert_close(network(tokens, None, moved), network(tokens, None, backbone), atol=1e-4, rtol=0)


def test_a_mirror_image_is_another_structure(network: InverseFolding) -> None:
    backbone = batch(70)
    mirrored = dataclasses.replace(backbone, coords=backbone.coords * torch.tensor([1.0, 1.0, -1.0]))
    tokens = tokens_for(backbone)
    assert (network(tokens, None, mirrored) - network(tokens, None, backbone)).abs().max() > 1e-2


def test_the_encoder_never_sees_a_residue_type_and_the_decoder_does(network: InverseFolding) -> None:
    backbone = batch(40)
    seen: list[torch.Tensor] = []
    handle = network.encoder[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    tokens = tokens_for(backbone)
    other = (tokens + 5) % 20
    changed = (network(tokens, None, backbone) - network(other, None, backbone)).abs().max()
    handle.remove()
    assert torch.equal(seen[0], seen[1])
    assert changed > 1e-3


def test_an_encoding_gives_the_logits_of_its_backbone(network: InverseFolding) -> None:
    backbone = batch(50)
    tokens = tokens_for(backbone)
    encoding = network.encode(backbone)
    torch.testing.assert_close(network(tokens, None, encoding), network(tokens, None, backbone))
    shared = network(tokens.expand(3, -1), None, encoding.repeat(3))
    for logits in shared:
        torch.testing.assert_close(logits, network(tokens, None, backbone)[0], atol=1e-5, rtol=0)


def test_the_factored_layer_equals_the_plain_message(network: InverseFolding) -> None:
    """The slow form: concatenate [h_i, h_j, s_j, e_ij] for every edge, apply W1, W2, then W3, then average."""
    backbone = batch(25, 12)
    layer = network.decoder[0]
    generator = torch.Generator().manual_seed(1)
    width = network.config.width
    nodes = torch.randn(2, 25, width, generator=generator)
    known = torch.randn(2, 25, width, generator=generator)
    graph = build_graph(backbone, network.config.neighbours)
    edges = torch.randn(*graph.neighbours.shape, width, generator=generator)
    count = graph.edge_mask.sum(-1, keepdim=True).clamp(min=1)
    fast = layer(nodes, known, layer.edge(edges), graph.neighbours, (graph.edge_mask / count)[..., None])
    first = torch.cat([layer.centre.weight, layer.around.weight, layer.edge.weight], dim=1)
    silu = torch.nn.functional.silu
    for b in range(2):
        for i in range(int(backbone.mask[b].sum())):
            total = torch.zeros(width)
            members = 0
            for slot in range(network.config.neighbours):
                if graph.edge_mask[b, i, slot]:
                    j = int(graph.neighbours[b, i, slot]) - b * 25
                    together = torch.cat([nodes[b, i], nodes[b, j], known[b, j], edges[b, i, slot]])
                    hidden = silu(first @ together + layer.centre.bias)
                    message = silu(layer.message.inner.weight @ hidden + layer.message.inner.bias)
                    total += layer.outer.weight @ message + layer.outer.bias
                    members += 1
            state = layer.norm1(nodes[b, i] + total / members)
            state = layer.norm2(state + layer.feed(state))
            torch.testing.assert_close(fast[b, i], state, atol=1e-5, rtol=1e-4)


def test_neighbours_are_the_nearest_existing_residues() -> None:
    backbone = batch(30, 18)
    ca = backbone.coords[:, :, 1]
    neighbours, edge_mask = nearest_neighbours(ca, backbone.mask, 20)
    for b, length in enumerate((30, 18)):
        for i in range(length):
            distance = (ca[b, :length] - ca[b, i]).norm(dim=-1)
            expected = set(distance.argsort(stable=True)[:20].tolist())
            found = {int(j) - b * 30 for j, real in zip(neighbours[b, i], edge_mask[b, i], strict=True) if real}
            assert found == expected
            assert int(neighbours[b, i, 0]) - b * 30 == i
    assert not edge_mask[1, 18:].any()


def test_edge_features_follow_the_geometry() -> None:
    backbone = batch(20)
    atoms = with_virtual_cb(backbone.coords)
    neighbours, _ = nearest_neighbours(atoms[:, :, 1], backbone.mask, 6)
    features = edge_features(atoms, neighbours)
    i, slot = 4, 3
    j = int(neighbours[0, i, slot])
    centres = torch.linspace(2.0, 22.0, 16)
    for a in range(5):
        for b in range(5):
            distance = (atoms[0, i, a] - atoms[0, j, b]).norm()
            slow = torch.exp(-(((distance - centres) / 1.25) ** 2))
            start = (a * 5 + b) * 16
            torch.testing.assert_close(features[0, i, slot, start : start + 16], slow, atol=1e-5, rtol=1e-4)
    frame = local_frame(atoms)[0, i]
    torch.testing.assert_close(frame @ frame.T, torch.eye(3), atol=1e-5, rtol=0)
    towards = frame @ (atoms[0, j, 1] - atoms[0, i, 1])
    torch.testing.assert_close(features[0, i, slot, 403:406], towards / towards.norm(), atol=1e-5, rtol=0)


def test_gather_is_indexing() -> None:
    values = torch.randn(2, 5, 3)
    neighbours = torch.randint(0, 10, (2, 5, 4))
    torch.testing.assert_close(gather_nodes(values, neighbours), values.reshape(10, 3)[neighbours])


def test_positions_keep_gaps_and_always_advance() -> None:
    numbers = np.array([5, 6, 9, 9, 10, 3, 4])
    chain = np.array([0, 0, 0, 0, 0, 1, 1])
    assert chain_positions(numbers, chain).tolist() == [0, 1, 4, 5, 6, 1006, 1007]


def test_gradients_reach_every_parameter() -> None:
    network = InverseFolding(NetworkConfig(width=16, neighbours=8, encoder_layers=2, edge_updates=1, decoder_layers=2))
    backbone = batch(30)
    network(tokens_for(backbone), None, backbone).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_a_network_needs_a_condition(network: InverseFolding) -> None:
    with pytest.raises(ValueError, match="condition"):
        network(torch.zeros(1, 5, dtype=torch.long))
