"""How torch.distributed.checkpoint plans a state's tensors here: as its default planners do, in less time.

DCP looks at every entry of the outermost dict for objects with a `state_dict`, and asks every tensor whether it knows
its own pieces: together as much as writing a small tensor. So the tensors come in a dict of their own, the only entry
of the state, and a plain tensor is known to be one piece. A DTensor is planned by DCP.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.default_planner import (
    DefaultLoadPlanner,
    DefaultSavePlanner,
    create_default_local_save_plan,
)
from torch.distributed.checkpoint.metadata import (
    STATE_DICT_TYPE,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType


class TensorSavePlanner(DefaultSavePlanner):
    """Plans the writing of the tensors in the only entry of a state."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def set_up_planner(
        self, state_dict: STATE_DICT_TYPE, storage_meta: StorageMeta | None = None, is_coordinator: bool = False
    ) -> None:
        """Takes the tensors of a process."""
        (tensors,) = state_dict.values()
        super().set_up_planner(tensors, storage_meta, is_coordinator)

    def create_local_plan(self) -> SavePlan:
        """What this process could write: its piece of each DTensor, and every plain tensor."""
        plain = {name: value for name, value in self.state_dict.items() if _is_plain(value)}
        rest = {name: value for name, value in self.state_dict.items() if name not in plain}
        items = [_whole(name, value) for name, value in plain.items()]
        self.plan = SavePlan(items + create_default_local_save_plan(rest, self.is_coordinator).items)
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Any:
        """The tensor, or this process' part of it."""
        held = self.state_dict[index.fqn]
        return held if _is_plain(held) else super().lookup_object(index)


def _is_plain(value: Any) -> bool:
    return type(value) in (Tensor, nn.Parameter)


def _whole(name: str, tensor: Tensor) -> WriteItem:
    size = tensor.size()
    start = torch.Size((0,) * len(size))
    data = TensorWriteData(ChunkStorageMetadata(start, size), TensorProperties(tensor.dtype), size)
    return WriteItem(MetadataIndex(name, start), WriteItemType.TENSOR, tensor_data=data)


class TensorLoadPlanner(DefaultLoadPlanner):
    """Plans the reading of the tensors in the only entry of a state, into themselves."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def set_up_planner(
        self, state_dict: STATE_DICT_TYPE, metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Takes the tensors of a process."""
        (tensors,) = state_dict.values()
        super().set_up_planner(tensors, metadata, is_coordinator)
