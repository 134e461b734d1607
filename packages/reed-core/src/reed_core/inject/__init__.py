"""Explicit injection: how a denoiser of any architecture is told latents, without changing it."""

from reed_core.inject.adapter import AdaLN, Adapter, CrossAttention, Token
from reed_core.inject.injected import Injected

__all__ = ["AdaLN", "Adapter", "CrossAttention", "Injected", "Token"]
