"""A model as a folder that diffusers loads: a transformer, a flow-matching scheduler and, if given, the autoencoder.

    from reed_image.export import SiTPipeline
    images = SiTPipeline.from_pretrained("folder")(class_labels=[207, 360], guidance_scale=4.0).images

or, without naming the class, `DiffusionPipeline.from_pretrained("folder", custom_pipeline="folder",
trust_remote_code=True)`: the code in the folder is one line that imports it from here.

diffusers' sigma is our t: x = (1 - sigma) x_0 + sigma eps, and v = eps - x_0 has the same sign. Its time steps are
1000 sigma. Its own grid of times ends at 0.001, so `SiTPipeline` gives the scheduler sigmas: 1 - i / N unless told
otherwise, the uniform grid of SiT and REPA, shifted where the model's times are. Guidance is that of
`reed_core.sample`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from jaxtyping import Bool, Float, Int
from reed_core.errors import InputError
from reed_core.files import directory_written_aside
from reed_core.sample import ClassifierFree
from torch import Tensor

from reed_image.autoencoder import Autoencoder, AutoencoderSpec
from reed_image.autoencoder.load import PIXELS
from reed_image.model import ImageModel, ModelConfig
from reed_image.network import Condition

TIME_STEPS = 1000
POINTER = "from reed_image.export import SiTPipeline  # the class of this folder; it is part of reed-image\n"


class SiTModel(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both name their file
    """An `ImageModel` with the signature and files of a diffusers transformer.

    Args:
        description: A `ModelConfig`, as JSON.
    """

    _no_split_modules = ["Block"]  # type: ignore[assignment]  # noqa: RUF012 (diffusers asks for a list)

    @register_to_config
    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__()
        self.model = ImageModel(ModelConfig.model_validate(description))

    def forward(
        self,
        hidden_states: Float[Tensor, "b c h w"],
        timestep: Float[Tensor, "b"],
        class_labels: Int[Tensor, "b"] | None = None,
        encoder_hidden_states: Float[Tensor, "b m k"] | None = None,
        encoder_attention_mask: Bool[Tensor, "b m"] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """The velocity.

        Args:
            hidden_states: x_t.
            timestep: 1000 t.
            class_labels: Class numbers; -1, or None, is no class.
            encoder_hidden_states: Text tokens.
            encoder_attention_mask: True for tokens that exist.
            return_dict: Whether to return an object with a `sample`, or a tuple.
        """
        c = Condition(class_labels, encoder_hidden_states, encoder_attention_mask)
        said = self.model(hidden_states, timestep / TIME_STEPS, c)
        return Transformer2DModelOutput(sample=said) if return_dict else (said,)


class SiTPipeline(DiffusionPipeline):
    """Draws images.

    Args:
        transformer: The model.
        scheduler: Takes Euler's steps.
        vae: The autoencoder; None for pixels, or for latents as output.
    """

    model_cpu_offload_seq = "transformer->vae"  # type: ignore[assignment]
    _optional_components = ["vae"]  # noqa: RUF012 (diffusers asks for a list)
    transformer: SiTModel
    scheduler: Any
    vae: Any

    def __init__(
        self, transformer: SiTModel, scheduler: FlowMatchEulerDiscreteScheduler, vae: ModelMixin | None = None
    ) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler, vae=vae)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int | str] | None = None,
        prompt_embeds: Float[Tensor, "b m k"] | None = None,
        prompt_mask: Bool[Tensor, "b m"] | None = None,
        num_images: int | None = None,
        num_inference_steps: int = 50,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        generator: torch.Generator | None = None,
        latents: Float[Tensor, "b c h w"] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draws.

        Args:
            class_labels: A class number, or name, per image.
            prompt_embeds: Text tokens, as the text encoder of the training gave them.
            prompt_mask: True for tokens that exist.
            num_images: How many images; None for as many as there are labels, texts or latents, or one.
            num_inference_steps: Euler's steps.
            sigmas: Decreasing times to start steps from, before the model's time shift if it has one; None for
                1 - i / num_inference_steps.
            guidance_scale: 1 is no guidance.
            guidance_interval: Times between which guidance acts, inclusive.
            generator: Source of the noise.
            latents: The noise itself.
            output_type: "pil", "np", "pt", or "latent" for the network's data.
            return_dict: Whether to return an object with `images`, or a tuple.

        Raises:
            InputError: If numbers of images disagree, a class is unknown, or the autoencoder is missing.
        """
        model: ImageModel = self.transformer.model
        spec = _needed(model)
        if output_type != "latent" and self.vae is None and spec is not None:
            raise InputError(
                f"no autoencoder to make images of latents; give SiTPipeline.from_pretrained the vae {spec.name}, "
                'as diffusers loads it, or ask for output_type="latent"'
            )
        device, dtype = self._execution_device, self.transformer.dtype
        count = _count(num_images, class_labels, prompt_embeds, latents)
        if latents is None:
            source = torch.device("cpu") if generator is None else generator.device
            latents = torch.randn((count, *model.shape), generator=generator, device=source)
        x = latents.to(device, torch.float32)
        label = None if class_labels is None else self._numbers(class_labels).to(device)
        text = None if prompt_embeds is None else prompt_embeds.to(device, dtype)
        c = Condition(label, text, None if prompt_mask is None else prompt_mask.to(device))
        guided = ClassifierFree(self._denoise, Condition(), guidance_scale, guidance_interval)
        starts = sigmas or [1.0 - step / num_inference_steps for step in range(num_inference_steps)]
        self.scheduler.set_timesteps(sigmas=list(starts), device=device)
        for timestep in self.progress_bar(self.scheduler.timesteps):
            t = (timestep / TIME_STEPS).expand(count)
            x = self.scheduler.step(guided(x, t, c), timestep, x, return_dict=False)[0]
        images = self._images(x, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _denoise(self, x: Tensor, t: Tensor, c: Condition) -> Tensor:
        return self.transformer(x, TIME_STEPS * t, c.label, c.text, c.text_mask).sample

    def _numbers(self, labels: Sequence[int | str]) -> Int[Tensor, "b"]:
        config = self.transformer.model.config
        numbers = []
        for label in labels:
            if isinstance(label, str) and label not in config.class_names:
                raise InputError(f"unknown class '{label}'; expected a number or one of {config.class_names}")
            number = config.class_names.index(label) if isinstance(label, str) else int(label)
            if not -1 <= number < config.network.classes:
                raise InputError(f"no class {number}; expected 0 to {config.network.classes - 1}, or -1 for none")
            numbers.append(number)
        return torch.tensor(numbers)

    def _images(self, x: Tensor, output_type: str) -> Any:
        if output_type == "latent":
            return x
        spec = self.transformer.model.config.autoencoder
        if spec is not None:
            scale, shift = (torch.tensor(values, device=x.device)[:, None, None] for values in (spec.scale, spec.shift))
            x = x / scale + shift
        if _needed(self.transformer.model) is not None:
            x = self.vae.decode(x.to(self.vae.dtype)).sample
        return VaeImageProcessor().postprocess(x.float(), output_type)


def export(model: ImageModel, folder: Path, autoencoder: Autoencoder | None = None) -> None:
    """Writes a folder that `SiTPipeline.from_pretrained` loads, with safetensors weights.

    Args:
        model: The model; its network must predict v on the linear path, as the scheduler asks.
        folder: Where to; absent, or empty.
        autoencoder: The autoencoder to put beside it. None leaves its name in the configuration.

    Raises:
        InputError: If the folder is not empty or cannot be written, or diffusers does not know such a model.
    """
    if (model.config.path, model.config.prediction) != ("linear", "v"):
        raise InputError(
            f"the model predicts {model.config.prediction} on the {model.config.path} path; "
            "diffusers' flow-matching scheduler takes v on the linear path alone"
        )
    if model.config.told or model.config.joint is not None:
        raise InputError(
            "the model draws a latent before or beside the picture, for which diffusers has no pipeline; export one "
            "whose latents are implicit"
        )
    transformer = SiTModel(model.config.model_dump(mode="json"))
    transformer.model.load_state_dict(model.state_dict())
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIME_STEPS, shift=model.config.time_shift)
    pipeline = SiTPipeline(transformer.eval(), scheduler, _vae(autoencoder, model))
    with directory_written_aside(folder) as aside:
        pipeline.save_pretrained(aside, safe_serialization=True)
        (aside / "pipeline.py").write_text(POINTER, encoding="utf-8")
        mode = (aside / "model_index.json").stat().st_mode
        for weights in aside.rglob("*.safetensors"):  # which are written for their owner alone
            weights.chmod(mode)


def _needed(model: ImageModel) -> AutoencoderSpec | None:
    """The autoencoder without which there are no images; None where data are pixels, of whatever scale."""
    spec = model.config.autoencoder
    return None if spec is None or spec.name == PIXELS else spec


def _vae(autoencoder: Autoencoder | None, model: ImageModel) -> ModelMixin | None:
    """The network of an autoencoder as diffusers knows it, if its configuration is enough to build it again."""
    if autoencoder is None:
        return None
    spec = _needed(model)
    if spec is None or spec.channels != autoencoder.codec.channels:
        raise InputError(
            f"the autoencoder {autoencoder.name} does not make what the model draws; expected "
            f"{'none, as it draws pixels' if spec is None else spec.name}"
        )
    found = getattr(autoencoder.codec, "module", None)
    if isinstance(found, ModelMixin):
        kind: Any = type(found)
        with torch.device("meta"):
            again = kind.from_config(found.config)
        shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (found, again)]
        if shapes[0] == shapes[1]:
            return found
    raise InputError(f"diffusers cannot load the autoencoder {autoencoder.name}; export the model without it")


def _count(asked: int | None, *given: Any) -> int:
    """The number of images on which everything agrees."""
    found = {len(value) for value in given if value is not None} | (set() if asked is None else {asked})
    if len(found) > 1:
        raise InputError(f"labels, texts, latents and the number of images disagree: {sorted(found)}; give one each")
    return found.pop() if found else 1
