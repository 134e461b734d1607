"""The bound of the bundled weights on real chains is the ELBO that `reed_protein.score` gives, in nats and bits."""

import math
from pathlib import Path

import pytest
import torch
from reed_core.bound.estimate import BoundEstimate
from reed_core.bound.evaluate import evaluate_bound
from reed_core.objective import Objective
from reed_core.process import Masked
from reed_core.train.data import Batch
from reed_protein.backbone import Backbone
from reed_protein.dataset import ChainSet, collate_tokens
from reed_protein.design import load
from reed_protein.network import MASK_TOKEN, NUM_TOKENS, UNKNOWN_TOKEN
from reed_protein.score import elbo_nll


@pytest.fixture(scope="module")
def batch(reed_data: Path) -> Batch:
    chains = ChainSet.read(reed_data / "protein" / "backbones_valid.npz")
    some = sorted(range(len(chains)), key=lambda item: len(chains.tokens[item]))[20:60:8]
    backbone = Backbone.collate([chains.arrays[item] for item in some])
    tokens = collate_tokens([chains.tokens[item] for item in some])
    with torch.no_grad():
        return Batch(tokens, load().network.encode(backbone), backbone.mask & (tokens < UNKNOWN_TOKEN))


@pytest.fixture(scope="module")
def found(batch: Batch) -> BoundEstimate:
    return evaluate_bound(load().network, Objective(Masked(NUM_TOKENS, MASK_TOKEN)), [batch])


def test_it_is_the_elbo_of_the_score(batch: Batch, found: BoundEstimate) -> None:
    """Both spend 16 evaluations; the score's are of one seed, so both have about the error of one."""
    assert isinstance(batch.mask, torch.Tensor)
    length = batch.mask.sum(1)
    score = (elbo_nll(load().network, batch.c, batch.x_0, batch.mask) * length).sum() / length.sum()
    estimate = found.nats_per_dim
    assert abs(estimate.mean - score.item()) < 4 * math.sqrt(2) * estimate.draw_error
    assert estimate.draw_error < 0.1


def test_bits_per_residue_lie_below_those_of_a_guess(batch: Batch, found: BoundEstimate) -> None:
    assert isinstance(batch.mask, torch.Tensor)
    assert torch.equal(found.elements, batch.mask.sum(1).double())
    assert 2.0 < found.bits_per_dim.mean < math.log2(NUM_TOKENS)
    assert found.terms["prior"].mean == 0.0


def test_a_network_that_forgets_its_backbone_has_a_worse_bound(batch: Batch, found: BoundEstimate) -> None:
    network = load().network
    encoding = batch.c
    flat = Batch(
        batch.x_0, type(encoding)(torch.zeros_like(encoding.nodes), *list(vars(encoding).values())[1:]), batch.mask
    )
    worse = evaluate_bound(network, Objective(Masked(NUM_TOKENS, MASK_TOKEN)), [flat])
    change = worse.compare(found)
    assert change.common_draws
    assert change.nats.mean > 4 * change.nats.standard_error
