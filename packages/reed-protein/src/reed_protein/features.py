"""Geometry of a backbone as numbers a network can read: a neighbour graph, node and edge features.

    virtual CB = -0.58273431 a + 0.56802827 b - 0.54067466 c + CA,  b = CA - N, c = C - CA, a = b x c
                 (ideal tetrahedral geometry; the constants are those of arXiv 2206.01948's and ProteinMPNN's frames)
    graph:  for each residue the k residues with nearest CA, itself first; cost O(L^2) distances, O(L k) everything else
    edges:  25 distances between N, CA, C, O, CB of both ends in 16 radial bases on 2..22 angstrom; the 5 atoms of j as
            unit vectors in the frame of i; log distance; relative position along the chain; same chain or not
    nodes:  sine and cosine of phi, psi, omega and of the angles and dihedrals of the CA trace

Coordinates are gathered before distances are taken, so nothing but the CA distances is L x L. Every feature is
invariant to rotation and translation and changes sign-sensitively under reflection.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from reed_protein.backbone import Backbone

MAX_OFFSET = 32
LINKED = 2.5  # largest C-N distance across a peptide bond, angstrom, with room for coordinate noise
NUM_RBF = 16
EDGE_DIM = 25 * NUM_RBF + 16
NODE_DIM = 15
NUM_OFFSETS = 2 * MAX_OFFSET + 3


class Graph(NamedTuple):
    """A k-nearest-neighbour graph with its features.

    Attributes:
        neighbours: Index of each neighbour in the flattened batch, [b, n, k].
        edge_mask: True where the edge joins two existing residues, [b, n, k].
        node: Node features, [b, n, NODE_DIM].
        edge: Edge features, [b, n, k, EDGE_DIM].
        offset: Class of the relative position along the chain, [b, n, k], 0..NUM_OFFSETS-1.
    """

    neighbours: Int[Tensor, "b n k"]
    edge_mask: Bool[Tensor, "b n k"]
    node: Float[Tensor, "b n f"]
    edge: Float[Tensor, "b n k e"]
    offset: Int[Tensor, "b n k"]


def build_graph(backbone: Backbone, k: int) -> Graph:
    """The graph of a batch.

    Args:
        backbone: The batch; padding never becomes a neighbour.
        k: Neighbours per residue, itself included.
    """
    with torch.no_grad():
        atoms = with_virtual_cb(backbone.coords.float())
        neighbours, edge_mask = nearest_neighbours(atoms[..., 1, :], backbone.mask, k)
        return Graph(
            neighbours=neighbours,
            edge_mask=edge_mask,
            node=node_features(atoms, backbone),
            edge=edge_features(atoms, neighbours) * edge_mask[..., None],
            offset=relative_offset(backbone, neighbours),
        )


def with_virtual_cb(coords: Float[Tensor, "b n 4 3"]) -> Float[Tensor, "b n 5 3"]:
    """Adds the virtual CB to N, CA, C, O."""
    n, ca, c, _ = coords.unbind(-2)
    first, second = ca - n, c - ca
    normal = torch.cross(first, second, dim=-1)
    cb = -0.58273431 * normal + 0.56802827 * first - 0.54067466 * second + ca
    return torch.cat([coords, cb[..., None, :]], dim=-2)


def nearest_neighbours(
    ca: Float[Tensor, "b n 3"], mask: Bool[Tensor, "b n"], k: int
) -> tuple[Int[Tensor, "b n k"], Bool[Tensor, "b n k"]]:
    """Flattened indices of the k nearest existing residues (itself first), and which of them are real edges.

    Rows shorter than k, and padding, point to themselves with a False edge. Rows are taken one protein at a time, so
    that memory is that of the longest one and the result does not depend on the batch.
    """
    size, length = mask.shape
    base = (
        torch.arange(length, device=ca.device).repeat(size, 1) + torch.arange(size, device=ca.device)[:, None] * length
    )
    neighbours = base[..., None].expand(size, length, k).clone()
    edge_mask = torch.zeros(size, length, k, dtype=torch.bool, device=ca.device)
    for row in range(size):
        index = mask[row].nonzero().squeeze(1)
        near = min(k, len(index))
        for some in index.split(2048):
            distance = torch.cdist(ca[row, some], ca[row, index], compute_mode="donot_use_mm_for_euclid_dist")
            chosen = index[distance.topk(near, largest=False, sorted=True).indices]
            neighbours[row, some, :near] = chosen + row * length
            edge_mask[row, some, :near] = True
    return neighbours, edge_mask


def gather_nodes(values: Shaped[Tensor, "b n *d"], neighbours: Int[Tensor, "b n k"]) -> Shaped[Tensor, "b n k *d"]:
    """Values of each neighbour."""
    flat = values.flatten(0, 1).index_select(0, neighbours.flatten())
    return flat.view(*neighbours.shape, *values.shape[2:])


def edge_features(atoms: Float[Tensor, "b n 5 3"], neighbours: Int[Tensor, "b n k"]) -> Float[Tensor, "b n k e"]:
    """Radial bases of 25 distances, and the neighbour's atoms as unit vectors in the residue's own frame."""
    around = gather_nodes(atoms, neighbours)
    centre = atoms[:, :, None]
    distance = (centre[..., :, None, :] - around[..., None, :, :]).square().sum(-1).clamp(min=1e-12).sqrt()
    centres = torch.linspace(2.0, 22.0, NUM_RBF, device=atoms.device)
    width = 20.0 / NUM_RBF
    bases = distance.flatten(-2)[..., None] - centres
    bases = bases.mul_(1.0 / width).square_().neg_().exp_().flatten(-2)
    frame = local_frame(atoms)[:, :, None]
    direction = torch.einsum("bnkij,bnkaj->bnkai", frame.expand(*neighbours.shape, 3, 3), around - centre[..., 1:2, :])
    far = torch.log(distance[..., 1, 1, None].clamp(min=1.0)) / 3.0
    return torch.cat([bases, F.normalize(direction, dim=-1, eps=1e-3).flatten(-2), far], dim=-1)


def local_frame(atoms: Float[Tensor, "b n a 3"]) -> Float[Tensor, "b n 3 3"]:
    """Rows are the axes of each residue's frame: along CA-C, in the N-CA-C plane, and normal to it."""
    x = F.normalize(atoms[..., 2, :] - atoms[..., 1, :], dim=-1)
    to_n = atoms[..., 0, :] - atoms[..., 1, :]
    y = F.normalize(to_n - (to_n * x).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.cross(x, y, dim=-1)], dim=-2)


def node_features(atoms: Float[Tensor, "b n 5 3"], backbone: Backbone) -> Float[Tensor, "b n f"]:
    """Sine and cosine of phi, psi, omega, of the CA-trace angle (its cosine and sine) and dihedral, and which exist."""
    bond = (atoms[:, 1:, 0] - atoms[:, :-1, 2]).norm(dim=-1)
    joined = (
        (backbone.chain[:, 1:] == backbone.chain[:, :-1])
        & (bond < LINKED)
        & backbone.mask[:, 1:]
        & backbone.mask[:, :-1]
    )
    no = torch.zeros_like(joined[:, :1])
    has_previous, has_next = torch.cat([no, joined], 1), torch.cat([joined, no], 1)
    n, ca, c = atoms[:, :, 0], atoms[:, :, 1], atoms[:, :, 2]
    previous, following = _shift(torch.stack([n, ca, c], 2), 1), _shift(torch.stack([n, ca, c], 2), -1)
    after = _shift(following[:, :, 1], -1)
    has_after = has_next & _shift(has_next, -1)
    angle = _angle(previous[:, :, 1], ca, following[:, :, 1])
    parts = [
        (_dihedral(previous[:, :, 2], n, ca, c), has_previous),
        (_dihedral(n, ca, c, following[:, :, 0]), has_next),
        (_dihedral(ca, c, following[:, :, 0], following[:, :, 1]), has_next),
        (_dihedral(previous[:, :, 1], ca, following[:, :, 1], after), has_previous & has_after),
        (angle, has_previous & has_next),
    ]
    values = [part for angle, exists in parts for part in (torch.sin(angle) * exists, torch.cos(angle) * exists)]
    return torch.stack([*values, *[exists.float() for _, exists in parts]], dim=-1)


def relative_offset(backbone: Backbone, neighbours: Int[Tensor, "b n k"]) -> Int[Tensor, "b n k"]:
    """Relative position along the chain, clipped to +-32; the last class says "another chain"."""
    position, chain = gather_nodes(backbone.position, neighbours), gather_nodes(backbone.chain, neighbours)
    offset = (position - backbone.position[..., None]).clamp(-MAX_OFFSET - 1, MAX_OFFSET + 1) + MAX_OFFSET
    offset = offset.clamp(0, NUM_OFFSETS - 2)
    return torch.where(chain == backbone.chain[..., None], offset, NUM_OFFSETS - 1)


def _shift(values: Tensor, by: int) -> Tensor:
    """values[i - by] along the residues, edges repeated (their features are switched off by the caller)."""
    return torch.roll(values, by, dims=1)


def _angle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    u, v = a - b, c - b
    return torch.atan2(torch.cross(u, v, dim=-1).norm(dim=-1), (u * v).sum(-1))


def _dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    first, axis, last = a - b, c - b, d - c
    axis = F.normalize(axis, dim=-1)
    v = first - (first * axis).sum(-1, keepdim=True) * axis
    w = last - (last * axis).sum(-1, keepdim=True) * axis
    return torch.atan2((torch.cross(axis, v, dim=-1) * w).sum(-1), (v * w).sum(-1))
