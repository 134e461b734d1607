"""The exported folder: what diffusers loads says and draws what our model and our sampler do."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from diffusers.utils import dynamic_modules_utils
from reed_core.errors import InputError
from reed_core.process import Interpolant
from reed_core.sample import ClassifierFree, integrate
from reed_image.autoencoder import Autoencoder, AutoencoderSpec, TinyCodec
from reed_image.autoencoder.codec import PixelCodec
from reed_image.autoencoder.taef2 import taef2_network
from reed_image.export import SiTModel, SiTPipeline, export
from reed_image.model import ImageModel, JointSpec, ModelConfig
from reed_image.network import Condition, SiTConfig
from reed_image.sample import Decoder
from safetensors import safe_open

SCALE, SHIFT = (0.5, 1.0, 2.0, 4.0), (0.0, 0.1, 0.2, 0.3)
SPEC = AutoencoderSpec(
    name="made/up", kind="TinyCodec", channels=4, factor=8, stochastic=False, shift=SHIFT, scale=SCALE, weights=""
)
NAMES = ("bird", "cat", "dog")


def made(**changes: Any) -> ImageModel:
    """A model of 8 x 8 latents, or what the changes say."""
    torch.manual_seed(0)
    sizes = {"size": 8, "channels": 4, "width": 32, "depth": 2, "heads": 2, "classes": 3}
    network = SiTConfig(**{**sizes, **changes.pop("network", {})})
    model = ImageModel(ModelConfig(**{"network": network, "autoencoder": SPEC, "class_names": NAMES, **changes}))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def vae() -> Autoencoder:
    """A tiny autoencoder that divides sizes by 8."""
    return Autoencoder("made/up", TinyCodec(network()), SHIFT, SCALE)


def network() -> AutoencoderTiny:
    torch.manual_seed(1)
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8), latent_channels=4
    ).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "deep" / "model"
    export(made(), path, vae().to("cpu"))
    return path


@pytest.fixture
def pipeline(folder: Path) -> SiTPipeline:
    found = SiTPipeline.from_pretrained(folder)
    found.set_progress_bar_config(disable=True)
    return found


def test_the_folder_is_one_of_diffusers(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "SiTPipeline"
    assert index["transformer"] == ["reed_image.export", "SiTModel"]
    assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    assert index["vae"] == ["diffusers", "AutoencoderTiny"]
    with safe_open(folder / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as weights:
        assert set(weights.keys()) == {f"model.{name}" for name in made().state_dict()}
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt")]
    assert len({path.stat().st_mode for path in folder.rglob("*") if path.is_file()}) == 1


def test_the_class_need_not_be_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path))
    found = DiffusionPipeline.from_pretrained(folder, custom_pipeline=str(folder), trust_remote_code=True)
    assert type(found) is SiTPipeline
    assert type(found.transformer) is SiTModel


@torch.no_grad()
def test_the_transformer_says_the_same(folder: Path) -> None:
    model = made()
    x, t, label = torch.randn(3, 4, 8, 8), torch.rand(3), torch.tensor([0, 2, -1])
    again = SiTModel.from_pretrained(folder, subfolder="transformer")
    expected = model(x, t, Condition(label))
    torch.testing.assert_close(again(x, 1000 * t, class_labels=label).sample, expected)
    torch.testing.assert_close(again(x, 1000 * t, class_labels=label, return_dict=False)[0], expected)
    torch.testing.assert_close(again(x, 1000 * t).sample, model(x, t, None))
    assert again.model.config == model.config
    half = SiTModel.from_pretrained(folder, subfolder="transformer", torch_dtype=torch.bfloat16)
    assert half(x, 1000 * t, class_labels=label).sample.sub(expected).norm() < 0.05 * expected.norm()


@torch.no_grad()
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.2, 0.7)])
def test_the_pipeline_draws_what_our_sampler_draws(pipeline: SiTPipeline, interval: tuple[float, float]) -> None:
    model, steps, scale = made(), 8, 2.5
    noise, label = torch.randn(3, 4, 8, 8), torch.tensor([0, 2, 1])
    process = Interpolant(t_min=1 / steps, t_max=1.0)
    guided = ClassifierFree(model, None, scale, interval)
    ours = integrate(process, guided, noise, steps - 1, Condition(label), method="euler")
    asked = {"latents": noise, "guidance_scale": scale, "guidance_interval": interval, "output_type": "latent"}
    for named in ([0, 2, 1], ["bird", "dog", "cat"]):
        theirs = pipeline(class_labels=named, num_inference_steps=steps, **asked).images
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    free = pipeline(class_labels=[0, 2, 1], num_inference_steps=steps, latents=noise, output_type="latent").images
    assert (free - ours).abs().max() > 1e-2
    sigmas = [0.9, 0.5, 0.3]  # any grid of ours
    ours = integrate(
        Interpolant(t_min=0.3, t_max=0.9), guided, noise, 2, Condition(label), "euler", grid=lambda *_: sigmas
    )
    theirs = pipeline(class_labels=[0, 2, 1], sigmas=sigmas, **asked).images
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_images_are_decoded_from_latents_of_the_autoencoder(pipeline: SiTPipeline) -> None:
    noise = torch.randn(2, 4, 8, 8)
    x = pipeline(class_labels=[0, 1], num_inference_steps=2, latents=noise, output_type="latent").images
    expected = vae().decode(x)
    found = pipeline(class_labels=[0, 1], num_inference_steps=2, latents=noise, output_type="pt").images
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    images = pipeline(class_labels=[0, 1], num_inference_steps=2).images
    assert [image.size for image in images] == [(64, 64)] * 2


def test_seeds_repeat(pipeline: SiTPipeline) -> None:
    one, same, other = (
        pipeline(num_inference_steps=2, output_type="latent", generator=torch.Generator().manual_seed(seed)).images
        for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len(pipeline(num_images=2, num_inference_steps=1, output_type="latent", return_dict=False)[0]) == 2


@torch.no_grad()
def test_text_reaches_the_network(tmp_path: Path) -> None:
    model = made(network={"classes": 0, "text_dim": 6}, class_names=())
    export(model, tmp_path / "model")
    pipeline = SiTPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    text, noise = torch.randn(2, 3, 6), torch.randn(2, 4, 8, 8)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    asked = {"prompt_embeds": text, "prompt_mask": mask, "latents": noise, "output_type": "latent"}
    theirs = pipeline(num_inference_steps=4, guidance_scale=3.0, **asked).images
    guided, c = ClassifierFree(model, None, 3.0), Condition(text=text, text_mask=mask)
    ours = integrate(Interpolant(t_min=0.25, t_max=1.0), guided, noise, 3, c, "euler")
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_pixels_need_no_autoencoder(tmp_path: Path) -> None:
    export(made(network={"channels": 3}, autoencoder=None), tmp_path / "model")
    pipeline = SiTPipeline.from_pretrained(tmp_path / "model")
    (image,) = pipeline(class_labels=["cat"], num_inference_steps=1).images
    assert image.size == (8, 8)


def test_pixels_of_another_scale_come_back_as_pixels(tmp_path: Path) -> None:
    """`prepare --autoencoder pixels --fit N` gives each channel mean 0 and deviation 1."""
    own = {"name": "pixels", "kind": "PixelCodec", "channels": 3, "factor": 1}
    spec = SPEC.model_copy(update={**own, "shift": (0.2, -0.1, 0.0), "scale": (2.0, 4.0, 8.0)})
    model = made(network={"channels": 3}, autoencoder=spec)
    export(model, tmp_path / "model")
    pipeline = SiTPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    asked = {"class_labels": [0, 1], "num_inference_steps": 2, "latents": torch.randn(2, 3, 8, 8)}
    x = pipeline(output_type="latent", **asked).images
    found = pipeline(output_type="pt", **asked).images
    torch.testing.assert_close(found, Decoder(Autoencoder("pixels", PixelCodec(), spec.shift, spec.scale))(x))
    assert (found - Decoder()(x)).abs().max() > 0.05


@torch.no_grad()
def test_shifted_times_are_shifted(tmp_path: Path) -> None:
    model, steps = made(time_shift=2.0), 4
    export(model, tmp_path / "model")
    pipeline = SiTPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    noise, label = torch.randn(2, 4, 8, 8), torch.tensor([0, 1])
    asked = {"class_labels": [0, 1], "latents": noise, "output_type": "latent"}
    theirs = pipeline(num_inference_steps=steps, **asked).images
    times = [2 * t / (1 + t) for t in (1.0, 0.75, 0.5, 0.25)]
    process = Interpolant(t_min=times[-1], t_max=times[0])
    ours = integrate(process, model, noise, steps - 1, Condition(label), "euler", grid=lambda *_: times)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_a_missing_autoencoder_may_be_given_later(tmp_path: Path) -> None:
    export(made(), tmp_path / "model")
    pipeline = SiTPipeline.from_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="the vae made/up"):
        pipeline(class_labels=[0])
    pipeline = SiTPipeline.from_pretrained(tmp_path / "model", vae=network())
    assert pipeline(class_labels=[0], num_inference_steps=1).images[0].size == (64, 64)


def test_what_cannot_be_is_refused(pipeline: SiTPipeline, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="disagree"):
        pipeline(class_labels=[0, 1], num_images=3)
    with pytest.raises(InputError, match="unknown class 'cow'"):
        pipeline(class_labels=["cow"])
    with pytest.raises(InputError, match="no class 3"):
        pipeline(class_labels=[3])
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export(made(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    widened = Autoencoder("widened", TinyCodec(taef2_network()), (0.0,) * 32, (1.0,) * 32)
    large = {
        "network": {"channels": 32},
        "autoencoder": SPEC.model_copy(update={"channels": 32, "shift": (0.0,) * 32, "scale": (1.0,) * 32}),
    }
    cases = [
        (made(**large), widened, "export the model without it"),
        (made(), widened, "expected made/up"),
        (made(network={"channels": 3}, autoencoder=None), vae(), "draws pixels"),
    ]
    for model, autoencoder, message in cases:
        with pytest.raises(InputError, match=message):
            export(model, tmp_path / "model", autoencoder)
    assert not (tmp_path / "model").exists()
    for wrong in ({"path": "trig"}, {"prediction": "eps"}):
        with pytest.raises(InputError, match="flow-matching"):
            export(made(**wrong), tmp_path / "model")
    with pytest.raises(InputError, match="beside the picture"):
        export(made(network={"joint": 4}, joint=JointSpec(name="z", dim=8)), tmp_path / "model")
