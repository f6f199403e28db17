"""What a coordinator sees of a round, and that it is the same whatever one partner's data are."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedrec.secagg import partner
from fedrec.secagg.packing import unpack

BITS, NUMBERS, VICTIM = 12, 4000, "p001"
SEEN = ("advertise", "share", "confirm", "reveal")


def world_of(make_sum: Any, seed: str, value: int) -> Any:
    """A round in which one partner's vector is a constant, and all others' are zero."""
    world = make_sum(4, numbers=NUMBERS, bits=BITS, seed=seed)
    world.vectors = dict.fromkeys(world.names, np.zeros(NUMBERS, np.int64))
    world.vectors[VICTIM] = np.full(NUMBERS, value, np.int64)
    assert np.array_equal(world.run(), world.plain(world.names))
    return world


def masked(world: Any, name: str) -> np.ndarray:
    return np.asarray(world.words(name))


def uniformity(words: np.ndarray) -> float:
    """p of chi-square over 64 equal cells of the modulus."""
    return float(stats.chisquare(np.bincount(words >> (BITS - 6), minlength=64)).pvalue)


def check_masked_vectors_are_uniform(make_sum: Any, value: int) -> None:
    world = world_of(make_sum, "uniform", value)
    for name in world.names:
        words = masked(world, name)
        assert uniformity(words) > 0.001
        assert float(stats.chisquare(np.bincount(words & 63, minlength=64)).pvalue) > 0.001
    for one, other in (("p000", VICTIM), (VICTIM, "p002")):
        together = (masked(world, one) + masked(world, other)) & (2**BITS - 1)
        assert uniformity(together) > 0.001  # no two cancel but in the whole sum


@pytest.mark.parametrize("value", [0, 1, 511, -512])
def test_masked_vectors_are_uniform_whatever_they_hide(make_sum: Any, value: int) -> None:
    check_masked_vectors_are_uniform(make_sum, value)


@pytest.mark.parametrize("value", [0, 511])
def test_mutant_without_masks_they_are_not(make_sum: Any, monkeypatch: pytest.MonkeyPatch, value: int) -> None:
    monkeypatch.setattr(partner, "add_stream", lambda total, key, sign: None)
    monkeypatch.setattr("fedrec.secagg.coordinator.add_stream", lambda total, key, sign: None)
    with pytest.raises(AssertionError):
        check_masked_vectors_are_uniform(make_sum, value)


def test_mutant_with_pair_masks_alone_a_lost_partner_is_bare(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there are self masks: a vector that comes late, after its partner's key was opened, has only these."""
    world = make_sum(4, numbers=NUMBERS, bits=BITS)
    world.vectors[VICTIM] = np.full(NUMBERS, 3, np.int64)
    for step in world.STEPS[:2]:
        world.step(step)
    late = world.ask("mask", VICTIM)
    for step in world.STEPS[2:]:
        world.step(step, [name for name in world.names if name != VICTIM])
    world.coordinator.total()
    words = unpack(late[64:], NUMBERS, BITS)
    total = words.copy()
    private = world.coordinator._mask_key(VICTIM)
    for name in ("p000", "p002", "p003"):
        key = world.coordinator._roster.by_name[name].mask_key
        secret = partner.agree(private, key)
        stream = partner.pair_key(secret, world.coordinator._session, VICTIM, name)
        partner.add_stream(total, stream, -partner.pair_sign(VICTIM, name))
    assert uniformity(total & (2**BITS - 1)) > 0.001  # the self mask is still on it
    seed = make_sum(4, numbers=NUMBERS, bits=BITS).partners[VICTIM]._seed
    partner.add_stream(total, partner.derive(seed, world.coordinator._session, "self", VICTIM), -1)
    assert np.unique(total & (2**BITS - 1)).tolist() == [3]  # and without it nothing would be


def features(world: Any) -> np.ndarray:
    """Of each masked vector: its words, and their sums with those of the next partner."""
    seen = [masked(world, name) for name in world.names]
    return np.concatenate([*seen, *((one + other) & (2**BITS - 1) for one, other in itertools.pairwise(seen))])


def check_two_data_sets_look_alike(make_sum: Any) -> None:
    """Kolmogorov-Smirnov over everything but the sum, and a guesser that would use means."""
    one, other = world_of(make_sum, "first", 0), world_of(make_sum, "second", 400)
    assert stats.ks_2samp(features(one), features(other)).pvalue > 0.001
    means = [[float(masked(world, name).mean()) for name in world.names] for world in (one, other)]
    spread = 2**BITS / np.sqrt(12 * NUMBERS)
    assert np.abs(np.subtract(*means)).max() < 4.5 * spread * np.sqrt(2)


def test_transcripts_of_two_data_sets_look_alike(make_sum: Any) -> None:
    check_two_data_sets_look_alike(make_sum)


def test_mutant_masks_that_are_too_small_tell_them_apart(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(total: np.ndarray, key: bytes, sign: int) -> None:
        total += np.uint32(sign % 2**32) * np.random.default_rng(list(key)).integers(0, 64, len(total), np.uint32)

    monkeypatch.setattr(partner, "add_stream", small)
    monkeypatch.setattr("fedrec.secagg.coordinator.add_stream", small)
    with pytest.raises(AssertionError):
        check_two_data_sets_look_alike(make_sum)


def test_every_other_message_is_the_same_to_the_byte(make_sum: Any) -> None:
    """With the same entropy: no step but the third reads the vector at all."""
    one, other = world_of(make_sum, "same", 0), world_of(make_sum, "same", 400)
    for step in SEEN:
        for name in one.names:
            assert one.sent[step][name].to_bytes() == other.sent[step][name].to_bytes()
    lengths = [{name: len(world.sent["mask"][name]) for name in world.names} for world in (one, other)]
    assert lengths[0] == lengths[1]
    assert all(one.sent["mask"][name][:64] == other.sent["mask"][name][:64] for name in one.names)  # the signature too
    same = [one.sent["mask"][name] == other.sent["mask"][name] for name in one.names]
    assert same == [name != VICTIM for name in one.names]


def test_with_other_entropy_form_and_length_are_the_same(make_sum: Any) -> None:
    one, other = world_of(make_sum, "first", 0), world_of(make_sum, "second", 400)
    for step in SEEN:
        for name in one.names:
            shapes = [_shape(world.sent[step][name].model_dump(mode="json")) for world in (one, other)]
            assert shapes[0] == shapes[1]


def _shape(value: Any) -> Any:
    """Keys and lengths, without what is random."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shape(item) for item in value]
    return len(value)
