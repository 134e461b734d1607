"""Mean and covariance of a reference as a file, so that its pictures need not be read again.

Ours is safetensors: `mean` [d] and `covariance` [d, d], float64, and as metadata everything a comparison hangs on:

    encoder, fingerprint     the network, the hash of its weights, and how pictures came to its size
    side                     pixels of the pictures before that
    count, description       how many there were, and of what

A file is used with the very same encoder only: statistics of two networks, or of one after two resizings, have no
distance. ADM's reference files (`mu`, `sigma`, and `mu_s`, `sigma_s` of spatial features) are read too: they are
InceptionV3's, their count and size are not recorded, and the spatial ones have no counterpart here (no sFID).
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from reed_core.errors import InputError
from reed_core.files import write_with
from reed_core.representation.identity import differences
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reed_image.metrics.features import Extractor
from reed_image.metrics.gaussian import Gaussian
from reed_image.metrics.inception import INCEPTION

FORMAT, RECORD = 1, "reed_image_statistics"


class Record(BaseModel):
    """What statistics are of.

    Attributes:
        format: Version of the file.
        encoder: Name of the encoder.
        fingerprint: Its fingerprint; None where it was not recorded (ADM).
        preprocessing: How pictures came to its size, in words.
        side: Side of the pictures in pixels; None where it was not recorded.
        count: Pictures; None likewise.
        description: The pictures, for a person.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    encoder: str
    fingerprint: str | None
    preprocessing: str
    side: int | None
    count: int | None
    description: str


@dataclass(frozen=True)
class Statistics:
    """A Gaussian and what it is of.

    Attributes:
        gaussian: Mean and covariance.
        record: What they are of.
        spatial: Those of ADM's spatial features, where the file has them.
    """

    gaussian: Gaussian
    record: Record
    spatial: Gaussian | None = None

    def check(self, extractor: Extractor, side: int | None = None) -> None:
        """That features of an extractor can be compared with these.

        Args:
            extractor: The extractor.
            side: Side of the pictures it is shown, once it is known.

        Raises:
            InputError: If they are of another encoder, or of pictures of another size.
        """
        record = self.record
        if record.encoder != extractor.name:
            raise InputError(
                f"the statistics are of {record.encoder}, the features of {extractor.name}; give statistics of the same"
            )
        if record.fingerprint is not None and record.fingerprint != extractor.fingerprint:
            said = differences("encoder", record.fingerprint, extractor.fingerprint)
            raise InputError(f"the statistics are of another {record.encoder}: {'; '.join(said)}; compute them again")
        if None not in (record.side, side) and record.side != side:
            raise InputError(
                f"the statistics are of pictures of {record.side} pixels, the samples have {side}; compute them again "
                f"with --size {side}"
            )


def write_statistics(path: Path, statistics: Statistics) -> None:
    """Writes our file, whole or not at all.

    Raises:
        InputError: If it cannot be written, or its name ends otherwise than in .safetensors.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"cannot write {path}: statistics are written as .safetensors; choose such a name")
    gaussian = statistics.gaussian
    values = {"mean": gaussian.mean.cpu().contiguous(), "covariance": gaussian.covariance.cpu().contiguous()}
    metadata = {RECORD: statistics.record.model_dump_json()}
    write_with(path, lambda aside: save_file(values, aside, metadata=metadata))


def read_statistics(path: Path) -> Statistics:
    """Reads statistics: ours, or an `.npz` of ADM.

    Raises:
        InputError: If it cannot be read or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {path}; write one with --save-statistics, or give ADM's .npz")
    return _read_adm(path) if path.suffix == ".npz" else _read_ours(path)


def _read_ours(path: Path) -> Statistics:
    try:
        with safe_open(path, "pt") as file:
            record = Record.model_validate_json((file.metadata() or {}).get(RECORD, "none"))
            found = _gaussian(file.get_tensor("mean"), file.get_tensor("covariance"), record.count, path)
    except (OSError, SafetensorError, ValidationError) as error:
        raise InputError(
            f"{path} holds no statistics of this version ({type(error).__name__}); write them with --save-statistics"
        ) from error
    return Statistics(found, record)


def _read_adm(path: Path) -> Statistics:
    try:
        with np.load(path, allow_pickle=False) as file:
            if "mu" not in file or "sigma" not in file:
                held = ", ".join(file.files[:6]) or "nothing"
                raise InputError(
                    f"{path} holds {held}; expected mu and sigma (pictures, arr_0, are given as SAMPLES or --reference)"
                )
            pairs = []
            for names in (("mu", "sigma"), ("mu_s", "sigma_s")):
                if names[0] in file and names[1] in file:
                    mean, covariance = (torch.from_numpy(np.asarray(file[name], np.float64)) for name in names)
                    pairs.append(_gaussian(mean, covariance, None, path))
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as .npz ({type(error).__name__}); copy it again") from error
    record = Record(
        encoder=INCEPTION,
        fingerprint=None,
        preprocessing="not recorded",
        side=None,
        count=None,
        description=path.name,
    )
    return Statistics(pairs[0], record, pairs[1] if len(pairs) > 1 else None)


def _gaussian(mean: Tensor, covariance: Tensor, count: int | None, path: Path) -> Gaussian:
    """The two as a Gaussian, in float64, if they are one."""
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        raise InputError(
            f"{path} holds a mean {list(mean.shape)} and a covariance {list(covariance.shape)}; expected [d] and [d, d]"
        )
    found = Gaussian(mean.double(), covariance.double(), count)
    if not bool(torch.isfinite(found.mean).all() and torch.isfinite(found.covariance).all()):
        raise InputError(f"{path} holds values that are not finite; compute them again")
    scale = found.covariance.abs().max()
    if bool((found.covariance - found.covariance.T).abs().max() > 1e-6 * scale):
        raise InputError(f"{path} holds a covariance that is not symmetric; compute it again")
    return found
