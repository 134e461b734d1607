"""Latents of a recipe: what the network is taught to know, where it is read, and where the values come from."""

from reed_molecule.latents.control import Shuffled, partners, transplant
from reed_molecule.latents.source import BatchLatents, Live, Source, Stored, open_sources
from reed_molecule.latents.spec import LatentSpec, build_latents
from reed_molecule.latents.store import Plan, featurize, open_plan, plan_of

__all__ = [
    "BatchLatents",
    "LatentSpec",
    "Live",
    "Plan",
    "Shuffled",
    "Source",
    "Stored",
    "build_latents",
    "featurize",
    "open_plan",
    "open_sources",
    "partners",
    "plan_of",
    "transplant",
]
