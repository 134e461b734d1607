"""The latents of a recipe: which encoder makes each, the caches that hold them, and the control that shuffles them."""

from reed_image.latents.spec import LatentSpec, build_latents
from reed_image.latents.store import Plan, featurize, open_latents, open_plan, plan_of

__all__ = ["LatentSpec", "Plan", "build_latents", "featurize", "open_latents", "open_plan", "plan_of"]
