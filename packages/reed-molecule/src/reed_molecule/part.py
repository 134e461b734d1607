"""The given part of the molecules of a batch: what is known of them, clean, while the rest is noise.

A network that is trained with parts reads them clean (`read`), and what any network says is made to agree with them
(`said`). With K the given atoms of a molecule, g their coordinates up to a translation, and m_K(x) a mean over K,
    read   x_i = g_i - m_K(g) + m_K(x_t)              for i in K; given types, charges and bonds in place of noise
    said   x_0,i = g_i - m_K(g) + m_K(x_t - t v)      for i in K, as the v that implies it: v_i = (x_t,i - x_0,i) / t
The linear path x_t = (1 - t) x_0 + t eps keeps all of x_t that matters: eps_i - m_K(eps) is independent of m_K(eps) and
of the other atoms' noise, so that beside g only m_K(x_t) tells something of x_0. Where the given atoms lie among the
new ones stays unknown, a point that diffuses with them; the process, its loss and its samplers are those of whole
molecules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

State = Mapping[str, Tensor]
IMPOSSIBLE = -1e4  # a logit whose probability is 0 in any precision, and finite under guidance


@dataclass(frozen=True)
class Part:
    """The given part of a batch.

    Attributes:
        x_0: Clean values by field; they count where `known` is True. Coordinates count up to a translation.
        known: Where each field is given: [b, n], bonds [b, n, n].
    """

    x_0: State
    known: State

    @classmethod
    def kept(cls, x_0: State, kept: Bool[Tensor, "b n"], pairs: Bool[Tensor, "b n n"]) -> "Part":
        """The kept atoms of clean molecules, as `complete` gives them.

        Known are all fields of the kept atoms, the bonds among them, and that a kept atom whose neighbours are all kept
        has no bond to a new one.

        Args:
            x_0: The molecules.
            kept: The atoms that are given; no atom of a molecule of which nothing is.
            pairs: True for two different existing atoms.
        """
        bonded = x_0["bonds"] > 0
        closed = kept & ~(bonded & pairs & ~kept[:, None]).any(2)
        known = (kept[:, :, None] & kept[:, None]) | closed[:, :, None] | closed[:, None]
        return cls(x_0, {"coords": kept, "types": kept, "charges": kept, "bonds": known & pairs})

    def to(self, device: Any) -> "Part":
        """The same on a device."""
        x_0, known = ({name: value.to(device) for name, value in one.items()} for one in (self.x_0, self.known))
        return Part(x_0, known)

    def unknown(self, mask: State) -> dict[str, Tensor]:
        """Where a loss is due: tokens that exist and are not given, and all coordinates, which move as one body."""
        return {name: value if name == "coords" else value & ~self.known[name] for name, value in mask.items()}

    def read(self, x_t: State) -> dict[str, Tensor]:
        """The state with its given part clean, of molecules whose given atoms have coordinates; others stay noise."""
        fixed = self.known["coords"]
        either = fixed[:, :, None] | fixed[:, None]
        out = {"coords": placed(x_t["coords"], self.x_0["coords"], fixed)}
        for name in ("types", "charges", "bonds"):
            known = self.known[name] & (either if name == "bonds" else fixed)
            out[name] = torch.where(known, self.x_0[name].to(x_t[name]), x_t[name])
        return out

    def said(self, prediction: State, x_t: State, t: Float[Tensor, "b"]) -> dict[str, Tensor]:
        """A prediction that says of the given part what is given.

        Args:
            prediction: The velocity of the coordinates, and logits.
            x_t: The state it is of.
            t: Times.
        """
        known, v = self.known["coords"], prediction["coords"]
        here, time = x_t["coords"].to(v), t.to(v)[:, None, None]
        clean = placed(here - time * v, self.x_0["coords"].to(v), known)
        out = {"coords": torch.where(known[..., None], (here - clean) / time, v)}
        for name in ("types", "charges", "bonds"):
            value = prediction[name]
            classes = torch.arange(value.shape[-1], device=value.device)
            sure = torch.where(classes == self.x_0[name][..., None], 0.0, IMPOSSIBLE).to(value)
            out[name] = torch.where(self.known[name][..., None], sure, value)
        return out


def placed(
    free: Float[Tensor, "b n 3"], given: Float[Tensor, "b n 3"], known: Bool[Tensor, "b n"]
) -> Float[Tensor, "b n 3"]:
    """Replaces known points by given ones, moved so that the mean of the known points stays where it was."""
    part = known[..., None]
    count = part.sum(1, keepdim=True).clamp(min=1)
    shift = torch.where(part, free - given, 0.0).sum(1, keepdim=True) / count
    return torch.where(part, given + shift, free)
