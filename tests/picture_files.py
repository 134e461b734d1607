"""Image files made for tests: of every mode that people have, sound and damaged."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 40, height: int = 32) -> Image.Image:
    """A smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write_folder(folder: Path, classes: Sequence[str] = ("ant", "bee"), each: int = 3) -> Path:
    """CLASS/n.png for every class."""
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            (folder / name / f"{number}.png").write_bytes(encoded(picture(10 * place + number)))
    return folder


def write_zip(path: Path, folder: Path, outer: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, outer + file.relative_to(folder).as_posix())
    return path


def write_parquet(path: Path, rows: Sequence[tuple[bytes | None, str | None, Any]], group: int = 2) -> Path:
    """Rows of bytes, path and label, in the Hugging Face convention; classes have names if labels are numbers."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    number = all(isinstance(label, int) for _, _, label in rows)
    image = pa.array(
        [{"bytes": data, "path": name} for data, name, _ in rows],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": image, "label": pa.array([label for _, _, label in rows])})
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if number:
        features["label"] = {"_type": "ClassLabel", "names": ["ant", "bee"]}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)
    return path
