"""Training: one typed configuration, one loop, exact resume."""

from reed_core.train.config import TrainConfig
from reed_core.train.data import Batch, DataSource
from reed_core.train.loop import Trainer

__all__ = ["Batch", "DataSource", "TrainConfig", "Trainer"]
