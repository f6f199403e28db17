"""What a partner keeps to itself, and how strictly messages are read."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from fedrec.errors import FedrecError, ProtocolError
from fedrec.secagg.messages import (
    Confirmation,
    Keys,
    Opening,
    Revealed,
    Roster,
    Shares,
    Survivors,
)

SECRETS = ("_seed", "_mask_private", "_share_private")


def test_no_secret_is_in_a_repr_or_an_error(make_sum: Any) -> None:
    world = make_sum(4)
    secrets = [getattr(one, name) for one in world.partners.values() for name in SECRETS]
    texts: list[str] = []
    for step in world.STEPS:
        texts += [repr(world.partners), str(world.coordinator), repr(world.told), repr(world.terms)]
        texts += _errors(world)
        held = [pair for one in world.partners.values() for pair in one._held.values()]
        secrets += [half for pair in held for half in (pair[:32], pair[32:])]
        world.step(step)
    texts += [repr(world.coordinator), str(world.coordinator.total())[:0]]
    for secret in set(secrets) - {b""}:
        for form in (secret.hex(), repr(secret)[2:-1], str(int.from_bytes(secret, "big"))):
            assert not any(form in text for text in texts if "Revealed(" not in text)


def _errors(world: Any) -> Iterator[str]:
    """What fresh partners and the coordinator say of nonsense."""
    for what in (lambda: world.coordinator.take_keys("x", None), lambda: Roster.from_bytes(b'{"keys": "secret"}')):
        with pytest.raises((FedrecError, AttributeError)) as found:
            what()
        yield str(found.value)
    one = world.partner("p000")
    with pytest.raises(ProtocolError) as refused:
        one.mask(world.vectors["p000"])
    yield str(refused.value) + repr(one)


def test_a_partner_lets_go_of_its_secrets(make_sum: Any) -> None:
    world = make_sum(4).until("confirm")
    assert all(getattr(one, name) == b"" for one in world.partners.values() for name in SECRETS)
    world.step("confirm")
    world.step("reveal")
    assert all(one._held == {} for one in world.partners.values())
    with pytest.raises(ProtocolError):
        world.ask("reveal", "p000")


def test_messages_are_read_strictly_and_without_telling_values() -> None:
    for kind, content in (
        (Keys, b'{"partner": "secret"}'),
        (Survivors, b'{"survivors": ["secret"], "more": 1}'),
        (Survivors, b"secret"),
        (Survivors, b"[" * 100_000),
        (Revealed, b'{"seeds": {"secret": "c2VjcmV0"}, "mask_keys": {}}'),
        (Shares, b'{"sealed": {}, "commitments": {"secret": ["secret"]}, "seed_commitment": "secret"}'),
        (Confirmation, b'{"signature": "secret"}'),
    ):
        with pytest.raises(ProtocolError, match=kind.__name__) as found:
            kind.from_bytes(content)
        assert "secret" not in str(found.value)


def test_what_reads_in_two_ways_is_refused(make_sum: Any) -> None:
    """Messages are hashed and signed as they stand: nothing may be written twice, or in two ways."""
    world = make_sum(4).until("confirm")
    signature = world.told["share"].keys[0].signature
    plan = world.plan.to_record()
    opening = Opening(plan=plan, cohort=world.names).to_bytes()
    assert Opening.from_bytes(opening).to_bytes() == opening
    shares = world.sent["share"]["p000"].to_bytes()
    sealed = json.loads(shares)["seed_commitment"]
    assert sealed.endswith("=")
    loose = sealed[:-2] + chr(ord(sealed[-2]) + 1) + "="  # the same bytes, other left-over bits
    assert base64.b64decode(loose) == base64.b64decode(sealed)
    for kind, content in (
        (Confirmation, f'{{"signature":"{signature}","signature":"{signature}"}}'.encode()),
        (Survivors, f'{{"survivors":[],"signatures":{{"a":"{signature}","a":"{signature}"}}}}'.encode()),
        (Confirmation, f'{{"signature":"{signature[:-3]}{chr(ord(signature[-3]) + 1)}=="}}'.encode()),
        (Confirmation, f'{{"signature":"{signature[:-4]}\\n=="}}'.encode()),
        (Confirmation, '{"signature":"' + 88 * "\u00e4" + '"}'),
        (Shares, shares.replace(sealed.encode(), loose.encode())),
        (Opening, opening.replace(b'"learning_rate":1.0', b'"learning_rate":NaN')),
        (Opening, opening.replace(b'"learning_rate":1.0', b'"learning_rate":1e999')),
        (Opening, opening.replace(b'"quorum":1', b'"quorum":true')),
        (Opening, opening.replace(b'"quorum":1', b'"quorum":null')),
        (Opening, opening.replace(b'"quorum":1', b'"quorum":1,"quorum":1')),
    ):
        content = content.encode() if isinstance(content, str) else content
        assert content not in (opening, shares)
        with pytest.raises(ProtocolError, match=kind.__name__):
            kind.from_bytes(content)


def test_the_context_is_bound_to_all_terms_and_floats_are_exact(make_sum: Any) -> None:
    base = {"n": 4, "numbers": 5, "bits": 20, "grain": 0.1, "dishonest": 0}
    changes: list[dict[str, Any]] = [
        {}, {"n": 5}, {"numbers": 6}, {"bits": 21}, {"grain": 0.1 + 2.0**-56}, {"quorum": 4}, {"learning_rate": 0.5},
        {"learning_rate": 1.0 + 2.0**-52}, {"attempt": 2}, {"round": 2}, {"run": "films/2"}, {"deadline_s": 61.0},
        {"parent_hash": "2" * 64}, {"privacy_plan_hash": "2" * 64}, {"part": "prior"},
    ]  # fmt: skip
    found = [make_sum(**{**base, **change}).terms.context for change in changes]
    assert len(set(found)) == len(found)
    one, many = make_sum(101).terms, make_sum(101, dishonest=11).terms  # another graph
    assert one.context != many.context
    assert (one.graph.is_complete, many.graph.is_complete) == (False, True)
