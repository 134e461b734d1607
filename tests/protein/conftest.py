"""A small network for the protein tests."""

import pytest
import torch
from reed_protein.network import InverseFolding, NetworkConfig


@pytest.fixture(scope="session")
def network() -> InverseFolding:
    """A small network with random weights, biased enough that its logits differ between residues."""
    torch.manual_seed(7)
    made = InverseFolding(NetworkConfig(width=32, neighbours=12, encoder_layers=2, edge_updates=1, decoder_layers=2))
    with torch.no_grad():
        made.out.weight.mul_(8.0)
    return made.eval()
