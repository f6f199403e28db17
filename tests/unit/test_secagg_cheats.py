"""What a partner that cheats costs: its own turn, or a sum for which it alone is named."""

import base64
from typing import Any

import numpy as np
import pytest

from fedrec.errors import ProtocolError, QuorumError
from fedrec.secagg import messages, shamir
from fedrec.secagg.graph import Graph
from fedrec.secagg.masks import public_key, seal
from fedrec.secagg.messages import Keys, Revealed, Shares, seed_commitment, share_commitment
from fedrec.secagg.partner import MASK_KEY, SEED

CHEAT = "p002"


def keys_of(world: Any, name: str, **changed: Any) -> Keys:
    """A partner's own, signed by itself."""
    values = {"mask_key": public_key(bytes([3] * 32)), "share_key": public_key(bytes([4] * 32)), "chosen": ()} | changed
    signed = messages.keys_signed(world.terms.context, name, *values.values())
    return Keys(partner=name, signature=world.keys[name].sign("secagg-keys", signed), **values)


def test_keys_that_everybody_would_refuse_cost_their_sender_alone_its_turn(make_sum: Any) -> None:
    world = make_sum(4)
    for name in ("p000", "p001", "p003"):
        world.take("advertise", name, world.ask("advertise", name))
    taken = world.sent["advertise"]["p000"].mask_key
    own = public_key(bytes([3] * 32))
    for wrong, words in (
        ({"mask_key": taken}, "a key is another's"),
        ({"share_key": taken}, "a key is another's"),
        ({"share_key": own}, "stands there twice"),
        ({"mask_key": bytes(32)}, "none that a secret can be agreed with"),
        ({"share_key": b"\x01" + bytes(31)}, "none that a secret can be agreed with"),
        ({"chosen": ("p001",)}, "drew no 0 neighbours"),
    ):
        with pytest.raises(ProtocolError, match=words):
            world.coordinator.take_keys(CHEAT, keys_of(world, CHEAT, **wrong))
    with pytest.raises(ProtocolError, match="keys of another"):
        world.coordinator.take_keys(CHEAT, keys_of(world, "p003"))
    with pytest.raises(ProtocolError, match="stranger, or twice"):
        world.coordinator.take_keys("p000", world.sent["advertise"]["p000"])
    with pytest.raises(ProtocolError, match="stranger"):
        world.coordinator.take_keys("p999", world.sent["advertise"]["p000"].model_copy(update={"partner": "p999"}))
    unsigned = keys_of(world, CHEAT).model_copy(update={"signature": world.sent["advertise"]["p000"].signature})
    with pytest.raises(ProtocolError, match="secagg-keys: the signature"):
        world.coordinator.take_keys(CHEAT, unsigned)
    world.close("advertise")
    honest = ["p000", "p001", "p003"]
    for step in world.STEPS[1:]:
        world.step(step, honest)
    assert np.array_equal(world.coordinator.total(), world.plain(honest))


@pytest.mark.parametrize(
    "chosen",
    [("p001", "p000"), ("p000", "p000"), ("p000",), ("p000", "p002"), ("p000", "p999"), ("p000", "p001", "p003")],
)
def test_neighbours_that_were_not_drawn_are_refused(
    make_sum: Any, monkeypatch: pytest.MonkeyPatch, chosen: tuple[str, ...]
) -> None:
    monkeypatch.setattr(messages, "graph_of", lambda partners, dishonest: Graph(partners, degree=2, threshold=2))
    world = make_sum(6)
    with pytest.raises(ProtocolError, match="drew no 2 neighbours of the cohort, in order"):
        world.coordinator.take_keys(CHEAT, keys_of(world, CHEAT, chosen=chosen))
    world.coordinator.take_keys(CHEAT, keys_of(world, CHEAT, chosen=("p000", "p001")))
    for name in world.names:
        if name != CHEAT:
            world.take("advertise", name, world.ask("advertise", name))
    world.close("advertise")
    keys = tuple(
        one if one.partner != CHEAT else keys_of(world, CHEAT, chosen=chosen) for one in world.told["share"].keys
    )
    with pytest.raises(ProtocolError, match=f"partner {CHEAT} drew"):
        world.ask("share", "p005", messages.Roster(keys=keys))


def shares_as(world: Any, name: str, seeds: dict[int, bytes], keys: dict[int, bytes], seed: bytes) -> Shares:
    """What a partner shares that may say one thing and commit to another, consistently towards every holder."""
    one, session = world.partners[name], world.coordinator._session
    sealed, commitments = {}, {}
    for point, holder in enumerate(world.names, start=1):
        if holder != name:
            sealed[holder] = seal(one._sealing_key(name, holder), seeds[point] + keys[point], session)
        commitments[holder] = (
            share_commitment(session, SEED, name, holder, seeds[point]),
            share_commitment(session, MASK_KEY, name, holder, keys[point]),
        )
    place = world.names.index(name) + 1
    one._held[name] = seeds[place] + keys[place]
    return Shares(sealed=sealed, commitments=commitments, seed_commitment=seed_commitment(session, name, seed))


OUTSIDE = bytes([255] * 32)


@pytest.mark.parametrize("cheat", ["another seed", "a broken polynomial", "no field elements"])
def test_a_seed_that_does_not_open_names_its_owner_and_nobody_else(make_sum: Any, cheat: str) -> None:
    world = make_sum(4).until("share")
    honest = {name: world.ask("share", name) for name in world.names}
    seed, points = world.partners[CHEAT]._seed, range(1, 5)
    seeds = shamir.split(seed, list(points), world.terms.threshold)
    keys = shamir.split(world.partners[CHEAT]._mask_private, list(points), world.terms.threshold)
    match cheat:
        case "another seed":
            seeds = shamir.split(shamir.draw(), list(points), world.terms.threshold)
        case "a broken polynomial":
            seeds[1] = shamir.draw()
        case _:
            seeds[1] = OUTSIDE
    honest[CHEAT] = shares_as(world, CHEAT, seeds, keys, seed)
    for name, shares in honest.items():
        world.take("share", name, shares)
    world.close("share")
    for step in world.STEPS[2:]:
        world.step(step)
    with pytest.raises(QuorumError, match=f"shared out by {CHEAT}\n.*ask without them"):
        world.coordinator.total()
    assert world.coordinator.spoilers == {CHEAT}


@pytest.mark.parametrize("cheat", ["another key", "no field elements"])
def test_a_mask_key_of_a_lost_partner_that_does_not_open_names_its_owner(make_sum: Any, cheat: str) -> None:
    world = make_sum(4).until("share")
    honest = {name: world.ask("share", name) for name in world.names}
    one = world.partners[CHEAT]
    seeds = shamir.split(one._seed, [1, 2, 3, 4], 3)
    keys = shamir.split(shamir.draw(), [1, 2, 3, 4], 3)
    if cheat != "another key":
        keys = dict.fromkeys(keys, OUTSIDE)
    honest[CHEAT] = shares_as(world, CHEAT, seeds, keys, one._seed)
    for name, shares in honest.items():
        world.take("share", name, shares)
    world.close("share")
    for step in world.STEPS[2:]:
        world.step(step, [name for name in world.names if name != CHEAT])
    with pytest.raises(QuorumError, match=f"shared out by {CHEAT}"):
        world.coordinator.total()
    assert world.coordinator.spoilers == {CHEAT}


def test_shares_for_others_than_its_holders_are_refused(make_sum: Any) -> None:
    world = make_sum(4).until("share")
    good = world.ask("share", CHEAT)
    pair, sealed = good.commitments["p000"], good.sealed["p000"]
    for wrong in (
        {"sealed": {**good.sealed, CHEAT: sealed}},
        {"sealed": {**good.sealed, "p999": sealed}},
        {"sealed": {"p000": sealed}},
        {"commitments": {**good.commitments, "p999": pair}},
        {"commitments": {"p000": pair}},
    ):
        with pytest.raises(ProtocolError, match="shares for others than its neighbours"):
            world.coordinator.take_shares(CHEAT, good.model_copy(update=wrong))
    world.coordinator.take_shares(CHEAT, good)
    with pytest.raises(ProtocolError, match="stranger, or twice"):
        world.coordinator.take_shares(CHEAT, good)
    with pytest.raises(ProtocolError, match="stranger, or twice"):
        world.coordinator.take_shares("p999", good)


def test_a_masked_vector_that_is_none_is_not_added(make_sum: Any) -> None:
    world = make_sum(4).until("mask")
    good, other = world.ask("mask", CHEAT), world.ask("mask", "p000")
    for wrong in (good[:-1], good + b"\x00", good[:-1] + bytes([good[-1] | 0xF0]), good[:64]):
        with pytest.raises(ProtocolError, match="the masked vector"):
            world.coordinator.take_masked(CHEAT, wrong)
    for wrong in (b"", good[:63], bytes(64) + good[64:], other[:64] + good[64:], good[64:], good[1:]):
        with pytest.raises(ProtocolError, match="secagg-shared: the signature"):
            world.coordinator.take_masked(CHEAT, wrong)
    assert not world.coordinator._sum.any()
    world.coordinator.take_masked(CHEAT, good)
    for name in (CHEAT, "p999"):
        with pytest.raises(ProtocolError, match="stranger, or twice"):
            world.coordinator.take_masked(name, good)


def test_a_vector_masked_towards_others_than_all_who_shared_is_not_added(make_sum: Any) -> None:
    world = make_sum(6, attempt=3).until("mask")
    session, key = world.coordinator._session, world.keys[CHEAT]
    good = world.ask("mask", CHEAT)
    for purpose, values in (
        ("secagg-shared", messages.shared_signed(session, CHEAT, world.names[:-1])),
        ("secagg-shared", messages.shared_signed(session, CHEAT, (*world.names, "p999"))),
        ("secagg-shared", messages.shared_signed(session, "p000", world.names)),
        ("secagg-shared", messages.shared_signed(bytes(32), CHEAT, world.names)),
        ("secagg-survivors", messages.shared_signed(session, CHEAT, world.names)),
    ):
        with pytest.raises(ProtocolError, match="secagg-shared: the signature"):
            world.coordinator.take_masked(CHEAT, base64.b64decode(key.sign(purpose, values)) + good[64:])
    assert not world.coordinator._sum.any()
    signed = base64.b64decode(key.sign("secagg-shared", messages.shared_signed(session, CHEAT, world.names)))
    assert signed == good[:64]
    world.coordinator.take_masked(CHEAT, good)


def test_a_forged_or_second_confirmation_is_refused(make_sum: Any) -> None:
    world = make_sum(4).until("confirm")
    answers = {name: world.ask("confirm", name) for name in world.names}
    with pytest.raises(ProtocolError, match="secagg-survivors: the signature"):
        world.coordinator.take_confirmation(CHEAT, answers["p000"])
    world.coordinator.take_confirmation(CHEAT, answers[CHEAT])
    for name in (CHEAT, "p999"):
        with pytest.raises(ProtocolError, match="stranger, or twice"):
            world.coordinator.take_confirmation(name, answers[CHEAT])


def test_a_wrong_share_costs_its_sender_alone_the_turn(make_sum: Any) -> None:
    world = make_sum(4)
    for step in world.STEPS[:4]:
        world.step(step, world.names if step in ("advertise", "share") else [n for n in world.names if n != "p000"])
    good = {name: world.ask("reveal", name) for name in ("p001", "p002", "p003")}
    told = good[CHEAT]
    for wrong, words in (
        ({"seeds": {**told.seeds, "p001": bytes(32)}}, "a share of p001 is not the one"),
        ({"mask_keys": {"p000": bytes(32)}}, "a share of p000 is not the one"),
        ({"seeds": {**told.seeds, "p000": bytes(32)}}, "shares of others"),
        ({"mask_keys": {"p001": told.seeds["p001"]}}, "shares of others"),
    ):
        with pytest.raises(ProtocolError, match=words) as found:
            world.coordinator.take_revealed(CHEAT, told.model_copy(update=wrong))
        assert not any(share.hex() in str(found.value) for share in told.seeds.values())
    for name, answer in good.items():
        world.coordinator.take_revealed(name, answer)  # the right one still counts
    assert world.terms.least == 3
    with pytest.raises(ProtocolError, match="stranger, or twice"):
        world.coordinator.take_revealed("p001", good["p001"])
    with pytest.raises(ProtocolError, match="stranger, or twice"):
        world.coordinator.take_revealed("p000", Revealed(seeds={}, mask_keys={}))
    assert np.array_equal(world.coordinator.total(), world.plain(good))
    assert not world.coordinator.spoilers


def test_one_who_reveals_nothing_good_is_made_up_for_by_the_others(make_sum: Any) -> None:
    world = make_sum(6).until("reveal")
    for name in world.names[:5]:
        world.take("reveal", name, world.ask("reveal", name))
    assert np.array_equal(world.coordinator.total(), world.plain(world.names))


@pytest.mark.parametrize("kind", ["seeds", "mask_keys"])
def test_a_share_may_be_missing_where_others_are_enough(make_sum: Any, kind: str) -> None:
    """Whoever could not open one reveals the rest."""
    world = make_sum(7)
    for step in world.STEPS[:4]:
        world.step(step, world.names if step in ("advertise", "share") else world.names[1:])
    for name in world.names[1:]:
        told = world.ask("reveal", name)
        if name == CHEAT:
            one = dict(getattr(told, kind))
            one.pop("p001" if kind == "seeds" else "p000")
            told = told.model_copy(update={kind: one})
        world.take("reveal", name, told)
    assert np.array_equal(world.coordinator.total(), world.plain(world.names[1:]))
    assert not world.coordinator.spoilers


@pytest.mark.parametrize("lost", [(), (CHEAT,)])
@pytest.mark.parametrize("garbage", ["seals", "commitments"])
def test_seals_that_nobody_can_open_make_their_owner_the_spoiler(
    make_sum: Any, garbage: str, lost: tuple[str, ...]
) -> None:
    """Nobody else is lost, or ends its sum; of the owner too few hold a share, and it alone is named."""
    world = make_sum(6).until("share")
    for name in world.names:
        told = world.ask("share", name)
        if name == CHEAT and garbage == "seals":
            told = told.model_copy(update={"sealed": {holder: bytes(80) for holder in told.sealed}})
        elif name == CHEAT:
            told = told.model_copy(update={"commitments": dict.fromkeys(told.commitments, (bytes(32), bytes(32)))})
        world.take("share", name, told)
    world.close("share")
    left = [name for name in world.names if name not in lost]
    if garbage == "commitments" and not lost:
        world.step("mask", left)
        world.step("confirm", left)
        for name in left:  # its own share, too, is not what it committed to: its turn alone is lost by that
            told = world.ask("reveal", name)
            if name == CHEAT:
                with pytest.raises(ProtocolError, match=f"a share of {CHEAT} is not the one"):
                    world.coordinator.take_revealed(name, told)
            else:
                world.take("reveal", name, told)
    else:
        for step in world.STEPS[2:]:
            world.step(step, left)
    with pytest.raises(QuorumError, match=f"as they were shared out by {CHEAT}\n.*ask without them"):
        world.coordinator.total()
    assert world.coordinator.spoilers == {CHEAT}


@pytest.mark.parametrize(
    ("n", "dishonest", "most"), [(3, 0, 1), (3, 1, 1), (6, 1, 1), (7, 1, 2), (7, 3, 3), (10, 1, 3)]
)
def test_who_reveals_too_little_loses_its_turn_and_makes_nobody_a_spoiler(
    make_sum: Any, n: int, dishonest: int, most: int
) -> None:
    """Else one partner, where just enough reveal, would have all honest ones excluded."""
    world = make_sum(n, dishonest=dishonest).until("reveal")
    assert world.terms.most_missing == most
    told = {name: world.ask("reveal", name) for name in world.names[: world.terms.least]}
    for left in range(n - most):
        seeds = dict(list(told[CHEAT].seeds.items())[:left])
        with pytest.raises(ProtocolError, match=f"shares of {n - left} partners are missing"):
            world.coordinator.take_revealed(CHEAT, told[CHEAT].model_copy(update={"seeds": seeds}))
    for name, answer in told.items():
        if name != CHEAT:
            world.take("reveal", name, answer)
    with pytest.raises(QuorumError, match="holders of shares of"):
        world.coordinator.total()
    assert not world.coordinator.spoilers
    seeds = dict(list(told[CHEAT].seeds.items())[most:])
    world.coordinator.take_revealed(CHEAT, told[CHEAT].model_copy(update={"seeds": seeds}))


def test_seals_that_few_cannot_open_cost_nobody_anything(make_sum: Any) -> None:
    world = make_sum(7).until("share")
    for name in world.names:
        told = world.ask("share", name)
        if name == CHEAT:
            told = told.model_copy(update={"sealed": {**told.sealed, "p000": bytes(80), "p006": bytes(80)}})
        world.take("share", name, told)
    world.close("share")
    for step in world.STEPS[2:]:
        world.step(step)
    assert np.array_equal(world.coordinator.total(), world.plain(world.names))


def test_a_sum_is_opened_once(make_sum: Any) -> None:
    """A second time the masks would be taken off what has none."""
    world = make_sum(4)
    assert np.array_equal(world.run(), world.plain(world.names))
    with pytest.raises(ProtocolError, match="opened before"):
        world.coordinator.total()


def test_too_few_shares_open_nothing(make_sum: Any) -> None:
    world = make_sum(6).until("reveal")
    for name in world.names[:4]:
        world.take("reveal", name, world.ask("reveal", name))
    before = world.coordinator._sum.copy()
    with pytest.raises(QuorumError, match="4 holders of shares of p000 are left, 5 are needed"):
        world.coordinator.total()
    assert np.array_equal(before, world.coordinator._sum)
    world.take("reveal", "p004", world.ask("reveal", "p004"))  # nothing was spoilt by having looked
    assert np.array_equal(world.coordinator.total(), world.plain(world.names))


@pytest.mark.parametrize("quorum", [1, 6])
@pytest.mark.parametrize("step", ["advertise", "share", "mask", "confirm"])
def test_no_step_ends_with_fewer_than_the_terms_least(make_sum: Any, step: str, quorum: int) -> None:
    """Two thirds, or the privacy plan's quorum where that is more."""
    world = make_sum(6, quorum=quorum).until(step)
    least = max(5, quorum)
    for name in world.names[: least - 1]:
        world.take(step, name, world.ask(step, name))
    with pytest.raises(QuorumError, match=f"{least - 1} partners .*, {least} are needed"):
        world.close(step)
    world.take(step, world.names[least - 1], world.ask(step, world.names[least - 1]))
    world.close(step)


def test_a_partner_whose_neighbours_are_gone_shares_nothing(make_sum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "graph_of", lambda partners, dishonest: Graph(partners, degree=2, threshold=2))
    world = make_sum(7)
    sent = {name: world.ask("advertise", name) for name in world.names}
    gone = sent["p006"].chosen[0]
    for name in set(world.names) - {gone}:
        world.take("advertise", name, sent[name])
    world.close("advertise")
    with pytest.raises(ProtocolError, match="too few of this partner's neighbours"):
        world.ask("share", "p006")


def test_session_and_confirmations_are_bound_to_all_that_must_be_agreed(make_sum: Any) -> None:
    world = make_sum(4).until("share")
    roster = world.told["share"]
    fewer = roster.model_copy(update={"keys": roster.keys[:3]})
    other = make_sum(4, attempt=2).terms
    assert len({world.terms.session(roster), world.terms.session(fewer), other.session(roster)}) == 3
    session, names = world.terms.session(roster), world.names
    values = [
        messages.survivors_signed(session, "p000", names, names[:3]),
        messages.survivors_signed(session, "p001", names, names[:3]),
        messages.survivors_signed(bytes(32), "p000", names, names[:3]),
        messages.survivors_signed(session, "p000", names[:3], names[:3]),
        messages.survivors_signed(session, "p000", names, names),
        messages.shared_signed(session, "p000", names),
        messages.shared_signed(session, "p001", names),
        messages.shared_signed(session, "p000", names[:3]),
    ]
    assert all(one != two for place, one in enumerate(values) for two in values[:place])
