"""Whether two runs ended the same, bit for bit: weights, averages, optimiser, counters and log."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reed_core.train.log import read_log
from reed_core.train.manifest import Manifest, read_manifest

MEASURED = frozenset(("samples_per_second", "data_wait_share", "mfu", "mfu_of_measured_peak"))
"""Figures of the log that are about the machine."""


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in two run folders; empty if all is."""
    folders = [max((run / "checkpoints").glob("[0-9]*")) for run in (one, other)]
    left, right = (read_manifest(folder) for folder in folders)
    found = []
    if left.samples != right.samples:
        found.append(f"samples: {left.samples} and {right.samples}")
    if json.dumps(left.outline) != json.dumps(right.outline):
        found.append("counters and settings")
    found += [f"{name}: only in one" for name in sorted(left.tensors.keys() ^ right.tensors.keys())]
    for name in sorted(left.tensors.keys() & right.tensors.keys()):
        if pieces(folders[0], left, name) != pieces(folders[1], right, name):
            found.append(name)
    logs = [[_figures(line) for line in read_log(run / "log.jsonl")] for run in (one, other)]
    if logs[0] != logs[1]:
        found.append(f"log ({len(logs[0])} and {len(logs[1])} lines)")
    return found


def pieces(folder: Path, manifest: Manifest, name: str) -> tuple[Any, ...]:
    """The type, shape and bytes of a tensor of a checkpoint, piece by piece."""
    layout = manifest.tensors[name]
    held = {}
    for piece in layout.pieces:
        with (folder / piece.file).open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
            entries: Mapping[str, Any] = json.loads(stream.read(header))
            ends = {8 + header + entry["data_offsets"][0]: entry for key, entry in entries.items() if key[:2] != "__"}
            start, end = ends[piece.start]["data_offsets"]
            stream.seek(piece.start)
            held[piece.offset] = stream.read(end - start)
    return layout.dtype, layout.shape, tuple(sorted(held.items()))


def _figures(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in MEASURED}
