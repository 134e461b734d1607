"""Representations that were computed elsewhere: one `.npz` for each chain, as AlphaFold 3 writes its embeddings.

    single_embeddings [L, 384]   pair_embeddings [L, L, 128]   structure_embeddings [L, 768]      usually float16

What ran on one sequence must not be laid over another. The rows belong to the resolved residues ("resolved"), to those
of known type ("known"), or to the full sequence, resolved or not ("sequence": row = position along the chain). Their
number must be the number of those residues, or the bucket that AlphaFold 3 pads it to; an entry `length` in the file,
if there is one, must agree. Files are read one at a time; a pair matrix is taken on the edges of the graph
at once. AlphaFold 3's terms of use bind what is made with its output.
"""

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import named
from torch import Tensor

from reed_protein.dataset import NamedBackbone
from reed_protein.encoders.graph import edges_of
from reed_protein.network import UNKNOWN_TOKEN

BUCKETS = (256, 512, 768, 1024, 1280, 1536, 2048, 2560, 3072, 3584, 4096, 4608, 5120)
Rows = Literal["resolved", "known", "sequence"]


class ArrayEncoder:
    """Arrays on disk as z.

    Args:
        pattern: Path of a chain's file, with {id} for its name.
        key: The array in it.
        dim: Its width.
        level: "token" (rows [L, d]) or "pair" ([L, L, d]).
        rows: Which residues the rows belong to.
        neighbours: Edges per residue, itself included; for pairs.
        name: A short name.
        version: Change it when the files change; part of the fingerprint.

    Raises:
        InputError: If the pattern has no {id}.
    """

    def __init__(
        self,
        pattern: str,
        key: str,
        dim: int,
        level: Literal["token", "pair"],
        rows: Rows = "resolved",
        neighbours: int = 0,
        name: str = "arrays",
        version: str = "",
    ) -> None:
        if "{id}" not in pattern:
            raise InputError(f"the pattern {pattern} names one file; write {{id}} where the name of the chain stands")
        self.pattern, self.key, self.dim, self.level, self.rows = pattern, key, dim, level, rows
        self.neighbours, self.name, self.version = neighbours, name, version

    @property
    def fingerprint(self) -> str:
        """Pattern, key, rows, edges and version: the files themselves are not read for it."""
        sizes = {"dim": str(self.dim), "level": self.level, "rows": self.rows, "edges": str(self.neighbours)}
        return named({"code": "arrays-1", "pattern": self.pattern, "key": self.key, **sizes, "version": self.version})

    def __call__(
        self, x_0: Int[Tensor, "b n"], c: Any = None, mask: Bool[Tensor, "b n"] | None = None
    ) -> Representation:
        """Reads a batch.

        Raises:
            InputError: If a file is missing, damaged, or of another length than its chain.
        """
        if len(c.ids) != len(x_0):
            raise InputError(f"arrays are found by the names of the chains; got {len(c.ids)} for {len(x_0)} chains")
        edges = edges_of(c, self.neighbours) if self.level == "pair" else None
        lead = x_0.shape if edges is None else edges.mask.shape
        z, known = torch.zeros(*lead, self.dim), torch.zeros(lead, dtype=torch.bool)
        for row, name in enumerate(c.ids):
            here, place = self._places(x_0[row], c, row)
            array = self._read(name, int(place.max()) + 1 if len(place) else 0)
            if edges is None:
                z[row, here] = torch.from_numpy(array[place.numpy()].astype(np.float32))
                known[row, here] = True
                continue
            of = torch.full((x_0.shape[1],), -1)
            of[here] = place
            near = of[edges.neighbours[row, here]]
            kept = edges.mask[row, here] & (near >= 0)
            picked = array[place[:, None].numpy(), near.clamp(min=0).numpy()].astype(np.float32)
            z[row, here] = torch.where(kept[..., None], torch.from_numpy(picked), 0.0)
            known[row, here] = kept
        return Representation(z, known)

    def _places(self, tokens: Tensor, c: NamedBackbone, row: int) -> tuple[Tensor, Tensor]:
        """Which residues have a row, and which."""
        here = c.mask[row] & (tokens < UNKNOWN_TOKEN) if self.rows == "known" else c.mask[row]
        residues = here.nonzero().squeeze(1)
        place = c.position[row][residues] if self.rows == "sequence" else torch.arange(len(residues))
        return residues, place

    def _read(self, name: str, length: int) -> np.ndarray:
        path = Path(self.pattern.replace("{id}", name))
        try:
            with np.load(path, allow_pickle=False) as data:
                array = data[self.key]
                said = int(data["length"]) if "length" in data.files else None
        except FileNotFoundError as error:
            raise InputError(f"no file {path} for chain {name}; compute it, or leave the chain out") from error
        except KeyError as error:
            raise InputError(f"{path} holds no array '{self.key}'; choose another key") from error
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{path} cannot be read ({reason}); compute it again") from error
        axes = 2 if self.level == "token" else 3
        if array.ndim != axes or array.shape[-1] != self.dim or (axes == 3 and array.shape[0] != array.shape[1]):
            want = f"[L, {self.dim}]" if axes == 2 else f"[L, L, {self.dim}]"
            raise InputError(f"'{self.key}' of {path} has shape {list(array.shape)}; expected {want}")
        full = length if said is None else said
        # The end of a sequence may be unresolved: then the true length lies above the last position.
        fits = len(array) >= length if self.rows == "sequence" and said is None else len(array) == full
        padded = full >= length and len(array) == next((size for size in BUCKETS if size >= full), None)
        if not (fits or padded) or full < length or (said is not None and self.rows != "sequence" and said != length):
            raise InputError(
                f"'{self.key}' of {path} has {len(array)} rows, chain {name} has {length} residues ({self.rows}); "
                "it was computed for another sequence: choose another `rows`, or compute it again"
            )
        return array
