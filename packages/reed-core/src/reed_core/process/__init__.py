"""Forward corruption processes: how x is destroyed between t = 0 (data) and t = 1 (noise), and one step back."""

from reed_core.process.base import Corrupted, Process
from reed_core.process.interpolant import Interpolant
from reed_core.process.masked import Masked

__all__ = ["Corrupted", "Interpolant", "Masked", "Process"]
