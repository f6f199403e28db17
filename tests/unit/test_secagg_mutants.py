"""What holds, and that each check would show if it did not: one thing broken at a time."""

import base64
import itertools
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from fedrec.errors import ProtocolError
from fedrec.secagg import coordinator, masks, messages, partner, shamir
from fedrec.secagg.graph import Graph
from fedrec.secagg.masks import to_words
from fedrec.secagg.messages import Confirmations, Inbox, Revealed, Survivors
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
        differences.append(world.words("p001"))
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
    told = {n: world.survivors(n, world.names[0 if place < 3 else 1 :]) for place, n in enumerate(world.names)}
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
        world.ask("confirm", "p005", world.survivors("p005", world.names[1:]))
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


class SplitView:
    """A coordinator alone, with a graph of few neighbours, that tells one victim that others shared.

    The victim is told that whoever it drew (and some that drew it) did not share, and masks towards the rest; of the
    rest of its neighbours the coordinator says later that they did not survive. All of the victim's masks can then be
    taken off: those towards the lost by their mask keys, its self mask by the shares that hidden holders reveal.
    """

    def __init__(self, make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(messages, "graph_of", lambda partners, dishonest: Graph(partners, degree=4, threshold=2))
        self.world = world = make_sum(24).until("mask")
        chosen = {name: set(keys.chosen) for name, keys in world.sent["advertise"].items()}
        drew = {name: {other for other in world.names if name in chosen[other]} for name in world.names}
        self.victim = min(world.names, key=lambda name: len(drew[name] | chosen[name]))
        self.holders = chosen[self.victim]
        spare = len(world.names) - world.terms.least
        more = sorted(drew[self.victim] - self.holders)[: spare - len(self.holders)]
        hidden = self.holders | set(more)
        self.lost = (self.holders | drew[self.victim]) - hidden
        assert len(self.lost) <= spare
        shared = tuple(name for name in world.names if name not in hidden)
        inbox = world.coordinator.inbox(self.victim)
        told = {
            kind: {owner: one for owner, one in getattr(inbox, kind).items() if owner in shared}
            for kind in ("sealed", "commitments")
        }
        self.masked = {
            name: world.ask("mask", name, Inbox(shared=shared, **told) if name == self.victim else None)
            for name in world.names
        }
        self.survivors = tuple(name for name in world.names if name not in self.lost)

    def told(self, name: str) -> Survivors:
        """The survivors, with all signatures that it has, as it has them."""
        signed = {other: base64.b64encode(self.masked[other][:64]).decode() for other in self.survivors}
        return Survivors(survivors=self.survivors, signatures=signed)

    def revealed(self) -> dict[str, Revealed]:
        """Of all who go on, the victim aside, to whom nobody listens any more."""
        signatures: dict[str, str] = {}
        for name in set(self.survivors) - {self.victim}:
            with suppress(ProtocolError):
                signatures[name] = self.world.ask("confirm", name, self.told(name)).signature
        shown = Confirmations(signatures=signatures)
        return {name: self.world.ask("reveal", name, shown) for name in sorted(signatures)}

    def bare(self, revealed: dict[str, Revealed]) -> np.ndarray:
        """The victim's masked vector without all masks that can be taken off."""
        world, victim = self.world, self.victim
        session, points = world.coordinator._session, {name: at for at, name in enumerate(world.names, start=1)}

        def opened(owner: str, kind: str) -> bytes:
            shares = {
                points[n]: getattr(told, kind)[owner] for n, told in revealed.items() if owner in getattr(told, kind)
            }
            return shamir.combine(dict(list(shares.items())[:2]))

        total = unpack(self.masked[victim][64:], world.terms.numbers, world.terms.bits)
        masks.add_stream(total, masks.derive(opened(victim, "seeds"), session, "self", victim), -1)
        for name in self.lost:
            secret = masks.agree(opened(name, "mask_keys"), world.sent["advertise"][victim].mask_key)
            masks.add_stream(total, partner.pair_key(secret, session, victim, name), -partner.pair_sign(victim, name))
        return masks.from_words(total, world.terms.bits)


def test_a_holder_does_not_confirm_a_survivor_that_was_told_of_other_sharers(
    make_sum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enough others go on, but nobody of those who hold the victim's seed, so that its masks stay."""
    attack = SplitView(make_sum, monkeypatch)
    for name in sorted(attack.holders):
        with pytest.raises(ProtocolError, match=f"partner {attack.victim}: secagg-shared: the signature"):
            attack.world.ask("confirm", name, attack.told(name))
    revealed = attack.revealed()
    assert len(revealed) >= attack.world.terms.least
    assert not revealed.keys() & attack.holders
    assert not any(attack.victim in told.seeds.keys() | told.mask_keys.keys() for told in revealed.values())
    with pytest.raises(ProtocolError):
        attack.bare(revealed)


def test_an_honest_coordinator_does_not_add_what_was_masked_towards_others(
    make_sum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = SplitView(make_sum, monkeypatch)
    with pytest.raises(ProtocolError, match="secagg-shared: the signature"):
        attack.world.coordinator.take_masked(attack.victim, attack.masked[attack.victim])


def test_mutant_without_signed_sharers_a_coordinator_alone_has_a_partners_vector(
    make_sum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = PartnerSum._verify

    def lenient(self: PartnerSum, name: str, purpose: Any, values: Any, signature: str) -> None:
        if purpose != "secagg-shared":
            verify(self, name, purpose, values, signature)

    monkeypatch.setattr(PartnerSum, "_verify", lenient)
    attack = SplitView(make_sum, monkeypatch)
    assert np.array_equal(attack.bare(attack.revealed()), attack.world.vectors[attack.victim])
