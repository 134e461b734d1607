"""The decoder to beat: an inverse-folding network decoded node by node, each residue once, in a random order.

This is the classical decode (ProteinMPNN's): at a residue's turn all decoder layers run on its own neighbourhood. A
neighbour that was decoded before gives its state at that layer, cached at its own turn, and its letter; one that was
not is seen by the backbone alone, with its encoder state at every layer. A sequence costs as many messages as one
parallel pass, in as many serial steps as it has residues.

Why it is a fair opponent: it has the same encoder, the same layers, width and weights, and shares one encoding between
samples; a step gathers the K edges of one residue per sample and nothing else, for all samples together; edge terms,
neighbour indices, random numbers, and the part of every message that a not yet decoded neighbour or a letter gives are
made once; W3 follows the sum over neighbours, as in the parallel decoder; states are cached as the message's ingredient
and never made twice; no autograd, no data-dependent branch, no copy of what is not used. The weights were not trained
for this order, so its speed is a measure and its sequences are not.
"""

from typing import NamedTuple

import torch
from reed_core.noise import NoiseSource
from reed_protein.network import MASK_TOKEN, NUM_TOKENS, Encoding, InverseFolding, Layer
from torch import Tensor
from torch.nn import functional as F


class Decoded(NamedTuple):
    """Sequences [b, n], the logits each letter was drawn from [b, n, 20], and the order of decoding [b, n]."""

    tokens: Tensor
    logits: Tensor
    order: Tensor


@torch.inference_mode()
def decode(network: InverseFolding, encoding: Encoding, noise: NoiseSource, temperature: float) -> Decoded:
    """Decodes sequences for one structure.

    Args:
        network: The network, in evaluation mode.
        encoding: One structure, one row.
        noise: One stream per sequence.
        temperature: Divides the logits, > 0.
    """
    size, (length, width) = len(noise), encoding.nodes.shape[1:]
    layers = [layer for layer in network.decoder if isinstance(layer, Layer)]
    edges = [edge[0] for edge in encoding.edges]
    weight = encoding.edge_weight[0].transpose(-1, -2)
    hidden = network.tokens.weight[MASK_TOKEN]
    start = encoding.nodes[0] + hidden
    of_state = torch.stack([layer.around.weight[:, :width].T for layer in layers])
    of_letter = torch.stack([F.linear(network.tokens.weight, layer.around.weight[:, width:]) for layer in layers])
    # What residue j adds to a message of each layer: [layer, sample x residue, width]; first as not yet decoded.
    seen = torch.matmul(start, of_state) + of_letter[:, MASK_TOKEN, None]
    seen = seen[:, None].expand(-1, size, -1, -1).flatten(1, 2).contiguous()

    order = noise.uniform((length,)).argsort(1)
    draw = noise.gumbel((length, NUM_TOKENS)).gather(1, order[..., None].expand(-1, -1, NUM_TOKENS))
    draw = (draw * temperature).transpose(0, 1).contiguous()
    turns = order.T.contiguous()
    places = turns + torch.arange(size) * length
    around = encoding.neighbours[0][turns] + (torch.arange(size) * length)[:, None]
    around = around.flatten(1)
    letters, logits = torch.empty(length, size, dtype=torch.long), torch.empty(length, size, NUM_TOKENS)
    shape = (size, encoding.neighbours.shape[-1], width)
    states = torch.empty(len(layers), size, width)
    for turn in range(length):
        at = turns[turn]
        node = start.index_select(0, at)
        share = weight.index_select(0, at)
        for index, layer in enumerate(layers):
            states[index] = node
            message = seen[index].index_select(0, around[turn]).view(shape)
            message += edges[index].index_select(0, at)
            message += layer.centre(node)[:, None]
            message = F.silu(layer.message.inner(F.silu(message, inplace=True)), inplace=True)
            node = layer.norm1(node + layer.outer(torch.bmm(share, message).squeeze(1)))
            node = layer.norm2(node + layer.feed(node))
        logits[turn] = network.out(node)
        letters[turn] = drawn = (logits[turn] + draw[turn]).argmax(-1)
        seen[:, places[turn]] = torch.bmm(states, of_state) + of_letter[:, drawn]
    tokens = torch.empty_like(order).scatter_(1, order, letters.T)
    back = order[..., None].expand(-1, -1, NUM_TOKENS)
    return Decoded(tokens, torch.empty(size, length, NUM_TOKENS).scatter_(1, back, logits.transpose(0, 1)), order)
