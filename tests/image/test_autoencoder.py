"""Autoencoders: diffusers' models behind one class, with the normalisation that belongs to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_image.autoencoder import Autoencoder, Codec, PixelCodec, load_autoencoder, load_recorded
from reed_image.autoencoder.taef2 import WidenedBlock, taef2_network
from reed_image.data import open_source
from reed_image.data.crop import square
from reed_image.data.image_file import read_rgb
from safetensors.torch import load_file, save_file
from torch import Tensor

diffusers.utils.logging.set_verbosity_error()
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def kl(**settings: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=2,
        mid_block_add_attention=False,
        **settings,
    )


def deep_compression() -> Any:
    return diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.41407,
    )


def tiny() -> Any:
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )


def raw_kl(module: Any, x: Tensor) -> Tensor:
    return module.encode(2 * x - 1).latent_dist.mean


MEAN, STD = [0.1, -0.2, 0.3, 0.0], [2.0, 1.0, 0.5, 4.0]
KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Tensor], int]] = {
    "SD": (kl, lambda m, x: raw_kl(m, x) * 0.18215, 4),
    "SDXL": (lambda: kl(scaling_factor=0.13025), lambda m, x: raw_kl(m, x) * 0.13025, 4),
    "FLUX": (
        lambda: kl(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
                   use_post_quant_conv=False),
        lambda m, x: (raw_kl(m, x) - 0.1159) * 0.3611,
        16,
    ),
    "statistics": (
        lambda: kl(latents_mean=MEAN, latents_std=STD, scaling_factor=0.5),
        lambda m, x: (raw_kl(m, x) - torch.tensor(MEAN)[:, None, None]) * 0.5 / torch.tensor(STD)[:, None, None],
        4,
    ),
    "DC": (deep_compression, lambda m, x: m.encode(2 * x - 1).latent * 0.41407, 4),
    "TAESD": (tiny, lambda m, x: m.encode(2 * x - 1).latents, 4),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any, Callable[[Any, Tensor], Tensor], int]:
    build, raw, channels = KINDS[request.param]
    torch.manual_seed(0)
    module = build().eval()
    module.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved", module, raw, channels


def test_a_saved_model_is_itself_again(saved: tuple[Path, Any, Callable[[Any, Tensor], Tensor], int]) -> None:
    folder, module, raw, channels = saved
    found = load_autoencoder(folder)
    assert isinstance(found.codec, Codec)
    assert (found.spec.channels, found.spec.factor) == (channels, 2)
    moments = found.moments(IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(moments.mean, raw(module, IMAGES))
        assert (moments.std is not None) == found.spec.stochastic == isinstance(module, diffusers.AutoencoderKL)
        if moments.std is not None:
            expected = module.encode(2 * IMAGES - 1).latent_dist.std * torch.tensor(found.scale)[:, None, None]
            torch.testing.assert_close(moments.std, expected)
        # Decoding undoes exactly what encoding did to the latents.
        z = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(1))
        scale, shift = (torch.tensor(value)[:, None, None] for value in (found.scale, found.shift))
        expected = (module.decode(z).sample + 1) / 2
        torch.testing.assert_close(found.decode((z - shift) * scale), expected.clamp(0, 1), rtol=1e-4, atol=1e-5)


def test_batches_change_nothing(saved: tuple[Path, Any, Callable[[Any, Tensor], Tensor], int]) -> None:
    whole = load_autoencoder(saved[0])
    single = Autoencoder(whole.name, whole.codec, whole.shift, whole.scale, batch=1)
    latents = whole.encode(IMAGES)
    torch.testing.assert_close(single.encode(IMAGES), latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(single.decode(latents), whole.decode(latents), rtol=1e-4, atol=1e-5)


def test_pixels_there_and_back() -> None:
    found = load_autoencoder("pixels")
    torch.testing.assert_close(found.encode(IMAGES), 2 * IMAGES - 1)
    torch.testing.assert_close(found.decode(found.encode(IMAGES)), IMAGES)
    assert found.decode(torch.full((1, 3, 4, 4), 9.0)).max() == 1.0
    assert found.spec.model_validate_json(found.spec.model_dump_json()) == found.spec


def test_a_draw_is_of_the_posterior(tmp_path: Path) -> None:
    kl().save_pretrained(tmp_path)
    found = load_autoencoder(tmp_path)
    moments = found.moments(IMAGES[:1].expand(200, -1, -1, -1))
    assert moments.std is not None
    drawn = found.encode(IMAGES[:1].expand(200, -1, -1, -1), NoiseSource(0, range(200)))
    score = ((drawn - moments.mean) / moments.std).flatten(1)
    assert abs(score.mean()) < 0.03
    assert abs(score.std() - 1) < 0.03
    torch.testing.assert_close(drawn[7:8], found.encode(IMAGES[:1], NoiseSource(0, [7])), rtol=1e-4, atol=1e-5)


def test_fitting_normalises_and_decodes_the_same(tmp_path: Path) -> None:
    kl().save_pretrained(tmp_path)
    plain = load_autoencoder(tmp_path)
    z = plain.encode(IMAGES)
    fitted = plain.fitted(z.mean((0, 2, 3)).tolist(), z.std((0, 2, 3)).tolist())
    again = fitted.encode(IMAGES)
    torch.testing.assert_close(again.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(again.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(fitted.decode(again), plain.decode(z), atol=1e-4, rtol=1e-3)
    kept = load_recorded(fitted.spec)
    torch.testing.assert_close(kept.encode(IMAGES), again)
    with pytest.raises(InputError, match="does not vary"):
        plain.fitted([0.0] * 4, [1.0, 1.0, 1.0, 0.0])


def test_other_weights_are_refused(tmp_path: Path) -> None:
    kl().save_pretrained(tmp_path)
    spec = load_autoencoder(tmp_path).spec
    kl().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="other weights"):
        load_recorded(spec)


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to 'https://some.host'\nto load this file")

    monkeypatch.setattr(diffusers.AutoencoderKL, "load_config", refuse)
    messages = []
    for name in ("stabilityai/sd-vae-ft-mse", "owner/model/vae", "nothing", "./nothing", tmp_path):
        with pytest.raises(InputError) as caught:
            load_autoencoder(name)
        messages.append(str(caught.value))
    assert "nor can it be downloaded" in messages[0]
    assert all("\n" not in message and "host" not in message for message in messages)
    monkeypatch.undo()
    kl().save_pretrained(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state.pop("encoder.conv_in.weight")
    save_file(state, weights, {"format": "pt"})
    with pytest.raises(InputError, match=r"not those of its config.json: encoder.conv_in.weight"):
        load_autoencoder(tmp_path)
    weights.write_bytes(b"damaged")
    with pytest.raises(InputError, match="holds no autoencoder of diffusers"):
        load_autoencoder(tmp_path)


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    kl().save_pretrained(tmp_path)
    found = load_autoencoder(tmp_path)
    with pytest.raises(InputError, match=r"15 x 16 pixels; .* needs multiples of 2"):
        found.encode(IMAGES[..., :15])
    with pytest.raises(InputError, match="expected one of each per channel"):
        Autoencoder("x", PixelCodec(), (0.0,) * 3, (1.0, 0.0, 1.0))


def test_the_branch_of_taef2_is_before_the_block() -> None:
    block = WidenedBlock(torch.nn.Conv2d(64, 64, 1))
    x = torch.randn(1, 64, 4, 4)
    wide = torch.relu(torch.nn.functional.group_norm(block.pool[0](x), 4, block.pool[1].weight, block.pool[1].bias))
    torch.testing.assert_close(block(x), block.block(x + block.pool[3](wide)))
    assert sum(isinstance(part, WidenedBlock) for part in taef2_network().modules()) == 6


def test_taef2_on_real_pictures(reed_data: Path) -> None:
    """Reconstructions are close; without the branches they are not; latents survive their normalisation."""
    found = load_autoencoder(reed_data / "encoders")
    source = open_source(reed_data / "image" / "clothing10_valid.parquet")
    files = [picture.read() for picture in list(source.pictures())[::57]]
    pixels = [torch.from_numpy(square(read_rgb(data), 128, "adm").copy()) for data in files]
    images = torch.stack(pixels).permute(0, 3, 1, 2).float() / 255

    def psnr() -> Tensor:
        error = (found.decode(found.encode(images)) - images).square().mean((1, 2, 3))
        return -10 * error.log10()

    whole = psnr()
    assert 26 < whole.mean() < 31
    assert found.spec.channels == 32
    assert isinstance(found.codec, torch.nn.Module)
    for part in found.codec.modules():
        if isinstance(part, WidenedBlock):
            torch.nn.init.zeros_(part.pool[3].weight)
    assert psnr().mean() < whole.mean() - 2


def test_damaged_taef2_is_one_line(tmp_path: Path) -> None:
    for half in ("encoder", "decoder"):
        (tmp_path / f"taef2_{half}.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="expected weights of TAEF2"):
        load_autoencoder(tmp_path)
    save_file({"0.weight": torch.zeros(2)}, tmp_path / "taef2_encoder.safetensors")
    save_file({"1.weight": torch.zeros(2)}, tmp_path / "taef2_decoder.safetensors")
    with pytest.raises(InputError, match="does not hold the weights of TAEF2"):
        load_autoencoder(tmp_path)
