import numpy as np
import pytest
import torch
from made_structures import helix
from reed_core.errors import InputError
from reed_protein.backbone import Backbone, residue_arrays
from reed_protein.design import Designer
from reed_protein.network import MASK_TOKEN, UNKNOWN_TOKEN, InverseFolding
from reed_protein.residues import tokens
from reed_protein.score import any_order_nll, elbo_nll, one_shot_nll
from reed_protein.structure import Structure


@pytest.fixture
def designer(network: InverseFolding) -> Designer:
    return Designer(network)


def test_a_design_has_a_letter_for_every_residue_and_an_honest_recovery(designer: Designer) -> None:
    structure = helix(40)
    design = designer.design(structure, temperature=1.0)[0]
    assert len(design.sequence) == 40
    assert set(design.sequence) <= set("ACDEFGHIKLMNPQRSTVWY")
    same = np.mean([a == b for a, b in zip(design.sequence, structure.sequence, strict=True)])
    assert design.recovery == pytest.approx(same)


def test_design_i_depends_on_seed_and_i_alone(designer: Designer, monkeypatch: pytest.MonkeyPatch) -> None:
    structure = helix(30)
    together = designer.design(structure, num=5, seed=3, temperature=1.0)
    monkeypatch.setattr("reed_protein.score._AT_ONCE_CPU", 60)
    in_twos = designer.design(structure, num=5, seed=3, temperature=1.0)
    fewer = designer.design(structure, num=2, seed=3, temperature=1.0)
    other = designer.design(structure, num=5, seed=4, temperature=1.0)
    sequences = [design.sequence for design in together]
    assert [design.sequence for design in in_twos] == sequences
    assert [design.sequence for design in fewer] == sequences[:2]
    assert [design.sequence for design in other] != sequences
    assert len(set(sequences)) > 1
    for one, two in zip(together, in_twos, strict=True):
        assert one.score == pytest.approx(two.score, abs=1e-5)


def test_the_native_sequence_has_no_influence(designer: Designer) -> None:
    structure = helix(30)
    relabelled = Structure(
        structure.name,
        structure.coords,
        "G" * 30,
        structure.chain_ids,
        structure.residue_ids,
        structure.residue_numbers,
    )
    assert designer.design(structure, seed=1)[0].sequence == designer.design(relabelled, seed=1)[0].sequence


def test_residues_that_are_not_designed_stay_and_are_seen(designer: Designer) -> None:
    structure = helix(30)
    designed = [index < 10 for index in range(30)]
    design = designer.design(structure, designed=designed, temperature=1.0)[0]
    assert design.sequence[10:] == structure.sequence[10:]
    same = np.mean([a == b for a, b in zip(design.sequence[:10], structure.sequence[:10], strict=True)])
    assert design.recovery == pytest.approx(same)
    with pytest.raises(InputError, match="30 residues"):
        designer.design(structure, designed=[True] * 29)


def test_temperature_zero_is_the_argmax_whatever_the_seed_in_one_step(designer: Designer) -> None:
    structure = helix(30)
    greedy = {designer.design(structure, temperature=0.0, steps=1, seed=seed)[0].sequence for seed in range(3)}
    backbone = Backbone.from_structure(structure)
    logits = designer.network(torch.full((1, 30), MASK_TOKEN), None, backbone)
    expected = "".join("ACDEFGHIKLMNPQRSTVWY"[k] for k in logits[0].argmax(-1))
    assert greedy == {expected}


@pytest.mark.parametrize(
    ("option", "value"), [("num", 0), ("temperature", -0.1), ("temperature", float("nan")), ("steps", 0), ("seed", -1)]
)
def test_numbers_out_of_range_are_refused(designer: Designer, option: str, value: float) -> None:
    with pytest.raises(InputError, match=option):
        designer.design(helix(12), **{option: value})


def scored_batch(lengths: tuple[int, ...]) -> tuple[Backbone, torch.Tensor, torch.Tensor]:
    structures = [helix(n, seed=n) for n in lengths]
    backbone = Backbone.collate([residue_arrays(structure) for structure in structures])
    native = torch.full(backbone.mask.shape, UNKNOWN_TOKEN)
    for index, structure in enumerate(structures):
        native[index, : len(structure)] = torch.from_numpy(tokens(structure.sequence))
    return backbone, native, backbone.mask & (native < UNKNOWN_TOKEN)


@pytest.mark.parametrize("kind", [any_order_nll, elbo_nll, one_shot_nll])
def test_scores_do_not_depend_on_the_batch(network: InverseFolding, kind) -> None:
    backbone, native, scored = scored_batch((40, 23))
    together = kind(network, network.encode(backbone), native, scored)
    for index, length in enumerate((40, 23)):
        alone, tokens_alone, scored_alone = scored_batch((length,))
        value = kind(network, network.encode(alone), tokens_alone, scored_alone)
        assert value[0].item() == pytest.approx(together[index].item(), abs=1e-5)


def test_one_residue_at_a_time_is_the_chain_rule(network: InverseFolding) -> None:
    """With as many blocks as residues the any-order score is -log p of one order, done here residue by residue."""
    from reed_core.noise import NoiseSource
    from reed_protein.score import SCORE_SEED

    backbone, native, scored = scored_batch((14,))
    encoding = network.encode(backbone)
    fast = any_order_nll(network, encoding, native, scored, blocks=14)
    order = NoiseSource(SCORE_SEED, [0]).uniform((14,))[0].argsort()
    shown = torch.full_like(native, MASK_TOKEN)
    total = 0.0
    for residue in order.tolist():
        log_p = network(shown, None, encoding).log_softmax(-1)
        total -= log_p[0, residue, native[0, residue]].item()
        shown[0, residue] = native[0, residue]
    assert fast.item() == pytest.approx(total / 14, abs=1e-5)


def test_probabilities_of_all_sequences_of_an_order_sum_to_one(network: InverseFolding) -> None:
    """Two designed residues, the rest given: exp(-2 score) over the 400 pairs sums to 1."""
    backbone, native, scored = scored_batch((10,))
    encoding = network.encode(backbone).repeat(400)
    pair = torch.zeros_like(scored).scatter(1, torch.tensor([[2, 7]]), True)
    sequences = native.repeat(400, 1)
    sequences[:, 2] = torch.arange(400) // 20
    sequences[:, 7] = torch.arange(400) % 20
    nll = any_order_nll(network, encoding, sequences, pair.expand(400, -1), blocks=2)
    assert torch.exp(-2 * nll.double()).sum().item() == pytest.approx(1.0, abs=1e-4)


def test_unknown_residues_are_designed_but_do_not_count(designer: Designer) -> None:
    structure = helix(20)
    holed = Structure(
        structure.name,
        structure.coords,
        "X" + structure.sequence[1:],
        structure.chain_ids,
        structure.residue_ids,
        structure.residue_numbers,
    )
    design = designer.design(holed)[0]
    assert design.sequence[0] != "X"
    same = np.mean([a == b for a, b in zip(design.sequence[1:], structure.sequence[1:], strict=True)])
    assert design.recovery == pytest.approx(same)
    blank = Structure(holed.name, holed.coords, "X" * 20, holed.chain_ids, holed.residue_ids, holed.residue_numbers)
    assert designer.design(blank)[0].recovery is None
    assert designer.score_native(blank) is None


def test_rotating_the_structure_keeps_the_design(designer: Designer) -> None:
    structure = helix(30)
    generator = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    moved = Structure(
        structure.name,
        (structure.coords @ rotation.T + 5.0).astype(np.float32),
        structure.sequence,
        structure.chain_ids,
        structure.residue_ids,
        structure.residue_numbers,
    )
    assert designer.design(moved, num=3)[2].sequence == designer.design(structure, num=3)[2].sequence
