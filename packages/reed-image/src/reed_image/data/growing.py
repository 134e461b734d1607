"""A `.npy` file that grows by rows, and whose length is right whenever it is asked to be.

The header of a `.npy` has room for a longer first axis (numpy leaves it for this), so the file is appended to, and the
header overwritten in place at the end. After a kill it is cut back to the rows that were surely there.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from reed_core.errors import InputError


class GrowingArray:
    """An array on disk, open for appending.

    Args:
        path: The file.
        row: Shape of a row.
        dtype: Type of the values.
        rows: Rows to keep of a file that is there; 0 starts anew.

    Raises:
        InputError: If the file has fewer rows.
    """

    def __init__(self, path: Path, row: Sequence[int], dtype: np.dtype | type | str, rows: int = 0) -> None:
        self.path, self.row, self.dtype = Path(path), tuple(row), np.dtype(dtype)
        self.rows = rows
        self._row_bytes = int(np.prod(self.row, dtype=np.int64)) * self.dtype.itemsize
        self._start = len(self._header(rows))
        self._file = self.path.open("r+b" if rows else "w+b")
        if rows and os.fstat(self._file.fileno()).st_size < self._start + rows * self._row_bytes:
            self._file.close()
            raise InputError(f"{path} holds fewer than {rows} rows; remove the folder and prepare again")
        self._file.write(self._header(rows))
        self._file.truncate(self._start + rows * self._row_bytes)
        self._file.seek(0, os.SEEK_END)

    def append(self, values: np.ndarray) -> None:
        """Adds rows.

        Raises:
            ValueError: If they have another shape.
        """
        if values.shape[1:] != self.row:
            raise ValueError(f"rows of shape {values.shape[1:]}, the array's are {self.row}")
        self._file.write(np.ascontiguousarray(values, dtype=self.dtype).data)
        self.rows += len(values)

    def sync(self) -> None:
        """Waits until the disk has all rows."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Writes the length and closes the file."""
        self._file.seek(0)
        self._file.write(self._header(self.rows))
        self.sync()
        self._file.close()

    def _header(self, rows: int) -> bytes:
        made = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            made,
            {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (rows, *self.row)},
        )
        return made.getvalue()
