"""Limits on composition: kept in every design, never a dead end."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_structures import helix
from reed_core.errors import InputError
from reed_protein.allowance import Allowance
from reed_protein.composition import limits, read_limits


def possible(counts: dict[int, int], allowed: np.ndarray) -> bool:
    """Whether sites of one residue can all be filled: tries everything, site by site."""
    if not len(allowed):
        return True
    for letter in np.flatnonzero(allowed[0]).tolist():
        if counts.get(letter, 1) > 0:
            left = {**counts, letter: counts[letter] - 1} if letter in counts else counts
            if possible(left, allowed[1:]):
                return True
    return False


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_letter_that_leaves_the_rest_possible_may_be_taken_and_no_other(data: st.DataObject) -> None:
    """Against a search through everything: five letters, up to five residues, any omissions, any limits."""
    sites = data.draw(st.integers(1, 5))
    allowed = np.zeros((sites, 20), dtype=bool)
    for row in allowed:
        row[data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))] = True
    counts = data.draw(st.dictionaries(st.integers(0, 4), st.integers(0, 3), min_size=1))
    if not possible(counts, allowed):
        with pytest.raises(InputError, match="at-most"):
            Allowance(counts, [1] * sites, allowed)
        return
    made = Allowance(counts, [1] * sites, allowed)
    left = dict(counts)
    open_sites = list(data.draw(st.permutations(range(sites))))
    while open_sites:
        site = open_sites.pop(0)
        preferred = data.draw(st.permutations(range(20)))
        taken = made.take(site, preferred)
        for letter in preferred:
            after = {**left, letter: left[letter] - 1} if letter in left else left
            fits = allowed[site, letter] and left.get(letter, 1) > 0 and possible(after, allowed[open_sites])
            assert fits == (letter == taken)
            if fits:
                left = after
                break


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
    st.integers(0, 2**32 - 1),
    st.dictionaries(st.integers(0, 19), st.integers(0, 12), min_size=1),
)
def test_limits_hold_for_ties_of_any_size(sizes: list[int], seed: int, counts: dict[int, int]) -> None:
    generator = np.random.default_rng(seed)
    allowed = generator.random((len(sizes), 20)) < 0.5
    assume(allowed.any(axis=1).all())
    try:
        made = Allowance(counts, sizes, allowed)
    except InputError:
        assume(False)
    used = dict.fromkeys(range(20), 0)
    for site in generator.permutation(len(sizes)).tolist():
        letter = made.take(site, generator.permutation(20).tolist())
        assert allowed[site, letter]
        used[letter] += sizes[site]
    assert all(used[letter] <= most for letter, most in counts.items())


def test_shares_are_of_the_designed_residues_rounded_down() -> None:
    structure = helix(20)
    designed = np.arange(20) < 19
    found = limits(structure, read_limits("K:10%, e:50%,W:1"), designed, [], structure.sequence)
    assert found == {8: 1, 3: 9, 18: 1}


@pytest.mark.parametrize("text", ["K", "K:", "K:x", "B:5%", "K:101%", "K:-1", "K:5%,K:6%", "K:1.5", "KE:5%"])
def test_a_bad_limit_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match="--at-most"):
        read_limits(text)
