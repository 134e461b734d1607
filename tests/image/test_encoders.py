"""Encoders: the grid is met by the input, tokens are where they should be, and a picture's z is its own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import Encoder, build_cache, open_cache
from reed_image.data import Named, open_source, prepare
from reed_image.data.crop import square
from reed_image.data.image_file import read_rgb
from reed_image.encoders import (
    ArrayEncoder,
    Layout,
    TextEncoder,
    VisionEncoder,
    load_text_encoder,
    mobilenet_v2,
    read_captions,
    resnet20,
    timm_encoder,
)
from reed_image.encoders.resnet20 import ResNet20
from reed_image.encoders.vision import IMAGENET_MEAN, IMAGENET_STD
from safetensors.torch import save_file
from torch import Tensor, nn

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
VIT, CNN = "test_vit", "test_efficientnet"


def named(*names: str, mirrored: tuple[bool, ...] = ()) -> Named:
    return Named(names, torch.zeros(len(names), dtype=torch.long), torch.tensor(mirrored or (False,) * len(names)))


NAMES = named("a", "b", "c", "d")


def small_resnet(tmp_path: Path) -> VisionEncoder:
    torch.manual_seed(0)
    save_file(ResNet20().state_dict(), tmp_path / "resnet.safetensors")
    return resnet20(tmp_path / "resnet.safetensors", grid=4)


class Words:
    """A tokenizer of the protocol of transformers: a number for each letter, padding on a side."""

    pad_token: str | None = "_"
    padding_side = "right"

    def __call__(self, text: list[str], return_tensors: str, padding: bool) -> dict[str, Tensor]:
        longest = max(map(len, text))
        ids = torch.zeros(len(text), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, one in enumerate(text):
            at = slice(0, len(one)) if self.padding_side == "right" else slice(longest - len(one), longest)
            ids[row, at] = torch.tensor([ord(letter) % 50 + 1 for letter in one])
            mask[row, at] = 1
        return {"input_ids": ids, "attention_mask": mask}


class Reader(nn.Module):
    """A model of that protocol, whose states depend on the place and, in vain, on the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(60, 6)
        self.config = type("Config", (), {"hidden_size": 6})()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool) -> Any:
        states = self.table(input_ids) + 0.1 * torch.arange(input_ids.shape[1])[:, None]
        return type("Output", (), {"hidden_states": (states, states + 1)})()


def text() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(Reader(), Words(), {"a": "an ant", "b": "b", "c": "a long caption", "d": "dd"})


def arrays(tmp_path: Path) -> ArrayEncoder:
    np.save(tmp_path / "z.npy", np.arange(20, dtype=np.float16).reshape(5, 4))
    (tmp_path / "names.txt").write_text("d\nb\nx\na\nc\n")
    return ArrayEncoder(tmp_path / "z.npy", tmp_path / "names.txt")


ENCODERS: dict[str, Callable[[Path], Encoder]] = {
    "vit": lambda _: timm_encoder(VIT, grid=4, weights="random"),
    "vit pooled": lambda _: timm_encoder(VIT, grid=4, weights="random", level="global"),
    "vit class token": lambda _: timm_encoder(VIT, grid=4, weights="random", level="global", pool="class"),
    "cnn": lambda _: timm_encoder(CNN, grid=4, weights="random"),
    "cnn pooled": lambda _: timm_encoder(CNN, grid=4, weights="random", at=1, level="global"),
    "resnet20": small_resnet,
    "layout": lambda _: Layout(),
    "text": lambda _: text(),
    "arrays": arrays,
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_is_a_fixed_function_of_each_picture(tmp_path: Path, kind: str) -> None:
    encoder = ENCODERS[kind](tmp_path)
    assert isinstance(encoder, Encoder)
    found = encoder(IMAGES, NAMES)
    assert found.z.shape[-1] == encoder.dim
    assert found.z.ndim == (3 if encoder.level == "token" else 2)
    assert not found.z.requires_grad
    assert bool(found.z.isfinite().all())
    assert torch.equal(encoder(IMAGES, NAMES).z, found.z)
    turned = encoder(IMAGES.flip(0), named("d", "c", "b", "a")).z.flip(0)
    torch.testing.assert_close(turned, found.z, rtol=1e-4, atol=1e-4)
    for row, name in enumerate(NAMES.names):
        alone = encoder(IMAGES[row : row + 1], named(name)).z
        torch.testing.assert_close(alone, found.z[row : row + 1], rtol=1e-4, atol=1e-4)
    assert (found.z[0] - found.z[1]).abs().max() > 1e-4
    assert encoder.fingerprint == ENCODERS[kind](tmp_path).fingerprint
    assert "\n" not in encoder.fingerprint


def test_patch_tokens_are_those_of_the_model() -> None:
    """After the last norm, without class token, of an input normalised by the model's own mean and deviation."""
    encoder = timm_encoder(VIT, grid=3, weights="random", seed=5)
    torch.manual_seed(5)
    model = timm.create_model(VIT, img_size=48).eval()
    x = nn.functional.interpolate(IMAGES, (48, 48), mode="bicubic", antialias=True).clamp(0, 1)
    config = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        features = model.forward_features((x - mean) / std)
    assert model.num_prefix_tokens == 1
    torch.testing.assert_close(encoder(IMAGES).z, features[:, 1:])
    pooled = timm_encoder(VIT, grid=3, weights="random", seed=5, level="global")(IMAGES).z
    torch.testing.assert_close(pooled, features[:, 1:].mean(1))
    first = timm_encoder(VIT, grid=3, weights="random", seed=5, level="global", pool="class")(IMAGES).z
    torch.testing.assert_close(first, features[:, 0])


def test_dinov2_with_registers_meets_the_grid() -> None:
    """14-pixel patches, five prefix tokens, a default size of 518 pixels: 16 tokens for a grid of 4."""
    encoder = timm_encoder("vit_small_patch14_reg4_dinov2", grid=4, weights="random", at=0)
    assert (encoder.size, encoder.tokens, encoder.dim) == (56, 16, 384)


def test_tokens_lie_row_by_row() -> None:
    """A change in one cell changes the token there most."""
    torch.manual_seed(0)
    made = {
        0: timm_encoder(VIT, grid=4, weights="random", at=0),
        1: timm_encoder(CNN, grid=4, weights="random", at=1),  # its field is wider than a cell
    }
    for reach, encoder in made.items():
        base, step = torch.full((1, 3, encoder.size, encoder.size), 0.5), encoder.size // 4
        for row, column in ((0, 3), (3, 0), (1, 2)):
            changed = base.clone()
            changed[..., row * step : (row + 1) * step, column * step : (column + 1) * step] = torch.rand(step, step)
            moved = (encoder(changed).z - encoder(base).z).norm(dim=-1)
            found = divmod(int(moved.argmax()), 4)
            assert max(abs(found[0] - row), abs(found[1] - column)) <= reach, encoder.name


@pytest.mark.parametrize("at", [0, 1, 2])
def test_every_stage_of_a_convolutional_network(at: int) -> None:
    model = timm.create_model(CNN)
    about: Any = model.feature_info
    encoder = timm_encoder(CNN, grid=4, at=at, weights="random")
    assert (encoder.size, encoder.dim, encoder.tokens) == (4 * about[at]["reduction"], about[at]["num_chs"], 16)


def test_random_weights_are_a_function_of_the_seed() -> None:
    one, same, other = (timm_encoder(VIT, grid=2, weights="random", seed=seed).fingerprint for seed in (1, 1, 2))
    assert one == same != other
    before = torch.get_rng_state()
    timm_encoder(VIT, grid=2, weights="random", seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_what_changes_the_values_changes_the_fingerprint() -> None:
    made = [
        timm_encoder(VIT, grid=2, weights="random"),
        timm_encoder(VIT, grid=2, weights="random", at=0),
        timm_encoder(VIT, grid=2, weights="random", mean=(0.4, 0.5, 0.6)),
        timm_encoder(VIT, grid=2, weights="random", level="global"),
        timm_encoder(VIT, grid=2, weights="random", level="global", pool="class"),
    ]
    assert len({encoder.fingerprint for encoder in made}) == len(made)


def test_wrong_models_and_files_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def message(**options: Any) -> str:
        with pytest.raises(InputError) as caught:
            timm_encoder(**{"model": VIT, "grid": 2, "weights": "random", **options})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no timm model 'vit_of_mine'" in message(model="vit_of_mine")
    assert "has no class token" in message(model=CNN, pool="class", level="global")
    assert "has no stage 17" in message(model=CNN, at=17)
    (tmp_path / "a.safetensors").write_bytes(b"damaged")
    assert "cannot be read as safetensors" in message(weights=tmp_path / "a.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert "does not fit" in message(weights=tmp_path / "a.safetensors")

    create = timm.create_model

    def offline(*args: Any, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            raise OSError("cannot connect to https://some.host\nfor weights")
        return create(*args, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    assert "cannot be downloaded (OSError)" in message(weights="pretrained")


def test_weights_of_a_file_are_used(tmp_path: Path) -> None:
    source = timm_encoder(VIT, grid=2, weights="random", seed=9)
    save_file(source.module.state_dict(), tmp_path / "a.safetensors")
    again = timm_encoder(VIT, grid=2, weights=tmp_path / "a.safetensors")
    assert again.fingerprint == source.fingerprint


def test_resnet20_stages_and_shortcut(tmp_path: Path) -> None:
    network = ResNet20().eval()
    x = torch.randn(2, 3, 32, 32)
    assert [tuple(stage.shape[1:]) for stage in network.stages(x)] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    block = network.layer2[0]
    nn.init.zeros_(block.bn2.weight)  # the block is its shortcut alone
    inner = torch.rand(1, 16, 8, 8)
    expected = torch.zeros(1, 32, 4, 4)
    expected[:, 8:24] = inner[:, :, ::2, ::2]
    torch.testing.assert_close(block(inner), expected)
    with pytest.raises(InputError, match="stage 3 of ResNet-20"):
        resnet20(tmp_path / "none", grid=4, at=3)


def real_images(reed_data: Path, file: str, size: int, step: int, count: int) -> tuple[Tensor, Tensor]:
    pictures = list(open_source(reed_data / "image" / file).pictures())[::step][:count]
    pixels = [torch.from_numpy(square(read_rgb(one.read()), size, "adm").copy()) for one in pictures]
    images = torch.stack(pixels).permute(0, 3, 1, 2).float() / 255
    return images, torch.tensor([one.label for one in pictures])


def test_resnet20_knows_cifar10(reed_data: Path) -> None:
    path = reed_data / "encoders" / "resnet20_cifar10.safetensors"
    images, labels = real_images(reed_data, "cifar10_test.parquet", 32, 20, 250)
    encoder = resnet20(path, grid=8)
    network: Any = encoder.module
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        right = (network((images - mean) / std).argmax(1) == labels).float().mean()
    assert right > 0.72
    pooled = resnet20(path, grid=8, level="global")(images).z
    torch.testing.assert_close(pooled, encoder(images).z.mean(1))
    with torch.no_grad():
        assert ((network.linear(pooled).argmax(1) == labels).float().mean() - right).abs() < 1e-6


def test_mobilenet_v2_sees_clothes(reed_data: Path) -> None:
    """Nearest neighbours by its pooled maps share a class far more often than by pixels."""
    path = reed_data / "encoders" / "mobilenet_v2_imagenet.safetensors"
    images, labels = real_images(reed_data, "clothing10_valid.parquet", 128, 4, 80)
    encoder = mobilenet_v2(path, grid=4, level="global")
    assert (encoder.size, encoder.dim) == (128, 320)

    def agreement(z: Tensor) -> float:
        z = nn.functional.normalize(z - z.mean(0), dim=1)
        near = (z @ z.T).fill_diagonal_(-2).argmax(1)
        return float((labels[near] == labels).float().mean())

    assert agreement(encoder(images).z) > agreement(images.flatten(1)) + 0.15
    tokens = mobilenet_v2(path, grid=8, at=3)
    assert (tokens.size, tokens.dim, tokens.tokens) == (128, 96, 64)


def test_layout_sees_edges_and_colours() -> None:
    stripes = torch.zeros(2, 3, 64, 64)
    stripes[0, :, ::8] = stripes[0, :, 1::8] = stripes[0, :, 2::8] = 1.0
    stripes[1] = stripes[0].mT
    z = Layout()(stripes).z
    edges = z[:, :128].square().reshape(2, 8, 16).sum(2)
    assert edges.argmax(1).tolist() == [4, 0]  # strength across stripes that lie, and that stand
    torch.testing.assert_close(z.square().sum(1), torch.full((2,), 2.0))
    colours = torch.stack([torch.full((3, 8, 8), 0.1), torch.tensor([0.9, 0.1, 0.4])[:, None, None].expand(3, 8, 8)])
    flat = Layout()(colours).z
    assert flat[:, :128].abs().max() == 0
    assert flat[:, 128:].argmax(1).tolist() == [0, 3 * 16 + 1]
    turned = Layout()(IMAGES.flip(3)).z
    torch.testing.assert_close(turned[:, 128:], Layout()(IMAGES).z[:, 128:], rtol=1e-3, atol=1e-2)


def test_text_is_the_mean_over_its_own_tokens() -> None:
    encoder = text()
    z = encoder(IMAGES, NAMES).z
    reader: Any = encoder.module
    for row, name in enumerate(NAMES.names):
        letters = [ord(letter) % 50 + 1 for letter in encoder.captions[name]]
        states = reader.table.weight[letters] + 0.1 * torch.arange(len(letters))[:, None] + 1
        torch.testing.assert_close(z[row], states.mean(0))


def test_missing_captions() -> None:
    encoder = text()
    with pytest.raises(InputError, match="no caption for x"):
        encoder(IMAGES[:2], named("a", "x"))
    encoder.partial = True
    found = encoder(IMAGES[:2], named("a", "x"))
    assert found.mask is not None
    assert found.mask.tolist() == [True, False]
    none = encoder(IMAGES[:1], named("x"))
    assert none.mask is not None
    assert not bool(none.mask.any())
    with pytest.raises(InputError, match="by the names"):
        encoder(IMAGES, None)


@pytest.mark.parametrize("causal", [False, True])
def test_a_model_of_transformers(tmp_path: Path, causal: bool) -> None:
    """From a folder; a caption's z is the same alone and beside a longer one."""
    transformers = pytest.importorskip("transformers", reason="needs the extra reed-image[vlm]")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[UNK]", "[PAD]", "a", "an", "ant", "bee", "on", "leaf"]
    model = tokenizers.models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]")
    plain = tokenizers.Tokenizer(model)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.padding_side = "left"
    settings = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    if causal:
        config = transformers.Qwen2Config(**settings, intermediate_size=16, num_key_value_heads=1)
        network = transformers.Qwen2Model(config)
    else:
        network = transformers.BertModel(transformers.BertConfig(**settings, intermediate_size=16))
    tokenizer.save_pretrained(tmp_path)
    network.save_pretrained(tmp_path)
    captions = {"a": "an ant", "b": "a bee on a leaf on a leaf"}
    encoder = load_text_encoder(str(tmp_path), captions, layer=1)
    both = encoder(IMAGES[:2], named("a", "b")).z
    torch.testing.assert_close(encoder(IMAGES[:1], named("a")).z, both[:1], rtol=1e-4, atol=1e-5)
    ids = torch.tensor([encoder.tokenizer(captions["a"])["input_ids"]])
    with torch.no_grad():
        expected = network.eval()(ids, output_hidden_states=True).hidden_states[1].mean(1)
    torch.testing.assert_close(both[:1], expected, rtol=1e-4, atol=1e-5)
    assert load_text_encoder(str(tmp_path), captions, layer=2).fingerprint != encoder.fingerprint
    with pytest.raises(InputError, match="neither a folder here nor can it be downloaded") as caught:
        load_text_encoder(str(tmp_path / "absent"), captions)
    assert "\n" not in str(caught.value)


def test_captions_file(tmp_path: Path) -> None:
    lines = [json.dumps({"name": "a/1.png", "caption": "an ant, ü"}), "", json.dumps({"name": "b", "caption": "bee"})]
    (tmp_path / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "c.tsv").write_text("a/1.png\tan ant, ü\nb\tbee\n", encoding="utf-8")
    expected = {"a/1.png": "an ant, ü", "b": "bee"}
    assert read_captions(tmp_path / "c.jsonl") == read_captions(tmp_path / "c.tsv") == expected
    (tmp_path / "bad.tsv").write_text("a\tb\nno tab\n")
    with pytest.raises(InputError, match="line 2 of"):
        read_captions(tmp_path / "bad.tsv")
    (tmp_path / "bad.jsonl").write_text('{"name": "a"}')
    with pytest.raises(InputError, match="line 1 of"):
        read_captions(tmp_path / "bad.jsonl")
    for absent in ("none.tsv", "empty.tsv"):
        (tmp_path / "empty.tsv").write_text("\n")
        with pytest.raises(InputError, match="caption"):
            read_captions(tmp_path / absent)


def test_arrays_go_by_name(tmp_path: Path) -> None:
    encoder = arrays(tmp_path)
    assert encoder(IMAGES[:2], named("a", "d", mirrored=(True, False))).z[:, 0].tolist() == [12.0, 0.0]
    with pytest.raises(InputError, match="no row for e"):
        encoder(IMAGES[:1], named("e"))
    np.save(tmp_path / "t.npy", np.random.default_rng(0).normal(size=(2, 3, 4)))
    (tmp_path / "two.txt").write_text("a\nb\n")
    tokens = ArrayEncoder(tmp_path / "t.npy", tmp_path / "two.txt", partial=True)
    found = tokens(IMAGES[:3], named("b", "b", "x", mirrored=(False, True, False)))
    assert found.mask is not None
    assert found.mask.all(1).tolist() == [True, False, False]
    assert tokens.level == "token"
    (tmp_path / "two.txt").write_text("a\na\n")
    with pytest.raises(InputError, match="2 names, 1 of them different"):
        ArrayEncoder(tmp_path / "t.npy", tmp_path / "two.txt")
    np.save(tmp_path / "t.npy", np.zeros((2, 3), int))
    with pytest.raises(InputError, match="expected real"):
        ArrayEncoder(tmp_path / "t.npy", tmp_path / "two.txt")


def test_a_cache_of_prepared_pictures(tmp_path: Path) -> None:
    from picture_files import write_folder
    from reed_image.autoencoder import load_autoencoder

    source = open_source(write_folder(tmp_path / "pictures"))
    prepared = prepare(
        source, tmp_path / "out", load_autoencoder("pixels"), size=32, flips=True, batch=4, progress=False
    )
    items = prepared.items()
    encoder = timm_encoder(VIT, grid=2, weights="random")
    build_cache(tmp_path / "cache", encoder, items, format="float32", batch_items=5)
    cache = open_cache(tmp_path / "cache", encoder=encoder.fingerprint, data=items.fingerprint)
    found: Representation = cache.gather([0, 1, 11])
    torch.testing.assert_close(found.z, encoder(prepared.pictures([0, 1, 11])).z, rtol=1e-4, atol=1e-4)
