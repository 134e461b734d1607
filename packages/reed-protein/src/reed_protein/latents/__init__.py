"""Latents of a recipe: what the network is taught to know, where it is read, and where the values come from."""

from reed_protein.latents.control import Shuffled, partners, transplant
from reed_protein.latents.source import Live, Source, Stored, make_latents, open_sources
from reed_protein.latents.spec import LatentSpec, build_latents
from reed_protein.latents.store import Plan, featurize, plan_of

__all__ = [
    "LatentSpec",
    "Live",
    "Plan",
    "Shuffled",
    "Source",
    "Stored",
    "build_latents",
    "featurize",
    "make_latents",
    "open_sources",
    "partners",
    "plan_of",
    "transplant",
]
