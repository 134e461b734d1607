"""What an evaluation found: named numbers with the counts they hang on, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One number.

    Attributes:
        name: What it is.
        value: The number.
        deviation: Between subsets or parts, where there are any.
        drawn: Pictures that were judged.
        real: Pictures they were compared with; None where it was not recorded, 0 where there is no comparison.
    """

    name: str
    value: float
    deviation: float | None
    drawn: int
    real: int | None


@dataclass
class Report:
    """What an evaluation found.

    Attributes:
        samples: What was judged.
        reference: What it was compared with.
        side: Side of the pictures, in pixels.
        encoders: Of each extractor: name, fingerprint, preprocessing and width.
        figures: The figures.
        floor: The same between two parts of the reference, where it was asked for.
        warnings: What to bear in mind.
    """

    samples: str
    reference: str
    side: int
    encoders: list[dict[str, Any]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    floor: list[Figure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        plain = {key: getattr(self, key) for key in ("samples", "reference", "side", "encoders", "warnings")}
        return {**plain, **{key: [one._asdict() for one in getattr(self, key)] for key in ("figures", "floor")}}

    def __str__(self) -> str:
        floors = {one.name: one for one in self.floor}
        rows = [["", "value", "sd", "drawn", "real", *(["floor"] if floors else [])]]
        for one in self.figures:
            real = "?" if one.real is None else str(one.real or "")
            row = [one.name, f"{one.value:.6g}", "" if one.deviation is None else f"{one.deviation:.2g}"]
            rows.append(
                [*row, str(one.drawn), real, *([f"{floors[one.name].value:.6g}"] if one.name in floors else [])]
            )
        said = [f"{self.samples} against {self.reference}, {self.side} pixels", *aligned(rows)]
        said += [f"{one['name']}: {one['width']} features, {one['preprocessing']}" for one in self.encoders]
        if self.floor:
            parts = max(self.floor, key=lambda one: one.real or 0)
            said.append(
                f"floor: {parts.drawn} against {parts.real} other pictures of the reference, at random; a figure above "
                "it says something only where both have the same numbers of pictures"
            )
        return "\n".join([*said, *(f"note: {warning}" for warning in self.warnings)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    columns = max(map(len, rows))
    cells = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = [max(len(row[place]) for row in cells) for place in range(columns)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
