"""Samplers: run a process backwards, from noise at t = 1 to data at t = 0."""

from reed_core.sample.guidance import ClassifierFree
from reed_core.sample.masked import unmask
from reed_core.sample.ode import integrate

__all__ = ["ClassifierFree", "integrate", "unmask"]
