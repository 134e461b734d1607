"""Recommendations on a toy: none where z says nothing, one with evidence where it does."""

import copy
import math

import pytest
import torch
from reed_core.diagnose.recommend import DepthEvidence, Look, Recommendation, _decide, _stop, recommend
from reed_core.errors import InputError
from reed_core.latent import Latent, Representation
from reed_core.process import Interpolant
from reed_core.train import Batch
from torch import Tensor, nn

TAPS = ("blocks.0", "blocks.1", "blocks.2")
LATENT = Latent("code", "blocks.0", 32, 8, level="global", hidden=32, layers=1)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inlet = nn.Linear(3, 32)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 32), nn.SiLU(), nn.Dropout(0.01), nn.Linear(32, 32)) for _ in range(3)
        )
        self.out = nn.Linear(32, 2)

    def forward(self, x_t: Tensor, t: Tensor, c: object = None) -> Tensor:
        h = self.inlet(torch.cat([x_t, t[:, None]], -1))
        for block in self.blocks:
            h = h + block(h)
        return self.out(h)


def batches(count: int, shuffled: bool, seed: int) -> list[Batch]:
    """Points of four clusters; z is a code of the cluster, or of another point's."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [-2.0, -2.0], [2.0, -2.0]])
    codes = torch.randn(4, 8, generator=torch.Generator().manual_seed(99))
    which = torch.randint(4, (32 * count,), generator=generator)
    x = centres[which] + 0.2 * torch.randn(32 * count, 2, generator=generator)
    if shuffled:
        which = which[torch.randperm(32 * count, generator=generator)]
    return [
        Batch(points, z={"code": Representation(z)})
        for points, z in zip(x.split(32), codes[which].split(32), strict=True)
    ]


def ask(shuffled: bool, net: nn.Module, taps: tuple[str, ...]) -> Recommendation:
    train, held_out = batches(12, shuffled, 1), batches(6, shuffled, 2)
    return recommend(Interpolant(), net, LATENT, taps, train, held_out, steps=60, looks=4, learning_rate=3e-3)


def test_a_shuffled_latent_is_not_recommended_and_a_true_one_is_told_apart() -> None:
    torch.manual_seed(0)
    net = Network()
    kept = copy.deepcopy(net.state_dict())
    torch.manual_seed(4)
    before = torch.get_rng_state()
    wrong, right = ask(True, net, TAPS[:1]), ask(False, net, TAPS[:2])
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())
    assert (wrong.depth, wrong.weight, wrong.stop) == (None, 0.0, None)
    assert "no evidence" in wrong.caveats[0]
    assert all("no evidence" in entry.verdict for entry in wrong.evidence)
    assert wrong.plain_loss == pytest.approx(right.plain_loss)  # the plain run does not see z
    assert all(entry.excess > 10 * entry.excess_error for entry in right.evidence)
    assert [entry.width for entry in right.evidence] == [32, 32]
    assert len(right.table().splitlines()) == 3
    if right.depth is not None:
        chosen = next(entry for entry in right.evidence if entry.tap == right.depth)
        assert chosen.verdict == "candidate"
        assert right.weight > 0
    looks = right.evidence[0].looks
    assert [look.samples for look in looks] == [32 * 15 * k for k in (1, 2, 3, 4)]
    assert all(-1 <= look.cosine <= 1 and look.weight > 0 and math.isfinite(look.error) for look in looks)


def entry(
    tap: str, gain: float, cosines: list[float], verdict: str = "candidate", weight: float = 0.5
) -> DepthEvidence:
    looks = tuple(Look(100 * (i + 1), cosine, 0.01, weight) for i, cosine in enumerate(cosines))
    return DepthEvidence(tap, 8, 1.0, 0.1, gain, 0.05, looks, verdict)


def test_the_rule() -> None:
    far, near, best = (
        entry("a", -0.2, [0.9, 0.9]),
        entry("b", 0.45, [0.5, 0.4], weight=2.0),
        entry("c", 0.5, [0.2, 0.1]),
    )
    found = _decide((far, near, best), 1.0, 200, 2, False)
    assert (found.depth, found.weight, found.stop) == ("b", 2.0, None)
    assert any("alike" in caveat for caveat in found.caveats)
    clear = _decide((far, entry("b", 0.1, [0.5, 0.4]), best), 1.0, 200, 1, True)
    assert clear.depth == "c"
    assert any("one run" in caveat for caveat in clear.caveats)
    assert any("condition" in caveat for caveat in clear.caveats)
    none = _decide((entry("a", -1.0, [0.1, 0.1], "raises the denoising loss"),), 1.0, 200, 2, False)
    assert (none.depth, none.weight) == (None, 0.0)
    assert "no depth" in none.caveats[0]


def test_alignment_stops_where_the_gradients_turn_against_each_other_for_good() -> None:
    assert _stop(entry("a", 0, [0.3, -0.2, 0.1, -0.1, -0.2]).looks) == 400.0
    assert _stop(entry("a", 0, [0.3, 0.1, 0.1, -0.2]).looks) is None  # one look is not enough
    assert _stop(entry("a", 0, [0.3, -0.01, -0.01]).looks) is None  # within the error


def test_what_cannot_be_probed() -> None:
    data = batches(2, False, 0)
    with pytest.raises(InputError, match="two samples"):
        recommend(Interpolant(), Network(), LATENT, TAPS, data, [])
    with pytest.raises(InputError, match="share"):
        recommend(Interpolant(), Network(), LATENT, TAPS, data, data, share=1.0)
    with pytest.raises(InputError, match="no submodule"):
        recommend(Interpolant(), Network(), LATENT, ["nowhere"], data, data, steps=8)
