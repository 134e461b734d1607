"""Parquet files in the Hugging Face image convention, streamed by row group: one file or a folder of them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from reed_core.errors import InputError

from reed_image.data.columns import declared_features, find_columns
from reed_image.data.folder import read_file
from reed_image.data.image_file import UnusableError
from reed_image.data.source import UNLABELLED, Picture, digest

ROWS_AT_ONCE = 64


class ParquetImages:
    """Images in parquet files, in the order of files (by name) and rows.

    Args:
        path: A file, or a folder with files.
        image_column: Name of the column of images; left out, it is found.
        label_column: Name of the column of classes; left out, it is found, and there may be none.

    Raises:
        InputError: If a file cannot be read, or the columns cannot be told.
    """

    def __init__(self, path: Path, image_column: str | None = None, label_column: str | None = None) -> None:
        self.path = Path(path)
        self.files = sorted(self.path.glob("*.parquet")) if self.path.is_dir() else [self.path]
        if not self.files:
            raise InputError(f"no .parquet file in {path}; give a folder that has some")
        schema = _opened(self.files[0]).schema_arrow
        self.columns = find_columns(
            schema.names, declared_features(schema.metadata), str(self.files[0]), image_column, label_column
        )
        self.rows = []
        for file in self.files:
            held = _opened(file)
            missing = {self.columns.image, self.columns.label} - {None, *held.schema_arrow.names}
            if missing:
                raise InputError(f"{file} lacks the column '{missing.pop()}' of {self.files[0].name}; remove the file")
            self.rows.append(held.metadata.num_rows)
        self.classes = self.columns.classes or self._text_classes(schema)
        self._index = {name: number for number, name in enumerate(self.classes)}

    @property
    def description(self) -> str:
        """The name of the file or folder."""
        return f"parquet {self.path.name}"

    @property
    def fingerprint(self) -> str:
        """Names, sizes, rows and columns of the files."""
        sizes = ((file.name, file.stat().st_size) for file in self.files)
        return digest(("parquet 1", *sizes, tuple(self.rows), self.columns))

    def __len__(self) -> int:
        return sum(self.rows)

    def pictures(self, start: int = 0) -> Iterator[Picture]:
        """The pictures from number `start` on; row groups before it are not read."""
        first = 0
        wanted = [name for name in (self.columns.image, self.columns.label) if name is not None]
        for file in self.files:
            held = _opened(file)
            for group in range(held.num_row_groups):
                rows = held.metadata.row_group(group).num_rows
                if first + rows > start:
                    yield from self._group(held, file, group, first, start, wanted)
                first += rows

    def _group(self, held: Any, file: Path, group: int, first: int, start: int, wanted: list[str]) -> Iterator[Picture]:
        position = first
        for batch in held.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=wanted):
            skipped = min(max(start - position, 0), batch.num_rows)
            rows = batch.slice(skipped)
            position += skipped
            labels = rows.column(self.columns.label).to_pylist() if self.columns.label else [None] * rows.num_rows
            for entry, label in zip(rows.column(self.columns.image).to_pylist(), labels, strict=True):
                data, path = (entry.get("bytes"), entry.get("path")) if isinstance(entry, dict) else (entry, None)
                name = str(path) if path else f"{file.stem}/{position:08d}"
                yield Picture(name, self._label(label), partial(content, data, path, file.parent))
                position += 1

    def _label(self, value: Any) -> int:
        if value is None:
            return UNLABELLED
        return self._index[value] if isinstance(value, str) else int(value)

    def _text_classes(self, schema: pa.Schema) -> tuple[str, ...]:
        label = self.columns.label
        if label is None or not (
            pa.types.is_string(schema.field(label).type) or pa.types.is_large_string(schema.field(label).type)
        ):
            return ()
        found: set[str] = set()
        for file in self.files:
            found.update(pc.unique(_opened(file).read([label]).column(label)).drop_null().to_pylist())
        return tuple(sorted(found))


def content(data: bytes | None, path: str | None, beside: Path) -> bytes:
    """The image file of an entry: its bytes, or the file it names.

    Raises:
        UnusableError: If there is neither.
    """
    if data is not None:
        return data
    if path is None:
        raise UnusableError("missing")
    return read_file(beside / path)


def _opened(file: Path) -> Any:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{file} cannot be read as parquet ({reason}); copy it again") from error
