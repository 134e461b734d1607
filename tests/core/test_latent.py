"""Pooling over what exists, projectors, and what a latent refuses."""

from itertools import pairwise

import pytest
import torch
from reed_core.errors import InputError
from reed_core.generator import Flow
from reed_core.head import VonMisesFisher
from reed_core.latent import Latent, pool_tokens
from reed_core.projector import Projector
from reed_core.reveal import PointMass

# Pooling


@pytest.mark.parametrize("shape", [(4, 6, 3), (4, 3, 2, 3)], ids=str)
def test_pooling_is_a_slow_mean_over_what_exists(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(shape, generator=generator)
    mask = torch.rand(shape[:-1], generator=generator) < 0.6
    mask[0] = False
    pooled = pool_tokens(hidden, mask)
    for i in range(4):
        own = hidden[i][mask[i]]
        torch.testing.assert_close(pooled[i], own.mean(0) if len(own) else torch.zeros(shape[-1]))
    torch.testing.assert_close(pool_tokens(hidden, None), hidden.reshape(4, -1, shape[-1]).mean(1))


def test_what_lies_in_the_padding_never_enters_the_mean() -> None:
    hidden = torch.randn(2, 4, 3)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    spoiled = hidden.clone()
    spoiled[0, 2:] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    spoiled.requires_grad_()
    pooled = pool_tokens(spoiled, mask)
    torch.testing.assert_close(pooled[:1], pool_tokens(hidden[:1, :2], None))
    assert torch.equal(pooled, pool_tokens(hidden, mask))
    pooled.sum().backward()
    assert spoiled.grad is not None
    assert torch.equal(
        spoiled.grad, torch.where(mask[..., None], 1.0 / mask.sum(1)[:, None, None], 0.0).expand(2, 4, 3)
    )


def test_pooling_keeps_the_precision() -> None:
    hidden = torch.randn(2, 4, 3)
    for dtype in (torch.bfloat16, torch.float64):
        assert pool_tokens(hidden.to(dtype), torch.ones(2, 4, dtype=torch.bool)).dtype == dtype


# Projectors


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_projector_has_the_widths_asked_for(layers: int) -> None:
    projector = Projector(6, 4, hidden=9, layers=layers)
    widths = [(m.in_features, m.out_features) for m in projector if isinstance(m, torch.nn.Linear)]
    assert len(widths) == layers
    assert (widths[0][0], widths[-1][1]) == (6, 4)
    assert all(left[1] == right[0] == 9 for left, right in pairwise(widths))
    hidden = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(projector(hidden)[1, 2, 4], projector(hidden[1, 2, 4]))
    zero = projector(torch.zeros(1, 6))
    linear = torch.allclose(projector(hidden + hidden) - zero, 2 * (projector(hidden) - zero), atol=1e-5)
    assert linear == (layers == 1)


# Latents


@pytest.mark.parametrize("head", [VonMisesFisher(2.0), Flow()], ids=str)
def test_a_latent_takes_a_likelihood_or_a_flow(head: VonMisesFisher | Flow) -> None:
    assert Latent("z", "blocks.1", 6, 4, head=head).head is head


def test_a_latent_without_a_tap_is_revealed_at_noise_alone() -> None:
    assert Latent("z", None, 0, 4, reveal=PointMass(1.0)).tap is None
    for reveal in ({}, {"reveal": PointMass(0.5)}):
        with pytest.raises(InputError, match="reads no tap"):
            Latent("z", None, 0, 4, **reveal)
