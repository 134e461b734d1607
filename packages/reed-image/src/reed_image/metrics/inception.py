"""InceptionV3 with the weights of published figures, from torch-fidelity (the extra `fid`), imported here only.

The features are the 2048 of the last pooling, the logits those without bias: what FID, KID, IS and ADM's references
are made of. Its input is 8-bit; resizing (bilinear as in TensorFlow 1, to 299 pixels) and scaling are its own.
"""

import importlib
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from reed_core.errors import InputError
from reed_core.files import sha256
from reed_core.representation import fingerprint_module
from torch import Tensor, nn

from reed_image.metrics.features import Features

INCEPTION = "inception"
WEIGHTS, DIGEST = "weights-inception-2015-12-05-6726825d.pth", "6726825d"  # its name tells how its SHA-256 begins
_INSTALL = "pip install 'reed-image[fid]'"


class Inception:
    """InceptionV3 as an extractor.

    Args:
        network: Called with 8-bit pictures; gives pooled features and logits.
        device: Where it runs.
    """

    name, classifies, preprocessing = INCEPTION, True, "bilinear as in TensorFlow 1, to 299 pixels"

    def __init__(self, network: nn.Module, device: Any = "cpu") -> None:
        self.network, self.device = network.eval().requires_grad_(False).to(device), torch.device(device)
        self.fingerprint = f"weights={fingerprint_module(network)} version=inception-1"

    @torch.no_grad()
    def __call__(self, pixels: UInt8[Tensor, "b 3 H W"]) -> Features:
        """Features of a batch."""
        pooled, logits = self.network(pixels.to(self.device))
        return Features(pooled.float(), logits.float())


def open_inception(weights: Path | None = None, device: Any = "cpu") -> Inception:
    """The network with its published weights.

    Args:
        weights: Their file; None takes what torch.hub has kept, or downloads it.
        device: Where it is to run.

    Raises:
        InputError: If torch-fidelity is not installed, the weights cannot be fetched, or the file is another one.
    """
    if weights is not None:
        _check(weights)
    try:
        library = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise InputError(
            f"FID, KID and IS need torch-fidelity, which is not installed; {_INSTALL}, or name another --encoder"
        ) from error
    try:
        network = library.FeatureExtractorInceptionV3(
            INCEPTION, ["2048", "logits_unbiased"], None if weights is None else str(weights)
        )
    except Exception as error:  # a download fails in many ways; their texts name hosts
        raise InputError(
            f"the weights of InceptionV3 cannot be fetched ({type(error).__name__}); copy {WEIGHTS} of torch-fidelity "
            f"here and give --encoder {INCEPTION}=FILE, or name another --encoder"
        ) from error
    return Inception(network, device)


def _check(weights: Path) -> None:
    """That it is the published file, and holds nothing but tensors: torch-fidelity would run what else is in it."""
    try:
        found = sha256(weights)
    except OSError as error:
        raise InputError(f"{weights} cannot be read ({error.strerror}); give the path of {WEIGHTS}") from error
    if not found.startswith(DIGEST):
        raise InputError(
            f"{weights} is not {WEIGHTS} of torch-fidelity (SHA-256 {found[:8]}...); FID means those weights, give them"
        )
    try:
        torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no exceptions of a damaged file
        raise InputError(f"{weights} is damaged ({type(error).__name__}); copy it again") from error
