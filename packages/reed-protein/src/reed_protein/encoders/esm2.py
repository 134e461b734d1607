"""ESM-2 (Lin et al. 2023, doi 10.1126/science.ade2574) through fair-esm, the extra `reed-protein[esm]`.

token level   the states of one layer, [n, d]
pair level    attention maps, symmetrised and corrected for their averages as ESM's own contact head does
              (a_ij + a_ji, minus row sum x column sum / total), taken on the edges of the graph: [n, k, layers x heads]

The begin and end tokens never appear in z. Only resolved residues are read, in order: gaps are closed. The chains of a
complex are encoded each by itself ("separate"), or as one sequence with 25 glycines between chains ("joined"), whose
states are dropped. `esm` is also the import name of another package; this one is recognised by its ESM2 class.

A checkpoint is unpickled with `weights_only`, and `argparse.Namespace` the one class let in. The file of contact
regression weights is not needed.
"""

import argparse
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import fingerprint_module, named
from torch import Tensor, nn

from reed_protein.encoders.graph import edges_of, pairs_on_graph
from reed_protein.network import UNKNOWN_TOKEN
from reed_protein.residues import ALPHABET
from reed_protein.restricted import load_restricted

LINKER = 25  # glycines between joined chains
HOST = "https://dl.fbaipublicfiles.com/fair-esm/models"
Joining = Literal["separate", "joined"]


class Size(NamedTuple):
    """Layers, width and heads of a model."""

    layers: int
    width: int
    heads: int


SIZES = {
    "esm2_t6_8M_UR50D": Size(6, 320, 20),
    "esm2_t12_35M_UR50D": Size(12, 480, 20),
    "esm2_t30_150M_UR50D": Size(30, 640, 20),
    "esm2_t33_650M_UR50D": Size(33, 1280, 20),
    "esm2_t36_3B_UR50D": Size(36, 2560, 40),
    "esm2_t48_15B_UR50D": Size(48, 5120, 40),
}


def load_esm2(model: str, path: Path | None = None) -> nn.Module:
    """Loads an ESM-2 model.

    Args:
        model: Its name, as in `SIZES`.
        path: A checkpoint, or a folder with MODEL.pt; None downloads it into torch's hub folder, once.

    Raises:
        InputError: If fair-esm is not installed, or the checkpoint cannot be found, downloaded or read.
    """
    kind = _esm2_class()
    place = None if path is None else (Path(path) / f"{model}.pt" if Path(path).is_dir() else Path(path))
    if place is None and model not in SIZES:
        raise InputError(f"no ESM-2 model '{model}'; choose from {', '.join(SIZES)}, or give the path of a checkpoint")
    source = str(place) if place is not None else f"{HOST}/{model}.pt"
    if place is not None:
        content = load_restricted(place, [argparse.Namespace], "an ESM-2 checkpoint")
    else:
        content = _downloaded(source)
    try:
        settings, state = content["cfg"]["model"], content["model"]
        state = {re.sub(r"^encoder\.(sentence_encoder\.)?", "", name): value for name, value in state.items()}
        network = kind(
            settings.encoder_layers,
            settings.encoder_embed_dim,
            settings.encoder_attention_heads,
            "ESM-1b",
            settings.token_dropout,
        )
        found = network.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{source} is not an ESM-2 checkpoint ({reason}); get it again") from error
    lacking = [name for name in found.missing_keys if not name.startswith("contact_head.")]
    if lacking or found.unexpected_keys:
        odd = [*lacking, *found.unexpected_keys]
        raise InputError(f"{source} is not an ESM-2 checkpoint: {odd[0]} does not fit; get it again")
    return network


class EsmTokens:
    """States of one layer as z, [b, n, width].

    Args:
        module: An ESM2 of fair-esm; frozen here.
        layer: 1 to the number of layers, or 0 for the embeddings; None takes the last.
        chains: How several chains are read.
        name: A short name.

    Raises:
        InputError: If there is no such layer.
    """

    level: Literal["token"] = "token"

    def __init__(self, module: nn.Module, layer: int | None = None, chains: Joining = "separate", name: str = "esm"):
        self.name, self.module, self.chains = name, module.eval().requires_grad_(False), chains
        depth = _count(module, "num_layers")
        self.layer = depth if layer is None else layer
        if not 0 <= self.layer <= depth:
            raise InputError(f"layer {layer} of an ESM-2 of {depth} layers; choose 0 to {depth}")
        self.dim = _count(module, "embed_dim")

    @property
    def fingerprint(self) -> str:
        """The hash of the weights, of the layer and of how chains are read."""
        weights = fingerprint_module(self.module)
        return named({"weights": weights, "code": "esm-tokens-1", "layer": str(self.layer), "chains": self.chains})

    @torch.no_grad()
    def __call__(
        self, x_0: Int[Tensor, "b n"], c: Any = None, mask: Bool[Tensor, "b n"] | None = None
    ) -> Representation:
        """Encodes a batch, one sequence at a time: memory is that of the longest, and the batch changes nothing."""
        z = torch.zeros(*x_0.shape, self.dim)
        for row in range(len(x_0)):
            for piece in pieces(x_0[row], c.chain[row], c.mask[row], self.chains):
                state = self.module(_encoded(self.module, piece.letters), [self.layer])["representations"][self.layer]
                z[row, piece.residues] = state[0, 1:-1].float().cpu()[piece.places]
        return Representation(z, c.mask)


class EsmAttention:
    """Attention maps of some layers as z, [b, n, k, layers x heads], on the edges of the graph.

    All maps of a sequence are in memory at once while it is encoded: 4 x layers x heads x n^2 bytes, 0.7 GB for 500
    residues and ESM-2 650M.

    Args:
        module: An ESM2 of fair-esm; frozen here.
        neighbours: Edges per residue, itself included.
        layers: Which layers, from 1; None takes all.
        chains: How several chains are read; an edge between two chains read separately is unknown.
        name: A short name.

    Raises:
        InputError: If there is no such layer.
    """

    level: Literal["pair"] = "pair"

    def __init__(
        self,
        module: nn.Module,
        neighbours: int,
        layers: Sequence[int] | None = None,
        chains: Joining = "separate",
        name: str = "esm_attention",
    ) -> None:
        self.name, self.module, self.chains = name, module.eval().requires_grad_(False), chains
        depth = _count(module, "num_layers")
        self.layers = tuple(range(1, depth + 1) if layers is None else layers)
        if not self.layers or not all(1 <= layer <= depth for layer in self.layers):
            raise InputError(f"attention of layers {layers} of an ESM-2 of {depth} layers; choose from 1 to {depth}")
        self.neighbours, self.dim = neighbours, len(self.layers) * _count(module, "attention_heads")

    @property
    def fingerprint(self) -> str:
        """The hash of the weights, of the layers, the number of edges and of how chains are read."""
        layers = ",".join(map(str, self.layers))
        return named(
            {
                "weights": fingerprint_module(self.module),
                "code": "esm-attention-1",
                "layers": layers,
                "edges": str(self.neighbours),
                "chains": self.chains,
            }
        )

    @torch.no_grad()
    def __call__(
        self, x_0: Int[Tensor, "b n"], c: Any = None, mask: Bool[Tensor, "b n"] | None = None
    ) -> Representation:
        """Encodes a batch, one sequence at a time."""
        edges = edges_of(c, self.neighbours)
        z = torch.zeros(*edges.neighbours.shape, self.dim)
        known = torch.zeros_like(edges.mask)
        for row in range(len(x_0)):
            for piece in pieces(x_0[row], c.chain[row], c.mask[row], self.chains):
                found = self.module(_encoded(self.module, piece.letters), need_head_weights=True)["attentions"][0]
                chosen = found[[layer - 1 for layer in self.layers], :, 1:-1, 1:-1].flatten(0, 1).float()
                del found
                maps = corrected(chosen)[:, piece.places][:, :, piece.places].cpu().movedim(0, -1)
                inside = torch.full((x_0.shape[1],), -1)
                inside[piece.residues] = torch.arange(len(piece.residues))
                near = inside[edges.neighbours[row, piece.residues]]
                kept = edges.mask[row, piece.residues] & (near >= 0)
                z[row, piece.residues] = pairs_on_graph(maps, near.clamp(min=0), kept)
                known[row, piece.residues] = kept
        return Representation(z, known)


class Piece(NamedTuple):
    """A sequence as ESM reads it.

    Attributes:
        letters: The sequence.
        residues: Which residues of the row it holds, [m].
        places: Where they stand in it, [m].
    """

    letters: str
    residues: Int[Tensor, "m"]
    places: Int[Tensor, "m"]


def pieces(tokens: Int[Tensor, "n"], chain: Int[Tensor, "n"], mask: Bool[Tensor, "n"], chains: Joining) -> list[Piece]:
    """The sequences to be read for one structure."""
    tokens, chain, mask = tokens.cpu(), chain.cpu(), mask.cpu()
    parts = [((chain == one) & mask).nonzero().squeeze(1) for one in chain[mask].unique_consecutive()]
    texts = ["".join(ALPHABET[token] for token in tokens[part].clamp(max=UNKNOWN_TOKEN)) for part in parts]
    if chains == "separate":
        return [Piece(text, part, torch.arange(len(part))) for text, part in zip(texts, parts, strict=True)]
    places = torch.arange(sum(map(len, parts)))
    starts = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part) for part in parts]))
    return [Piece(("G" * LINKER).join(texts), torch.cat(parts), places + LINKER * starts)]


def corrected(maps: Float[Tensor, "h n n"]) -> Float[Tensor, "h n n"]:
    """Symmetrised attention minus its average product: a_i. a_.j / a_.."""
    maps = maps + maps.transpose(-1, -2)
    rows = maps.sum(-1, keepdim=True)
    return maps - rows * rows.transpose(-1, -2) / rows.sum(-2, keepdim=True)


def _count(module: nn.Module, name: str) -> int:
    value: Any = getattr(module, name)
    return int(value)


def downloaded(model: str) -> Path:
    """Where torch's hub keeps the checkpoint of a released model, once it has been downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / f"{model}.pt"


def _downloaded(url: str) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=False, weights_only=True)
    except Exception as error:  # the network fails in many ways, and so does a file that it left half
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"cannot get {url} ({reason}); check the connection, or download it elsewhere and give its path"
        ) from error


def _encoded(module: Any, letters: str) -> Int[Tensor, "1 n"]:
    alphabet = module.alphabet
    inner = [alphabet.get_idx(letter) for letter in letters]
    device = next(module.parameters()).device
    return torch.tensor([[alphabet.cls_idx, *inner, alphabet.eos_idx]], device=device)


def _esm2_class() -> Any:
    advice = "install reed-protein[esm] in an environment without the package called esm"
    try:
        return import_module("esm.model.esm2").ESM2
    except ModuleNotFoundError as error:
        raise InputError(f"ESM-2 needs fair-esm ({error}); {advice}") from error
