"""Forward corruption processes: how x is destroyed between t = 0 (data) and t = 1 (noise), and one step back."""

from reed_core.process.base import BoundedProcess, Corrupted, HybridNats, Process
from reed_core.process.clock import Clock, Power, Same, Window
from reed_core.process.discrete import UniformDiscrete
from reed_core.process.interpolant import Interpolant
from reed_core.process.masked import Masked
from reed_core.process.product import Product

__all__ = [
    "BoundedProcess",
    "Clock",
    "Corrupted",
    "HybridNats",
    "Interpolant",
    "Masked",
    "Power",
    "Process",
    "Product",
    "Same",
    "UniformDiscrete",
    "Window",
]
