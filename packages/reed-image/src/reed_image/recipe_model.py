"""From a recipe to what its model is: sizes from the pictures, widths from the caches of what it is told."""

from reed_core.errors import InputError

from reed_image.autoencoder import AutoencoderSpec
from reed_image.autoencoder.load import PIXELS
from reed_image.beside import Caches, needs_caches, open_caches
from reed_image.data import Prepared
from reed_image.latents.store import Opened
from reed_image.model import JointSpec, ModelConfig
from reed_image.network import SiTConfig
from reed_image.recipe import Recipe
from reed_image.shift import shift_of
from reed_image.told import ToldSpec


def config_of(recipe: Recipe, prepared: Prepared, caches: Caches | None = None) -> ModelConfig:
    """What the model of a recipe is.

    Args:
        recipe: The recipe.
        prepared: The pictures.
        caches: Its caches, which tell the widths of what they hold; opened here if they are needed and not given.

    Raises:
        InputError: If network and pictures do not fit together, or a cache is missing.
    """
    if caches is None and needs_caches(recipe):
        caches = open_caches(recipe, prepared)
    text = None if caches is None else caches.text
    network = recipe.network.of(prepared, 0 if text is None else text.dim)
    told: tuple[ToldSpec, ...] = ()
    joint = None
    if caches is not None and recipe.told:
        told = told_of(recipe, caches.latents, network)
    if caches is not None and recipe.joint is not None:
        spec, (level, dim) = recipe.joint, caches.latents.forms[recipe.joint.name]
        joint = JointSpec(name=spec.name, dim=dim, window=spec.window, weight=spec.weight)
        if spec.components > dim:
            raise InputError(f"latent '{spec.name}' has the width {dim}; set its components to that or fewer")
        network = network.model_copy(update={"joint": spec.components, "joint_pooled": level == "global"})
    names = prepared.manifest.classes
    shift = recipe.time_shift
    return ModelConfig(
        network=network,
        path=recipe.path,
        prediction=recipe.prediction,
        autoencoder=_autoencoder(recipe, prepared),
        class_names=names if len(names) == network.classes else (),
        time_shift=shift_of((network.channels, network.size, network.size)) if shift == "auto" else shift,
        text=None if text is None else text.spec,
        told=told,
        joint=joint,
    )


def told_of(recipe: Recipe, opened: Opened, network: SiTConfig) -> tuple[ToldSpec, ...]:
    """The latents that the model of a recipe is told.

    Raises:
        InputError: If one is not of level global.
    """
    found = []
    for spec in recipe.told:
        level, dim = opened.forms[spec.name]
        if level != "global":
            raise InputError(
                f"latent '{spec.name}' is explicit and of level {level}: its generator draws one vector of a picture; "
                "set level to global, or injection to implicit or joint"
            )
        found.append(
            ToldSpec(
                name=spec.name,
                dim=dim,
                into=spec.into,
                tap=spec.tap,
                hidden=spec.hidden or network.width,
                layers=spec.layers,
                weight=spec.weight,
            )
        )
    return tuple(found)


def _autoencoder(recipe: Recipe, prepared: Prepared) -> AutoencoderSpec | None:
    """What decodes: that of the data, by the name the recipe prefers; None where data are plain pixels."""
    spec = prepared.manifest.autoencoder
    if spec.name == PIXELS and set(spec.shift) == {0.0} and set(spec.scale) == {1.0}:
        return None
    return spec if recipe.autoencoder is None else spec.model_copy(update={"name": recipe.autoencoder, "weights": ""})
