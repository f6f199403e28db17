"""What holds, and that each check would show if it did not: one thing broken at a time."""

import itertools
from typing import Any

import numpy as np
import pytest

from fedrec.errors import ProtocolError
from fedrec.secagg import coordinator, masks, partner
from fedrec.secagg.masks import to_words
from fedrec.secagg.messages import Confirmations, Revealed, Survivors
from fedrec.secagg.packing import unpack
from fedrec.secagg.partner import PartnerSum


def check_sum(make_sum: Any, **lost: str) -> None:
    world = make_sum(5)
    total = world.run(lost)
    assert np.array_equal(total, world.plain(name for name in world.names if name not in lost))


def keys_of_streams(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The key of every stream that partners of one sum add, each once for each partner that adds it."""
    used: list[bytes] = []
    add = masks.add_stream

    def noting(total: Any, key: bytes, sign: int) -> None:
        used.append(key)
        add(total, key, sign)

    with monkeypatch.context() as patched:
        patched.setattr(partner, "add_stream", noting)
        make_sum(5).until("confirm")
    return used


def check_every_stream_has_its_own_key(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five of self masks, used once, and ten of pairs, used by both sides."""
    used = keys_of_streams(make_sum, monkeypatch)
    assert sorted(used.count(key) for key in set(used)) == [1] * 5 + [2] * 10


def check_two_sums_of_one_partner_hide_the_difference(make_sum: Any, seeds: tuple[str, str]) -> None:
    """Two attempts with other vectors: masked ones differ by something else than the vectors do."""
    differences, vectors = [], []
    for seed in seeds:
        world = make_sum(4, seed=seed)
        vectors.append(world.vectors["p001"] + (7 if seed is seeds[1] else 0))
        world.vectors["p001"] = vectors[-1]
        world.until("confirm")
        differences.append(unpack(world.sent["mask"]["p001"], 5, 20))
    masked = (differences[1] - differences[0]) & 0xFFFFF
    assert not np.array_equal(masked, to_words(vectors[1] - vectors[0], 20))


def check_nobody_reveals_both(make_sum: Any) -> None:
    world = make_sum(5)
    world.run({"p001": "mask"})
    for told in world.sent["reveal"].values():
        assert not told.seeds.keys() & told.mask_keys.keys()
        assert told.mask_keys.keys() == {"p001"}


def opens_two_survivor_sets(make_sum: Any) -> bool:
    """Half is told that p000 was lost; whether somebody reveals to a coordinator that shows what it has."""
    world = make_sum(6).until("confirm")
    one, other = world.told["confirm"], Survivors(survivors=world.names[1:])
    told = {name: one if place < 3 else other for place, name in enumerate(world.names)}
    signed = {name: world.ask("confirm", name, told[name]).signature for name in world.names}
    revealed = []
    for name in world.names[1:]:
        shown = {other: signature for other, signature in signed.items() if other != "p000"}
        try:
            revealed.append(world.ask("reveal", name, Confirmations(signatures=shown)))
        except ProtocolError:
            continue
    kinds = [("p000" in told.seeds, "p000" in told.mask_keys) for told in revealed]
    return (True, False) in kinds and (False, True) in kinds


def confirms_twice(make_sum: Any) -> bool:
    world = make_sum(6).until("confirm")
    world.ask("confirm", "p005")
    try:
        world.ask("confirm", "p005", Survivors(survivors=world.names[1:]))
    except ProtocolError:
        return False
    return True


def test_all_of_it_holds(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check_sum(make_sum)
    check_sum(make_sum, p002="mask")
    check_every_stream_has_its_own_key(make_sum, monkeypatch)
    check_two_sums_of_one_partner_hide_the_difference(make_sum, ("one", "other"))
    check_nobody_reveals_both(make_sum)
    assert not opens_two_survivor_sets(make_sum)
    assert not confirms_twice(make_sum)


def test_mutant_a_mask_sign(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partner, "pair_sign", lambda name, other: 1)
    with pytest.raises(AssertionError):
        check_sum(make_sum)


def test_mutant_the_sign_at_which_a_lost_ones_masks_are_taken_off(
    make_sum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = partner.pair_sign
    monkeypatch.setattr(coordinator, "pair_sign", lambda name, other: -sign(name, other))
    check_sum(make_sum)  # nobody is lost
    with pytest.raises(AssertionError):
        check_sum(make_sum, p002="mask")


def test_mutant_self_masks_stay(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "add_stream", lambda total, key, sign: None)
    with pytest.raises(AssertionError):
        check_sum(make_sum)


def test_mutant_keys_without_their_roles(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One secret and one session: a stream for each pair, another for a self mask, one for a seal each way."""

    def keys() -> set[bytes]:
        world = make_sum(4).until("mask")
        session, secret = world.coordinator._session, bytes([7] * 32)
        monkeypatch.setattr(partner, "agree", lambda private, other: secret)
        pairs = [partner.pair_key(secret, session, *pair) for pair in itertools.combinations(world.names, 2)]
        both = itertools.permutations(world.names, 2)
        seals = [world.partners[one]._sealing_key(one, other) for one, other in both]
        return {*pairs, *seals, partner.derive(secret, session, "self", "p000")}

    assert len(keys()) == 6 + 12 + 1
    monkeypatch.undo()
    derive = masks.derive
    monkeypatch.setattr(partner, "derive", lambda secret, session, *roles: derive(secret, session))
    assert len(keys()) == 1


def test_mutant_a_session_that_does_not_count(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed in two attempts: with the session in the keys their streams differ, without it they do not."""

    def self_keys() -> set[bytes]:
        worlds = [make_sum(4, attempt=attempt).until("mask") for attempt in (1, 2)]
        assert worlds[0].partners["p000"]._seed == worlds[1].partners["p000"]._seed
        return {partner.derive(w.partners["p000"]._seed, w.coordinator._session, "self", "p000") for w in worlds}

    assert len(self_keys()) == 2
    derive = masks.derive
    monkeypatch.setattr(partner, "derive", lambda secret, session, *roles: derive(secret, bytes(32), *roles))
    assert len(self_keys()) == 1


def test_mutant_entropy_that_repeats(make_sum: Any) -> None:
    """Masks that serve twice cancel in the difference of two vectors, which is then bare."""
    with pytest.raises(AssertionError):
        check_two_sums_of_one_partner_hide_the_difference(make_sum, ("one", "".join(["o", "ne"])))


def test_mutant_both_shares_revealed(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reveal = PartnerSum.reveal

    def both(self: PartnerSum, confirmations: Confirmations) -> Revealed:
        keys = {owner: pair[32:] for owner, pair in self._held.items()}
        return Revealed(seeds=reveal(self, confirmations).seeds, mask_keys=keys)

    monkeypatch.setattr(PartnerSum, "reveal", both)
    # The honest coordinator refuses such shares before any check of a test can see them.
    with pytest.raises(ProtocolError, match="shares of others"):
        check_nobody_reveals_both(make_sum)
    monkeypatch.setattr(coordinator.CoordinatorSum, "take_revealed", lambda self, name, told: None)
    with pytest.raises(AssertionError):
        check_nobody_reveals_both_in_answers(make_sum)


def check_nobody_reveals_both_in_answers(make_sum: Any) -> None:
    world = make_sum(5).until("reveal")
    for name in world.names:
        told = world.ask("reveal", name)
        assert not told.seeds.keys() & told.mask_keys.keys()


def test_mutant_survivors_changed_after_confirmation(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    enter = PartnerSum._enter

    def lenient(self: PartnerSum, step: int) -> None:
        if step == 4 and self._step == 5:
            self._step = 4
        enter(self, step)

    monkeypatch.setattr(PartnerSum, "_enter", lenient)
    assert confirms_twice(make_sum)


def test_mutant_a_consistency_check_that_is_skipped(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both secrets of one partner come out, and with them its vector."""
    monkeypatch.setattr(partner, "verify", lambda *_: None)
    assert opens_two_survivor_sets(make_sum)


def test_mutant_a_roster_that_is_not_verified(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator's own key in another's place would be agreed with."""
    world = make_sum(4).until("share")
    roster = world.told["share"]
    forged = roster.keys[0].model_copy(update={"mask_key": masks.public_key(bytes([3] * 32))})
    told = roster.model_copy(update={"keys": (forged, *roster.keys[1:])})
    with pytest.raises(ProtocolError, match="secagg-keys"):
        world.ask("share", "p003", told)
    monkeypatch.setattr(partner, "verify", lambda *_: None)
    assert world.ask("share", "p002", told).sealed.keys() == {"p000", "p001", "p003"}
