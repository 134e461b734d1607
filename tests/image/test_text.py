"""Text: readers, the cache of captions, a run that is told them, drawing by text, and captioning by a model."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_files import write_folder
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_image.autoencoder import load_autoencoder
from reed_image.beside import open_caches, plans_of
from reed_image.data import open_prepared, open_source, prepare
from reed_image.encoders.captioner import Captioner, caption, pictures_to_caption
from reed_image.encoders.captions import read_captions
from reed_image.encoders.reader import HashedWords, Reading, load_reader
from reed_image.latents import featurize
from reed_image.model import ImageModel, load
from reed_image.prompts import read_prompts
from reed_image.recipe import Recipe
from reed_image.sample import Request, draw, pictures
from reed_image.training import run_recipe, training_estimate
from torch import Tensor

TINY = {"patch": 8, "width": 32, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared pictures, mirrored too; held-out ones; captions."""
    folder = tmp_path_factory.mktemp("place")
    for name, each in (("data", 3), ("valid", 1)):
        source = open_source(write_folder(folder / f"{name}-files", each=each))
        prepare(source, folder / name, load_autoencoder("pixels"), size=16, flips=name == "data", progress=False)
    names = open_prepared(folder / "data").names
    lines = [json.dumps({"name": name, "caption": f"one {name.partition('/')[0]} here"}) for name in names]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def recipe(place: Path, **settings: Any) -> Recipe:
    values = {
        "data": str(place / "data"),
        "batch_size": 6,
        "drop": 0.3,
        "network": TINY,
        "text": {"captions": str(place / "captions.jsonl"), "dim": 16, "tokens": 4},
        "cache": str(place / "cache"),
        "sampling": {"num": 2, "steps": 1, "cfg": 2.0},
        "train": {"samples": 12, "log_every": 1, "decay": 0.0, "learning_rate": 1e-2},
        **settings,
    }
    return Recipe.model_validate(values)


def written(settings: Recipe) -> Recipe:
    for plan, prepared in plans_of(settings):
        assert featurize(plan, prepared) is not None
    return settings


@pytest.fixture(scope="module")
def weights(place: Path) -> Path:
    """A model told captions, after two steps."""
    run_recipe(written(recipe(place)), place / "run", progress=False)
    return place / "run" / "weights"


def test_words_are_their_own_and_know_their_place() -> None:
    reader = HashedWords(16, 4)
    alone, beside = reader(["A red, car!"]), reader(["a red car", "one two three four five six", ""])
    assert torch.equal(alone.value[0], beside.value[0, :3])
    assert beside.mask.sum(1).tolist() == [3, 4, 0]
    assert torch.equal(beside.value[~beside.mask], torch.zeros(1 + 4, 16))
    here, there = reader(["red car"]).value[0], reader(["car red"]).value[0]
    assert not torch.equal(here[0], there[1])
    torch.testing.assert_close(here[0] - there[1], there[0] - here[1])  # what differs is the place
    many = HashedWords(256, 64)([" ".join(f"w{number}" for number in range(64))]).value[0]
    assert 0.8 < float(many.std()) < 1.3


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_the_text_part_of_a_language_model(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra reed-image[vlm]")
    tokenizer = plain_tokenizer(transformers)
    torch.manual_seed(0)
    if kind == "clip":
        text = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        seen = {**text, "image_size": 8, "patch_size": 4}
        read = {**text, "vocab_size": 10, "eos_token_id": 1, "max_position_embeddings": 8}
        network = transformers.CLIPModel(transformers.CLIPConfig(text_config=read, vision_config=seen))
    else:
        network = transformers.T5Model(
            transformers.T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
        )
    tokenizer.save_pretrained(tmp_path)
    network.save_pretrained(tmp_path)
    reader = load_reader(Reading(model=str(tmp_path), tokens=4))
    alone, beside = reader(["an ant"]), reader(["an ant", "a bee on a leaf on a leaf"])
    assert reader.dim == 8
    assert beside.mask.sum(1).tolist() == [2, 4]
    torch.testing.assert_close(alone.value[0], beside.value[0, :2], rtol=1e-4, atol=1e-5)
    assert not bool(beside.value[~beside.mask].any())
    with pytest.raises(InputError, match="layer 7"):
        load_reader(Reading(model=str(tmp_path), layer=7))


def test_a_run_is_told_the_captions_of_its_pictures(place: Path, weights: Path) -> None:
    settings = recipe(place)
    prepared = open_prepared(settings.data)
    caches = open_caches(settings, prepared)
    assert caches.text is not None
    found = caches.text.gather([0, 1, len(prepared) - 1])
    reader = HashedWords(16, 4)
    for row, item in enumerate((0, 0, len(prepared.names) - 1)):  # item 1 is the mirrored copy of picture 0
        expected = reader([f"one {prepared.names[item].partition('/')[0]} here"]).value[0]
        torch.testing.assert_close(found.value[row, :3], expected, rtol=1e-3, atol=2e-3)
    assert found.mask.tolist() == [[True, True, True, False]] * 3
    model = load(weights)
    assert (model.config.network.text_dim, model.config.network.classes) == (16, 0)
    assert model.config.text is not None
    assert model.config.text.weights == reader.fingerprint
    assert (place / "run" / "samples" / f"{12:012d}" / "grid.png").is_file()


def test_what_is_withheld_is_text_and_class_together(place: Path) -> None:
    from reed_image.beside import beside_pictures
    from reed_image.training import open_data, start

    settings = recipe(place, network={**TINY, "classes": True})
    prepared = open_prepared(settings.data)
    caches = open_caches(settings, prepared)
    model = start(settings, prepared, caches).model
    told = beside_pictures(settings, caches.latents.values, caches.text, model)
    data = open_data(settings, prepared, caches.latents, model.config.network.classes, told)
    items = [index % 6 for index in range(120)]
    batch = data.batch(items, NoiseSource(0, range(120)))
    assert isinstance(batch.x_0, Tensor)
    assert torch.equal(batch.c.label < 0, ~batch.c.text_mask.any(1))
    assert 0.1 < float((batch.c.label < 0).float().mean()) < 0.5
    parts = data.batch(items[40:60], NoiseSource(0, range(40, 60)))
    assert torch.equal(parts.c.text_mask, batch.c.text_mask[40:60])
    kept = (batch.c.label >= 0).nonzero()[:, 0]
    reader = HashedWords(16, 4)
    for row in kept[:6].tolist():
        expected = reader([f"one {('ant', 'bee')[int(batch.c.label[row])]} here"]).value[0]
        torch.testing.assert_close(batch.c.text[row, :3], expected, rtol=1e-3, atol=2e-3)


def moved(weights: Path) -> ImageModel:
    """The model with weights that let text through."""
    model = load(weights)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    return model


def test_a_picture_depends_on_its_own_text_alone(weights: Path) -> None:
    model = moved(weights)

    def drawn(texts: list[str], num: int, batch: int = 8, **settings: Any) -> Tensor:
        prompts = read_prompts(model.config, texts)
        request = Request(num, steps=2, prompts=prompts, **settings)
        return torch.cat([part.x for part in draw(model, request, batch=batch)])

    both = drawn(["an ant", "a long text of a bee"], 4)
    torch.testing.assert_close(drawn(["an ant"], 1), both[:1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(drawn(["an ant", "a long text of a bee"], 4, batch=1), both, rtol=1e-4, atol=1e-5)
    assert float((drawn(["a bee"], 1) - both[:1]).abs().max()) > 1e-4
    guided = drawn(["an ant"], 1, scale=3.0)
    assert float((guided - both[:1]).abs().max()) > 1e-4
    without = torch.cat([part.x for part in draw(model, Request(1, steps=2))])
    torch.testing.assert_close(drawn(["an ant"], 1, scale=0.0), without, rtol=1e-4, atol=1e-5)
    assert model.sample(2, texts=["an ant"], steps=1).shape == (2, 3, 16, 16)


def test_texts_that_cannot_be_read(place: Path, weights: Path) -> None:
    model = load(weights)
    assert model.config.text is not None
    other = model.config.text.model_copy(update={"weights": "others"})
    with pytest.raises(InputError, match="not the one the texts were read with"):
        read_prompts(model.config.model_copy(update={"text": other}), ["a"])
    gone = model.config.text.model_copy(update={"model": "absent"})
    with pytest.raises(InputError, match="can it be downloaded"):
        read_prompts(model.config.model_copy(update={"text": gone}), ["a"])
    plain = ImageModel(model.config.model_copy(update={"text": None}))
    with pytest.raises(InputError, match="without texts"):
        pictures(plain, 1, texts=["a"])
    with pytest.raises(InputError, match="without texts"):
        next(draw(plain, Request(1, prompts=read_prompts(model.config, ["a"]))))
    settings = recipe(place, text={"captions": "absent.jsonl"})
    with pytest.raises(InputError, match=r"no file absent\.jsonl"):
        written(settings)
    with pytest.raises(ValueError, match="belongs to"):
        recipe(place, text=None, sampling={"texts": ["a"]})


def test_names_of_classes_are_captions_too(place: Path) -> None:
    """And held-out pictures have theirs; what has not been written yet is stood in for by a dry run."""
    settings = recipe(place, text={"dim": 8, "tokens": 2}, valid=str(place / "valid"), sampling={"texts": ["an ant"]})
    found = training_estimate(settings, place / "none")
    assert [part.name for part in found.disk if "cache" in part.name] == ["cache of text (float16)"] * 2
    with pytest.raises(InputError, match="featurize"):
        run_recipe(settings, place / "none", progress=False)
    run_recipe(written(settings), place / "named", progress=False)
    assert '"valid_loss"' in (place / "named" / "log.jsonl").read_text()
    prepared = open_prepared(settings.data)
    caches = open_caches(settings, prepared)
    assert caches.text is not None
    expected = HashedWords(8, 2)(["ant"]).value[0]
    torch.testing.assert_close(caches.text.gather([0]).value[0, :1], expected, rtol=1e-3, atol=2e-3)


def plain_tokenizer(transformers: Any) -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[PAD]", "[EOS]", "[UNK]", "<image>", "a", "an", "ant", "bee", "on", "leaf"]
    model = tokenizers.models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]")
    plain = tokenizers.Tokenizer(model)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "eos_token": "[EOS]",
        "additional_special_tokens": ["<image>"],
    }
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **special)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision-language model of random weights, as transformers saves one."""
    transformers = pytest.importorskip("transformers", reason="needs the extra reed-image[vlm]")
    folder = tmp_path_factory.mktemp("vlm")
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    seen = transformers.CLIPVisionConfig(**small, image_size=8, patch_size=4)
    ends = {"pad_token_id": 0, "eos_token_id": 1}
    said = transformers.Qwen2Config(**small, vocab_size=10, num_key_value_heads=1, **ends)
    torch.manual_seed(0)
    config = transformers.LlavaConfig(vision_config=seen, text_config=said, image_token_index=3, image_token_id=3)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    tokenizer = plain_tokenizer(transformers)
    options = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    transformers.LlavaProcessor(images, tokenizer, patch_size=4, **options).save_pretrained(folder)
    return folder


def test_captions_are_resumed_to_the_same_file(vlm: Path, place: Path, tmp_path: Path) -> None:
    captioner = Captioner(str(vlm), tokens=3)
    found, count = pictures_to_caption(str(place / "data-files"))
    assert caption(captioner, found, tmp_path / "whole.jsonl", batch=4) == (count, 0, 0)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    assert set(read_captions(tmp_path / "whole.jsonl")) == set(open_prepared(place / "data").names)
    for end in (0, 3, whole.index(b"\n") + 1, len(whole) - 5):  # killed there
        (tmp_path / "part.jsonl").write_bytes(whole[:end])
        done = caption(captioner, pictures_to_caption(str(place / "data-files"))[0], tmp_path / "part.jsonl", batch=4)
        assert done.new + done.held == count
        assert done.held == whole[:end].count(b"\n")
        assert (tmp_path / "part.jsonl").read_bytes() == whole
    other = Captioner(str(vlm), "What is it?", tokens=3)
    with pytest.raises(InputError, match="holds captions by"):
        caption(other, [], tmp_path / "whole.jsonl")
    for foreign in ("[]\n", "a line that is not ours"):
        (tmp_path / "no.jsonl").write_text(foreign)
        with pytest.raises(InputError, match="no file of captions"):
            caption(captioner, [], tmp_path / "no.jsonl")
        assert (tmp_path / "no.jsonl").read_text() == foreign


def test_the_command_caption(
    vlm: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reed_image.cli import main

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["reed-image", "caption", *map(str, arguments), "--device", "cpu", "--quiet"])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    shutil.copytree(place / "data-files", tmp_path / "files")
    (tmp_path / "files" / "ant" / "0.png").write_bytes(b"none")
    out = tmp_path / "c.jsonl"
    assert call(tmp_path / "files", "--out", out, "--model", vlm, "--tokens", 2) == 0
    assert "5 captions written, 0 were there, 1 pictures could not be read" in capsys.readouterr().err
    assert call(place / "data", "--out", tmp_path / "d.jsonl", "--model", vlm, "--tokens", 2) == 0
    capsys.readouterr()
    assert call(tmp_path / "files", "--out", out, "--model", tmp_path / "absent") == 2
    said = capsys.readouterr().err
    assert "neither a folder here nor can it be downloaded" in said
    assert said.strip().count("\n") == 0
    import reed_image.encoders.language as language

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(language, "import_module", missing)
    assert call(tmp_path / "files", "--out", out, "--model", vlm) == 2
    assert "install reed-image[vlm]" in capsys.readouterr().err
