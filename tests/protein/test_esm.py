"""ESM-2 through fair-esm, on a tiny model with random weights; skipped where the extra is not installed."""

import argparse
import pickle
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from made_chains import chain_set, complex_of, helices
from reed_core.errors import InputError
from reed_core.testing.encoder import check_encoder
from reed_protein.dataset import ChainSet, CleanChains
from reed_protein.encoders import EsmAttention, EsmTokens, load_esm2
from reed_protein.encoders.esm2 import LINKER, SIZES, corrected, pieces
from reed_protein.encoders.graph import edges_of
from reed_protein.residues import ALPHABET
from torch import nn

esm2 = pytest.importorskip("esm.model.esm2", reason="needs reed-protein[esm]")


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    torch.manual_seed(0)
    return esm2.ESM2(num_layers=2, embed_dim=32, attention_heads=4).eval()


def checkpoint(network: nn.Module, path: Path, **changes: Any) -> Path:
    """A file in the published layout: no contact regression, names under encoder.sentence_encoder, a Namespace."""
    settings = argparse.Namespace(
        encoder_layers=2, encoder_embed_dim=32, encoder_attention_heads=4, token_dropout=True, arch="esm2"
    )
    state = {
        f"encoder.{'' if name.startswith('lm_head') else 'sentence_encoder.'}{name}": value
        for name, value in network.state_dict().items()
        if not name.startswith("contact_head")
    }
    torch.save({"cfg": {"model": settings}, "model": state, **changes}, path)
    return path


def test_a_local_checkpoint_is_read_safely_and_without_regression_file(tiny: nn.Module, tmp_path: Path) -> None:
    path = checkpoint(tiny, tmp_path / "mine.pt")
    for place in (path, tmp_path):
        loaded = load_esm2("mine", place).eval()
        tokens = torch.tensor([[0, 5, 6, 7, 2]])
        torch.testing.assert_close(loaded(tokens)["logits"], tiny(tokens)["logits"])


class Harm:
    """Unpickled without restriction, this would run a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("harm"),))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["harm", "empty", "text", "other", "state"])
def test_a_foreign_checkpoint_is_one_line(
    tiny: nn.Module, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.pt"
    if kind == "harm":
        path.write_bytes(pickle.dumps({"cfg": Harm()}))
    elif kind == "state":
        checkpoint(tiny, path, model={"encoder.sentence_encoder.strange": torch.zeros(1)})
    elif kind == "other":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        path.write_bytes(b"" if kind == "empty" else b"not a checkpoint")
    with pytest.raises(InputError, match="not an ESM-2 checkpoint") as caught:
        load_esm2("mine", path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fail(url: str, **options: Any) -> None:
        asked.append((url, options["weights_only"]))
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    for name in SIZES:
        with pytest.raises(InputError, match="give its path") as caught:
            load_esm2(name)
        assert "\n" not in str(caught.value)
    assert all(safe and url.endswith(f"/{name}.pt") for (url, safe), name in zip(asked, SIZES, strict=True))
    with pytest.raises(InputError, match="no ESM-2 model 'esm3'"):
        load_esm2("esm3")
    with pytest.raises(InputError, match="expected an ESM-2 checkpoint"):
        load_esm2("esm2_t6_8M_UR50D", Path("absent.pt"))


def test_the_names_are_those_of_fair_esm() -> None:
    pretrained = pytest.importorskip("esm.pretrained")
    assert set(SIZES) == {name for name in dir(pretrained) if name.startswith("esm2_")}


@pytest.mark.parametrize("joining", ["separate", "joined"])
def test_both_are_fixed_functions_of_each_chain(tiny: nn.Module, joining: Any) -> None:
    chains = helices(18, 24, 30)
    both = chain_set([complex_of(14, 17)])
    data = CleanChains(ChainSet(chains.ids + both.ids, chains.arrays + both.arrays, chains.tokens + both.tokens))
    check_encoder(EsmTokens(tiny, 1, joining), data)
    check_encoder(EsmAttention(tiny, 9, None, joining), data)


def test_states_are_those_of_the_batch_converter_without_its_ends(tiny: nn.Module) -> None:
    """Also the permutation of letters between the two alphabets."""
    batch = CleanChains(helices(18, 24)).batch([1])
    sequence = "".join(ALPHABET[token] for token in batch.x_0[0])
    assert sequence.startswith("X")
    _, _, tokens = tiny.alphabet.get_batch_converter()([("name", sequence)])
    out = tiny(tokens, repr_layers=[0, 1, 2], need_head_weights=True)
    for layer in range(3):
        found = EsmTokens(tiny, layer)(batch.x_0, batch.c)
        torch.testing.assert_close(found.z[0], out["representations"][layer][0, 1:25])
    maps = out["attentions"][0, 1, :, 1:25, 1:25]
    maps = maps + maps.transpose(-1, -2)
    edges = edges_of(batch.c, 30)
    found = EsmAttention(tiny, 30, [2])(batch.x_0, batch.c)
    assert found.z.shape == (1, 24, 30, 4)
    for i in range(24):
        for slot in range(24):
            j = int(edges.neighbours[0, i, slot])
            expected = maps[:, i, j] - maps[:, i].sum(-1) * maps[:, :, j].sum(-1) / maps.sum((1, 2))
            torch.testing.assert_close(found.z[0, i, slot], expected, atol=1e-6, rtol=1e-4)
    assert found.mask is not None
    assert found.mask.sum(-1).unique().tolist() == [24]


def test_correction_removes_what_rows_explain() -> None:
    rows = torch.rand(3, 7)
    outer = rows[:, :, None] * rows[:, None, :]
    torch.testing.assert_close(corrected(outer), torch.zeros_like(outer), atol=1e-6, rtol=0)


def test_chains_of_a_complex_joined_or_by_themselves(tiny: nn.Module) -> None:
    structure = complex_of(14, 17)
    batch = CleanChains(chain_set([structure])).batch([0])
    x, c = batch.x_0, batch.c
    first, second = structure.sequence[:14], structure.sequence[14:]
    apart = pieces(x[0], c.chain[0], c.mask[0], "separate")
    assert [piece.letters for piece in apart] == [first, second]
    (whole,) = pieces(x[0], c.chain[0], c.mask[0], "joined")
    assert whole.letters == first + "G" * LINKER + second
    assert "".join(whole.letters[place] for place in whole.places) == structure.sequence
    alone = CleanChains(chain_set([structure.select(["B"])])).batch([0])
    torch.testing.assert_close(EsmTokens(tiny)(x, c).z[0, 14:], EsmTokens(tiny)(alone.x_0, alone.c).z[0])
    joined = EsmTokens(tiny, chains="joined")(x, c)
    assert not torch.allclose(joined.z[0, 14:], EsmTokens(tiny)(x, c).z[0, 14:])
    edges = edges_of(c, 12)
    across = c.chain[0][edges.neighbours[0]] != c.chain[0][:, None]
    apart_pairs, joined_pairs = EsmAttention(tiny, 12)(x, c), EsmAttention(tiny, 12, chains="joined")(x, c)
    assert apart_pairs.mask is not None
    assert joined_pairs.mask is not None
    assert torch.equal(apart_pairs.mask[0], ~across)
    assert bool(joined_pairs.mask.all())


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_is_not_there_is_refused(tiny: nn.Module, layer: int) -> None:
    with pytest.raises(InputError, match="2 layers"):
        EsmTokens(tiny, layer)
    with pytest.raises(InputError, match="2 layers"):
        EsmAttention(tiny, 8, [layer])
