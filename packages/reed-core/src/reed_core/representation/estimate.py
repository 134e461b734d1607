"""What writing a cache will cost, measured before anything is written (`reed_core.train.estimate`)."""

from collections.abc import Sequence

import torch

from reed_core.representation.build import SAMPLE_ITEMS, CacheBuilder
from reed_core.train.estimate import STEPS, Estimate, Stored, device_name, now, peak, room, size


def estimate_encoding(
    builder: CacheBuilder,
    lengths: Sequence[float],
    bytes: int,
    *,
    name: str,
    unit: str = "items",
    measure: str = "",
    part: tuple[int, int] = (0, 1),
    device: torch.device | str = "cpu",
    notes: Sequence[str] = (),
    steps: int = STEPS,
) -> Estimate:
    """What writing a cache will cost; encodes a few batches and keeps nothing.

    Args:
        builder: Of the cache.
        lengths: What the work on each item is proportional to.
        bytes: Size of the whole cache.
        name: Of the cache, in the table.
        unit: What items are.
        measure: What `lengths` count, in the plural; empty if nothing.
        part: (i, n): this worker writes the i-th of n parts, i from 0.
        device: Where the encoder runs.
        notes: Lines for a person.
        steps: Batches to time.
    """
    device = torch.device(device)
    lost = [index for index in builder.missing if index % part[1] == part[0]]
    left = [item for index in lost for item in builder.items_of(index)]
    mean = sum(lengths) / len(lengths)
    batches = [left[start : start + builder.batch_items] for start in range(0, len(left), builder.batch_items)]
    chosen = [batches[place * len(batches) // steps] for place in range(min(steps, len(batches)))]
    before, seconds, done = peak(device, reset=True), 0.0, 0.0
    if batches:
        builder.encode(max(batches, key=lambda items: max(lengths[item] for item in items)))
    for items in chosen:
        started = now(device)
        builder.encode(items)
        seconds += now(device) - started
        done += sum(lengths[item] for item in items)
    most = peak(device)
    if most is not None and before is not None and device.type != "cpu":
        most -= before
    sample = min(len(builder.data), SAMPLE_ITEMS[builder.content.level]) if builder.rank and not builder.settled else 0
    total = sum(lengths[item] for item in left) + mean * sample
    amounts = [sum(lengths[item] for item in items) for items in batches] or [0.0]
    share = bytes * len(left) // max(1, len(builder.data))
    return Estimate(
        unit=unit,
        samples=len(left),
        steps=len(batches),
        measure=measure,
        mean_measure=sum(amounts) / len(amounts),
        most_measure=max(amounts),
        seconds=seconds / done * total / len(left) if left else 0.0,
        timed=len(chosen),
        device=device_name(device),
        memory=most,
        disk=(Stored(name, share, f"of {size(bytes)} in all" if share != bytes else ""),),
        notes=(*notes, *room(builder.folder, share)),
    )
