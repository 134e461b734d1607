"""The sampler of sites beside slow, obvious ones; ties, limits and diversity in whole designs."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_complexes import complex_of
from made_structures import helix
from reed_core.noise import NoiseSource
from reed_core.process import Masked
from reed_core.sample.masked import unmask
from reed_protein.controls import Controls
from reed_protein.design import Designer
from reed_protein.network import MASK_TOKEN, NUM_TOKENS, InverseFolding
from reed_protein.residues import AMINO_ACIDS, tokens
from reed_protein.sampling import fill
from reed_protein.score import any_order_nll


@pytest.fixture
def designer(network: InverseFolding) -> Designer:
    return Designer(network)


@pytest.mark.parametrize("order", ["random", "confidence"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_without_ties_and_limits_it_is_the_sampler_of_the_core(
    designer: Designer, order: str, temperature: float
) -> None:
    structure = helix(30)
    generator = np.random.default_rng(0)
    bias = generator.normal(size=(30, 20)).astype(np.float32)
    controls = Controls(designed=np.arange(30) % 3 > 0, bias=bias)
    encoding = designer.encode(structure).repeat(4)
    start = torch.from_numpy(tokens(structure.sequence))
    masked = torch.where(torch.arange(30) % 3 > 0, MASK_TOKEN, start)
    expected = unmask(
        Masked(NUM_TOKENS, MASK_TOKEN),
        designer.network,
        masked.expand(4, -1),
        7,
        NoiseSource(5, range(4)),
        encoding,
        temperature,
        order,  # type: ignore[arg-type]
        adjust=torch.from_numpy(bias).add,
    )
    sites = controls.plan(structure).sites
    found = fill(
        designer.network,
        encoding,
        start,
        sites,
        NoiseSource(5, range(4)),
        7,
        temperature,
        order,  # type: ignore[arg-type]
    )
    assert torch.equal(found.tokens, expected.tokens)
    assert found.evaluations == expected.evaluations


def test_tied_residues_share_one_draw_of_the_weighted_mean_of_their_logits(designer: Designer) -> None:
    """Residue by residue, as the docstring of `ties` says it, with a negative weight and biases."""
    structure = helix(12)
    groups = [((0, 5), (1.0, 1.0)), ((1, 7, 9), (2.0, -1.0, 0.5)), *(((k,), (1.0,)) for k in (2, 3, 4, 6, 8, 10, 11))]
    bias = np.random.default_rng(1).normal(size=(12, 20)).astype(np.float32)
    controls = Controls(tie=["A1,A6", "A2:2,A8:-1,A10:0.5"], bias=bias)
    encoding = designer.encode(structure)
    start = torch.from_numpy(tokens(structure.sequence))
    sites = controls.plan(structure).sites
    found = fill(designer.network, encoding, start, sites, NoiseSource(3, [1]), 6, 0.5)
    noise = NoiseSource(3, [1])
    times, gumbel = noise.uniform((12,))[0], noise.gumbel((12, 20))[0]
    x = torch.full((1, 12), MASK_TOKEN)
    for step in range(6, 0, -1):
        logits = designer.network(x, None, encoding)[0]
        for members, weights in groups:
            if int(times[members[0]] * 6) + 1 != step:
                continue
            total = sum(map(abs, weights))
            mean = sum(
                w * logits[m] + abs(w) * torch.from_numpy(bias[m]) for m, w in zip(members, weights, strict=True)
            )
            x[0, list(members)] = (mean / total / 0.5 + gumbel[members[0]]).argmax()
    assert torch.equal(found.tokens, x)


def test_a_negative_weight_turns_a_preference_round(designer: Designer) -> None:
    structure = helix(30)
    plain = designer.design(structure, temperature=0.0, steps=1)[0].sequence
    logits = designer.network(torch.full((1, 30), MASK_TOKEN), None, designer.encode(structure))[0]
    turned = designer.design(structure, temperature=0.0, steps=1, tie=["A1:0.001,A2:-1"])[0].sequence
    assert turned[0] == turned[1] == AMINO_ACIDS[int((0.001 * logits[0] - logits[1]).argmax())]
    assert turned[2:] == plain[2:]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1000), st.sampled_from(["random", "confidence"]), st.floats(0, 2), st.integers(1, 25))
def test_ties_limits_and_omissions_hold_in_every_design(
    designer: Designer, seed: int, order: str, temperature: float, steps: int
) -> None:
    structure = complex_of({"A": range(1, 17), "B": [*range(101, 110), *range(112, 117)]})
    everyone = ",".join(f"{letter}:10%" for letter in AMINO_ACIDS)
    designs = designer.design(
        structure,
        num=2,
        seed=seed,
        order=order,
        temperature=temperature,
        steps=steps,
        symmetry=["A,B"],
        at_most=everyone,
        residue_omit={"A3": "ACDEFGHIKL"},
        fix="A1,A2,B101,B102",
        omit="C",
    )
    assert len(designs) == 2
    ids = structure.place_of
    for design in designs:
        drawn = [design.sequence[place] for name, place in ids.items() if name not in ("A1", "A2", "B101", "B102")]
        assert max(drawn.count(letter) for letter in AMINO_ACIDS) <= 2  # a tenth of 26
        assert "C" not in drawn
        assert design.sequence[ids["A3"]] not in "ACDEFGHIKL"
        for number in range(1, 17):
            if f"B{number + 100}" in ids:
                assert design.sequence[ids[f"A{number}"]] == design.sequence[ids[f"B{number + 100}"]]


CONTROLS = {
    "ties": {"symmetry": ["A,B"]},
    "limits": {"at_most": "A:10%,G:1,L:5%,S:0"},
    "all limited": {"at_most": ",".join(f"{letter}:7%" for letter in AMINO_ACIDS)},
    "diverse": {"diverse": 3.0},
    "all": {"symmetry": ["A,B"], "at_most": "A:10%,L:5%", "diverse": 1.0, "residue_bias": {"B": {"K": 1.0}}},
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_design_does_not_depend_on_its_batch(designer: Designer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    structure = complex_of({"A": range(1, 16), "B": range(1, 16)})
    asked = {"seed": 4, "temperature": [0.3, 1.0], **CONTROLS[name]}
    together = designer.design(structure, num=4, **asked)
    fewer = designer.design(structure, num=2, **asked)
    monkeypatch.setattr("reed_protein.score._AT_ONCE_CPU", 60)
    apart = designer.design(structure, num=4, **asked)
    one_temperature = designer.design(structure, num=4, **{**asked, "temperature": 1.0})
    sequences = [design.sequence for design in together]
    assert [design.sequence for design in apart] == sequences
    assert [design.sequence for design in fewer] == sequences[:2] + sequences[4:6]
    assert [design.sequence for design in one_temperature] == sequences[4:]
    assert [(design.temperature, design.sample) for design in together] == [
        (t, i) for t in (0.3, 1.0) for i in (1, 2, 3, 4)
    ]


def test_without_limits_that_bind_nothing_changes(designer: Designer) -> None:
    structure = helix(25)
    plain = designer.design(structure, num=3, temperature=1.0)
    loose = designer.design(structure, num=3, temperature=1.0, at_most=",".join(f"{a}:100%" for a in AMINO_ACIDS))
    assert [one.sequence for one in plain] == [one.sequence for one in loose]


def test_diverse_sets_differ_more_by_the_stated_rule(designer: Designer) -> None:
    structure = helix(40)

    def shared(diverse: float) -> float:
        made = np.array([list(d.sequence) for d in designer.design(structure, num=6, diverse=diverse, temperature=0.1)])
        return float(np.mean([(made[i] == made[j]).mean() for i in range(6) for j in range(i)]))

    assert shared(5.0) < shared(0.0)
    first, second = designer.design(structure, num=2, diverse=1000.0, temperature=0.0)
    assert all(a != b for a, b in zip(first.sequence, second.sequence, strict=True))
    third = designer.design(structure, num=3, diverse=2.0, temperature=0.0, steps=1)[2]
    logits = designer.network(torch.full((1, 40), MASK_TOKEN), None, designer.encode(structure))[0]
    for earlier in designer.design(structure, num=2, diverse=2.0, temperature=0.0, steps=1):
        logits[torch.arange(40), torch.from_numpy(tokens(earlier.sequence))] -= 2.0 * 0.5
    assert third.sequence == "".join(AMINO_ACIDS[k] for k in logits.argmax(-1))


def test_the_score_is_that_of_the_sequence_ties_aside(designer: Designer) -> None:
    structure = complex_of({"A": range(1, 16), "B": range(1, 16)})
    design = designer.design(structure, temperature=1.0, symmetry=["A,B"], omit="C")[0]
    encoding = designer.encode(structure)
    row = torch.from_numpy(tokens(design.sequence))[None]
    score = any_order_nll(designer.network, encoding, row, torch.ones_like(row, dtype=torch.bool))
    assert design.score == pytest.approx(score.item(), abs=1e-6)


def test_a_structure_is_encoded_once_for_native_and_designs(
    designer: Designer, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure = helix(20)
    encoding = designer.encode(structure)
    alone = designer.design(structure, num=2)[1]
    monkeypatch.setattr(designer, "encode", None)
    assert designer.design(structure, num=2, encoding=encoding)[1] == alone
    assert designer.score_native(structure, encoding=encoding) is not None
