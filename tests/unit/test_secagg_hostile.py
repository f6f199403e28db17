"""A coordinator that cheats learns nothing and is named; a partner that cheats loses its own turn and nobody else's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedrec.errors import PrivacyError, ProtocolError
from fedrec.secagg import messages
from fedrec.secagg.masks import public_key
from fedrec.secagg.messages import (
    Confirmations,
    Inbox,
    Keys,
    Roster,
)
from fedrec.secagg.partner import PartnerSum
from fedrec.signing import SigningKey

STRANGER = SigningKey(bytes([99] * 32))


def keys_of(world: Any, name: str, key: SigningKey, **changed: Any) -> Keys:
    """Keys that somebody signs in a name."""
    values = {"mask_key": public_key(bytes([3] * 32)), "share_key": public_key(bytes([4] * 32)), "chosen": ()} | changed
    signed = messages.keys_signed(world.terms.context, name, *values.values())
    return Keys(partner=name, signature=key.sign("secagg-keys", signed), **values)


def replaced(roster: Roster, keys: Keys) -> Roster:
    return Roster(keys=tuple(keys if one.partner == keys.partner else one for one in roster.keys))


def changed(message: Any, **values: Any) -> Any:
    return message.model_copy(update=values)


def flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def two_rosters(world: Any) -> Roster:
    """Of p000 from another attempt: its old keys, honestly signed then."""
    other = type(world)(6, attempt=2, seed="other").until("share")
    old = other.told["share"].by_name["p000"]
    return replaced(world.told["share"], old)


ROSTERS: dict[str, tuple[Callable[[Any, Roster], Roster], str]] = {
    "shrunk below two thirds": (lambda w, r: Roster(keys=r.keys[-4:]), "fewer than 5"),
    "without this partner": (lambda w, r: Roster(keys=r.keys[:-1]), "without this partner"),
    "a stranger": (
        lambda w, r: Roster(keys=(*r.keys, keys_of(w, "p999", STRANGER))),
        "not of this cohort",
    ),
    "another order": (lambda w, r: Roster(keys=r.keys[::-1]), "not in order"),
    "one of them twice": (lambda w, r: Roster(keys=(r.keys[0], *r.keys)), "not in order"),
    "a key replaced by the coordinator's": (
        lambda w, r: replaced(r, keys_of(w, "p000", STRANGER)),
        "secagg-keys: the signature",
    ),
    "a key replaced under the old signature": (
        lambda w, r: replaced(r, changed(r.keys[0], mask_key=public_key(bytes([3] * 32)))),
        "secagg-keys: the signature",
    ),
    "keys of another attempt": (lambda w, r: two_rosters(w), "secagg-keys: the signature"),
    "other keys of this partner": (
        lambda w, r: replaced(r, keys_of(w, "p005", w.keys["p005"])),
        "other keys of this partner",
    ),
    "a key of another": (
        lambda w, r: replaced(r, keys_of(w, "p000", w.keys["p000"], mask_key=r.keys[1].mask_key)),
        "stands in the roster twice",
    ),
    "one key for both": (
        lambda w, r: replaced(r, keys_of(w, "p000", w.keys["p000"], share_key=public_key(bytes([3] * 32)))),
        "stands in the roster twice",
    ),
    "a key of small order": (
        lambda w, r: replaced(r, keys_of(w, "p000", w.keys["p000"], share_key=bytes(32))),
        "none that a secret can be agreed",
    ),
    "neighbours where all are": (
        lambda w, r: replaced(r, keys_of(w, "p000", w.keys["p000"], chosen=("p001",))),
        "p000 drew no 0 neighbours",
    ),
}


@pytest.mark.parametrize("attack", ROSTERS)
def test_a_roster_that_is_not_honest_is_refused(make_sum: Any, attack: str) -> None:
    make, words = ROSTERS[attack]
    world = make_sum(6).until("share")
    with pytest.raises(ProtocolError, match=words):
        world.ask("share", "p005", make(world, world.told["share"]))
    with pytest.raises(ProtocolError, match="over, or was asked out of order"):
        world.ask("share", "p005")  # not even an honest one, afterwards


def test_one_key_under_two_names_is_refused_before_a_key_is_made(make_sum: Any) -> None:
    """One partner would count twice among those whose noise is in the sum; as the own one, too."""

    def none(n_bytes: int) -> bytes:
        raise AssertionError("drew a secret")

    world = make_sum(6)
    for name, twin in (("p000", world.public["p001"]), ("p000", world.public["p005"])):
        with pytest.raises(PrivacyError, match="one key stands under two names"):
            world.partner("p005", peers={**world.public, name: twin}, entropy=none)
    # What is known of others, or under the own name, is of no account.
    world.partner("p005", peers={**world.public, "p999": world.public["p001"], "p005": world.public["p001"]})


def test_a_cohort_with_a_stranger_is_refused_before_a_key_is_made(make_sum: Any) -> None:
    world = make_sum(6)
    peers = {name: key for name, key in world.public.items() if name not in ("p001", "p003", "p005")}

    def none(n_bytes: int) -> bytes:
        raise AssertionError("drew a secret")

    with pytest.raises(PrivacyError) as found:
        world.partner("p005", peers=peers, entropy=none)
    assert found.value.problem.endswith("no peers of this one: p001, p003")
    with pytest.raises(ProtocolError, match="not in the cohort"):
        PartnerSum("p999", STRANGER, world.public, world.terms)


INBOXES: dict[str, tuple[Callable[[Inbox], Inbox], str]] = {
    "too few": (lambda i: _without(i, "p000", "p001"), "fewer than 5 shared"),
    "not this partner": (lambda i: changed(i, shared=i.shared[:-1]), "or not this partner"),
    "somebody who sent no keys": (lambda i: changed(i, shared=(*i.shared, "p999")), "not of the roster"),
    "another order": (lambda i: changed(i, shared=i.shared[::-1]), "not in order"),
    "twice": (lambda i: changed(i, shared=(i.shared[0], *i.shared)), "not in order"),
    "a share missing": (
        lambda i: changed(i, sealed={k: v for k, v in i.sealed.items() if k != "p001"}),
        "sealed shares are missing",
    ),
    "a commitment missing": (
        lambda i: changed(i, commitments={k: v for k, v in i.commitments.items() if k != "p001"}),
        "sealed shares are missing",
    ),
    "shares of one who did not share": (
        lambda i: changed(i, shared=tuple(n for n in i.shared if n != "p001")),
        "others than those who shared",
    ),
}


def _without(inbox: Inbox, *names: str) -> Inbox:
    left = {
        kind: {k: v for k, v in getattr(inbox, kind).items() if k not in names} for kind in ("sealed", "commitments")
    }
    return Inbox(shared=tuple(n for n in inbox.shared if n not in names), **left)


@pytest.mark.parametrize("attack", INBOXES)
def test_an_inbox_that_is_not_honest_is_refused_before_a_row_is_read(make_sum: Any, attack: str) -> None:
    make, words = INBOXES[attack]
    world = make_sum(6).until("mask")
    with pytest.raises(ProtocolError, match=words):
        world.partners["p005"].check_inbox(make(world.coordinator.inbox("p005")))
    with pytest.raises(ProtocolError, match="out of order"):
        world.partners["p005"].mask(world.vectors["p005"])


GARBAGE: dict[str, Callable[[Inbox], Inbox]] = {
    "a ciphertext changed": lambda i: changed(i, sealed={**i.sealed, "p001": flipped(i.sealed["p001"])}),
    "the ciphertext for another": lambda i: changed(i, sealed={**i.sealed, "p001": i.sealed["p002"]}),
    "other commitments": lambda i: changed(i, commitments={**i.commitments, "p001": i.commitments["p002"]}),
    "commitments in another order": lambda i: changed(
        i, commitments={**i.commitments, "p001": i.commitments["p001"][::-1]}
    ),
}


@pytest.mark.parametrize("lost", [(), ("p001",)])
@pytest.mark.parametrize("attack", GARBAGE)
def test_a_share_that_is_not_the_committed_one_is_not_held_and_harms_nobody(
    make_sum: Any, attack: str, lost: tuple[str, ...]
) -> None:
    """Whoever could not open it has none to reveal, of either kind; the others' are enough."""
    world = make_sum(7).until("mask")
    left = [name for name in world.names if name not in lost]
    for name in left:
        told = world.coordinator.inbox(name)
        told = GARBAGE[attack](told) if name == "p005" else told
        world.take("mask", name, world.ask("mask", name, told))
    assert world.partners["p005"]._held.keys() == set(world.names) - {"p001"}
    world.close("mask")
    for step in ("confirm", "reveal"):
        world.step(step, left)
    told = world.sent["reveal"]["p005"]
    assert "p001" not in told.seeds.keys() | told.mask_keys.keys()
    assert np.array_equal(world.coordinator.total(), world.plain(left))
    assert not world.coordinator.spoilers


SURVIVORS: dict[str, tuple[Callable[[tuple[str, ...]], tuple[str, ...]], str]] = {
    "too few": (lambda names: names[-4:], "fewer than 5"),
    "not this partner": (lambda names: names[:-1], "without this partner"),
    "one who did not share": (lambda names: ("p000", *names), "must have shared"),
    "another order": (lambda names: names[::-1], "in order"),
    "one twice": (lambda names: (names[0], *names), "each once"),
    "nobody": (lambda names: (), "fewer than 5"),
}


@pytest.mark.parametrize("attack", SURVIVORS)
def test_survivors_that_are_not_honest_are_not_confirmed(make_sum: Any, attack: str) -> None:
    make, words = SURVIVORS[attack]
    world = make_sum(7, quorum=5)
    world.step("advertise")
    world.step("share", world.names[1:])
    world.step("mask", world.names[1:])
    with pytest.raises(ProtocolError, match=words):
        world.ask("confirm", "p006", world.survivors("p006", make(world.names[1:])))


SHOWN: dict[str, Callable[[Any, dict[str, str]], dict[str, str]]] = {
    "missing": lambda w, s: {name: one for name, one in s.items() if name != "p001"},
    "another's": lambda w, s: {**s, "p001": s["p002"]},
    "forged": lambda w, s: {**s, "p001": STRANGER.sign("secagg-shared", _over_shared(w, "p001"))},
    "for another purpose": lambda w, s: {**s, "p001": w.keys["p001"].sign("secagg-keys", _over_shared(w, "p001"))},
    "of another session": lambda w, s: {
        **s, "p001": w.keys["p001"].sign("secagg-shared", messages.shared_signed(bytes(32), "p001", w.names))
    },
    "over fewer": lambda w, s: {
        **s, "p001": w.keys["p001"].sign("secagg-shared", _over_shared(w, "p001", w.names[:-1]))
    },
    "over more": lambda w, s: {
        **s, "p001": w.keys["p001"].sign("secagg-shared", _over_shared(w, "p001", (*w.names, "p999")))
    },
}  # fmt: skip


def _over_shared(world: Any, name: str, shared: tuple[str, ...] = ()) -> Any:
    return messages.shared_signed(world.coordinator._session, name, shared or world.names)


@pytest.mark.parametrize("attack", SHOWN)
def test_a_survivor_that_was_not_told_the_same_sharers_is_not_confirmed(make_sum: Any, attack: str) -> None:
    world = make_sum(6).until("confirm")
    honest = world.for_one("confirm", "p005")
    assert honest.signatures.keys() == set(world.names) - {"p005"}
    told = changed(honest, signatures=SHOWN[attack](world, dict(honest.signatures)))
    with pytest.raises(ProtocolError, match="partner p001: secagg-shared: the signature"):
        world.ask("confirm", "p005", told)
    with pytest.raises(ProtocolError, match="over, or was asked out of order"):
        world.ask("confirm", "p005")


def test_whoever_is_told_two_survivor_sets_signs_one(make_sum: Any) -> None:
    world = make_sum(6).until("confirm")
    world.ask("confirm", "p005")
    with pytest.raises(ProtocolError, match="out of order"):
        world.ask("confirm", "p005", world.survivors("p005", world.names[1:]))
    with pytest.raises(ProtocolError, match="out of order"):
        world.ask("reveal", "p005", Confirmations(signatures={}))  # and is out of the sum


def test_two_survivor_sets_are_never_both_opened(make_sum: Any) -> None:
    """Half is told that p000 was lost: no honest partner reveals, so that not both of its secrets come out."""
    world = make_sum(6).until("confirm")
    told = {n: world.survivors(n, world.names[0 if place < 3 else 1 :]) for place, n in enumerate(world.names)}
    signed = {name: world.ask("confirm", name, told[name]).signature for name in world.names}
    for name in world.names:
        alike = {n: signature for n, signature in signed.items() if told[n].survivors == told[name].survivors}
        for offered in (signed, alike):
            with pytest.raises(ProtocolError, match=r"secagg-survivors: the signature|fewer than 5|over, or was asked"):
                world.ask("reveal", name, Confirmations(signatures=offered))


CONFIRMATIONS: dict[str, tuple[Callable[[Any, dict[str, str]], dict[str, str]], str]] = {
    "too few": (lambda w, s: dict(list(s.items())[:4]), "fewer than 5 survivors have confirmed"),
    "none": (lambda w, s: {}, "fewer than 5"),
    "a stranger's": (
        lambda w, s: {**s, "p999": s["p000"]},
        "fewer than 5",
    ),
    "forged": (lambda w, s: {**s, "p000": STRANGER.sign("secagg-survivors", {})}, "secagg-survivors: the signature"),
    "another's": (lambda w, s: {**s, "p000": s["p001"]}, "secagg-survivors: the signature"),
    "for another purpose": (
        lambda w, s: {**s, "p000": w.keys["p000"].sign("secagg-keys", _over_survivors(w))},
        "secagg-survivors: the signature",
    ),
    "over other sharers": (
        lambda w, s: {**s, "p000": w.keys["p000"].sign("secagg-survivors", _over_survivors(w, w.names[:-1]))},
        "secagg-survivors: the signature",
    ),
    "in another's name": (
        lambda w, s: {**s, "p000": w.keys["p000"].sign("secagg-survivors", _over_survivors(w, name="p001"))},
        "secagg-survivors: the signature",
    ),
}


def _over_survivors(world: Any, shared: tuple[str, ...] = (), name: str = "p000") -> Any:
    return messages.survivors_signed(world.coordinator._session, name, shared or world.names, world.names)


@pytest.mark.parametrize("attack", CONFIRMATIONS)
def test_confirmations_that_are_not_honest_reveal_nothing(make_sum: Any, attack: str) -> None:
    make, words = CONFIRMATIONS[attack]
    world = make_sum(6).until("reveal")
    signatures = make(world, dict(world.told["reveal"].signatures))
    with pytest.raises(ProtocolError, match=words):
        world.ask("reveal", "p005", Confirmations(signatures=signatures))
    with pytest.raises(ProtocolError, match="out of order"):
        world.ask("reveal", "p005")


@pytest.mark.parametrize("step", ["advertise", "share", "mask", "confirm", "reveal"])
def test_no_step_is_answered_twice(make_sum: Any, step: str) -> None:
    world = make_sum(4).until(step)
    world.ask(step, "p001")
    with pytest.raises(ProtocolError, match="over, or was asked out of order"):
        world.ask(step, "p001")


@pytest.mark.parametrize("step", ["share", "mask", "confirm", "reveal"])
def test_no_step_is_answered_before_its_time(make_sum: Any, step: str) -> None:
    world = make_sum(4).until(step)
    world.partners["p001"] = world.partner("p001")
    with pytest.raises(ProtocolError, match="over, or was asked out of order"):
        world.ask(step, "p001")


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (np.zeros(4, np.int64), "not 5 numbers"),
        (np.zeros((5, 1), np.int64), "not 5 numbers"),
        (np.full(5, 2**19), "does not fit into 20 bits"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused(make_sum: Any, vector: np.ndarray, words: str) -> None:
    world = make_sum(4).until("mask")
    world.vectors["p001"] = vector
    with pytest.raises(ProtocolError, match=words):
        world.ask("mask", "p001")
