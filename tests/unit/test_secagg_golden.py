"""A whole sum, pinned: replayed by the code, and recomputed from its secrets by a second, small implementation.

`python tests/unit/test_secagg_golden.py` writes the file anew: on purpose alone, with a new protocol version.
"""

import base64
import hashlib
import hmac
import itertools
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedrec.secagg.coordinator import CoordinatorSum
from fedrec.secagg.messages import (
    Confirmation,
    Confirmations,
    Inbox,
    Keys,
    Revealed,
    Roster,
    Shares,
    SumTerms,
    Survivors,
)
from fedrec.secagg.partner import PartnerSum
from fedrec.signing import SigningKey
from fedrec.wire import RoundPlan

FILE = Path(__file__).parents[1] / "golden/secagg-1.json"
NAMES, LOST, NUMBERS, BITS = ("books", "films", "games", "music"), "films", 5, 20
GRAIN, DISHONEST = 0.0009765625, 1
VECTORS = {"books": [1, -2, 3, 0, 70_000], "films": [9, 9, 9, 9, 9], "games": [-500, 4, 0, 1, -1]}
VECTORS |= {"music": [12, 0, -131_072, 2, 131_071]}
PLAN = {
    "run": "films/1",
    "round": 3,
    "attempt": 2,
    "part": "head",
    "local_epochs": 1,
    "local_steps": 1,
    "learning_rate": 0.1,
    "parent_hash": "ab" * 32,
    "privacy_plan_hash": "cd" * 32,
    "mode": "secagg",
    "quorum": 3,
    "deadline_s": 60.0,
    "seed": 7,
}
ABOUT = {
    "what": "One sum of four partners in five numbers of 20 bits; films is lost at step mask. All bytes are hex.",
    "entropy": "Of partner NAME: SHA-256 of 'fedrec golden NAME' and a counter of 8 bytes, big-endian, from 0, block "
    "after block. Read in this order: share key (32), mask key (32), seed (32), then the coefficients of the seed's "
    "polynomial and of the mask key's, highest power first (threshold - 1 each); what is no field element is skipped.",
    "identities": "Ed25519 private keys: SHA-256 of 'fedrec golden identity NAME'.",
    "plan, cohort, numbers, bits, grain, dishonest, vectors": "What is added up. The plan's quorum is the noise's "
    "quorum of 2 and the dishonest one.",
    "context, session": "SHA-256 over version, purpose and pieces; docs/secagg.md.",
    "secrets": "By partner, as drawn: share_key, mask_key, seed.",
    "pair_keys, self_keys": "Of the streams; pairs as 'A|B'. first_words: of each stream, uint32.",
    "messages": "By step and partner, the body as it travels, as text; of step mask in hex, the "
    "signature over who shared (64 bytes) and the packed vector. told: of the coordinator, by step; of steps mask and "
    "confirm by partner.",
    "revealed": "By owner and holder, the shares that come out in the last step.",
    "survivors, total": "Who is in the sum, and the sum.",
}


class Stream:
    """As `ABOUT` says."""

    def __init__(self, seed: str) -> None:
        self._seed, self._counter, self._left = seed.encode(), 0, b""

    def __call__(self, n_bytes: int) -> bytes:
        while len(self._left) < n_bytes:
            self._left += hashlib.sha256(self._seed + self._counter.to_bytes(8, "big")).digest()
            self._counter += 1
        taken, self._left = self._left[:n_bytes], self._left[n_bytes:]
        return taken


def identity(name: str) -> bytes:
    return hashlib.sha256(f"fedrec golden identity {name}".encode()).digest()


def played() -> dict[str, Any]:
    """The sum by the code, and everything that is seen and kept of it."""
    terms = SumTerms(RoundPlan.from_record(PLAN), NAMES, NUMBERS, BITS, GRAIN, DISHONEST)
    keys = {name: SigningKey(identity(name)) for name in NAMES}
    public = {name: key.public for name, key in keys.items()}
    partners = {name: PartnerSum(name, keys[name], public, terms, Stream(f"fedrec golden {name}")) for name in NAMES}
    secrets = {
        name: {
            "share_key": one._share_private.hex(),
            "mask_key": one._mask_private.hex(),
            "seed": one._seed.hex(),
        }
        for name, one in partners.items()
    }
    total, seen = CoordinatorSum(terms, public), dict[str, dict[str, str]]()
    seen["advertise"] = {name: one.keys().to_bytes().decode() for name, one in partners.items()}
    for name, text in seen["advertise"].items():
        total.take_keys(name, Keys.from_bytes(text.encode()))
    roster = total.close_keys()
    seen["share"] = {name: one.shares(roster).to_bytes().decode() for name, one in partners.items()}
    for name, text in seen["share"].items():
        total.take_shares(name, Shares.from_bytes(text.encode()))
    total.close_shares()
    alive, seen["mask"] = [name for name in NAMES if name != LOST], {}
    inboxes = {name: total.inbox(name).to_bytes().decode() for name in NAMES}
    for name in alive:
        partners[name].check_inbox(Inbox.from_bytes(inboxes[name].encode()))
        content = partners[name].mask(np.array(VECTORS[name]))
        seen["mask"][name] = content.hex()
        total.take_masked(name, content)
    survivors = total.close_masked()
    shown = {name: total.survivors_for(name).to_bytes().decode() for name in survivors}
    seen["confirm"] = {
        name: partners[name].confirm(Survivors.from_bytes(text.encode())).to_bytes().decode()
        for name, text in shown.items()
    }
    for name, text in seen["confirm"].items():
        total.take_confirmation(name, Confirmation.from_bytes(text.encode()))
    signed = total.close_confirmations()
    seen["reveal"] = {name: partners[name].reveal(signed).to_bytes().decode() for name in alive}
    for name, text in seen["reveal"].items():
        total.take_revealed(name, Revealed.from_bytes(text.encode()))
    told: dict[str, Any] = {"share": roster.to_bytes().decode(), "reveal": signed.to_bytes().decode()}
    told |= {"mask": inboxes, "confirm": shown}
    result = {"survivors": list(survivors), "total": total.total().tolist()}
    return {"secrets": secrets, "messages": seen, "told": told, **result}


# The second implementation: nothing of fedrec.secagg below this line but in `test_the_code_...`.

VERSION, PRIME = b"fedrec-secagg/1", 2**256 - 189


def canonical(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def c99(value: Any) -> Any:
    """A float's bits as C99 writes them; a normal one, which all of a sum are."""
    if not isinstance(value, float):
        return value
    bits = int.from_bytes(struct.pack(">d", value), "big")
    exponent, fraction = (bits >> 52) % 2048 - 1023, bits % 2**52
    return f"{'-' if bits >> 63 else ''}0x1.{fraction:013x}p{exponent:+d}"


def hashed(what: str, *pieces: bytes) -> bytes:
    content = VERSION
    for piece in (what.encode(), *pieces):
        content += len(piece).to_bytes(8, "big") + piece
    return hashlib.sha256(content).digest()


def hkdf(secret: bytes, salt: bytes, *roles: str) -> bytes:
    info = VERSION + b"".join(len(role).to_bytes(2, "big") + role.encode() for role in roles)
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")


def x25519(private: str, public: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(private)).exchange(
        X25519PublicKey.from_public_bytes(public)
    )


def public_of(private: str) -> bytes:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(private)).public_key().public_bytes_raw()


def stream_of(key: bytes) -> list[int]:
    content = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(4 * NUMBERS))
    return [int.from_bytes(content[4 * i : 4 * i + 4], "little") for i in range(NUMBERS)]


def unpacked(content: bytes) -> list[int]:
    whole = int.from_bytes(content, "little")
    return [(whole >> (BITS * place)) % 2**BITS for place in range(NUMBERS)]


def opened(shares: dict[int, bytes]) -> bytes:
    """Lagrange at zero, in fractions modulo the prime."""
    total = 0
    for point, share in shares.items():
        weight = 1
        for other in shares.keys() - {point}:
            weight = weight * other * pow(other - point, -1, PRIME) % PRIME
        total += weight * int.from_bytes(share, "big")
    return (total % PRIME).to_bytes(32, "big")


def b64(content: str) -> bytes:
    return base64.b64decode(content, validate=True)


def signed(name: str, purpose: str, values: Any, signature: str) -> None:
    public = Ed25519PrivateKey.from_private_bytes(identity(name)).public_key().public_bytes_raw()
    content = f"fedrec/{purpose}/1\n".encode() + canonical(values)
    Ed25519PublicKey.from_public_bytes(public).verify(b64(signature), content)


def derived(secrets: Any, told: Any) -> dict[str, Any]:
    """Context, session, keys and first words, from plan, secrets and roster alone."""
    least = max(2 * len(NAMES) // 3 + 1, PLAN["quorum"])
    exact = {name: c99(value) for name, value in PLAN.items()}
    values = {"plan": exact, "cohort": list(NAMES), "numbers": NUMBERS, "bits": BITS, "grain": c99(GRAIN)}
    values |= {"degree": len(NAMES) - 1, "threshold": least, "least": least}
    context = hashed("context", canonical(values))
    session = hashed("roster", context, told["share"].encode())
    pairs = {
        (one, other): hkdf(
            x25519(secrets[one]["mask_key"], public_of(secrets[other]["mask_key"])), session, "mask", one, other
        )
        for one, other in itertools.combinations(NAMES, 2)
    }
    selves = {name: hkdf(bytes.fromhex(secrets[name]["seed"]), session, "self", name) for name in NAMES}
    streams = {f"{one}|{other}": stream_of(key) for (one, other), key in pairs.items()}
    streams |= {name: stream_of(key) for name, key in selves.items()}
    return {
        "context": context.hex(),
        "session": session.hex(),
        "pair_keys": {f"{one}|{other}": key.hex() for (one, other), key in pairs.items()},
        "self_keys": {name: key.hex() for name, key in selves.items()},
        "first_words": {name: words[:3] for name, words in streams.items()},
    }


def written() -> dict[str, Any]:
    """All of the file."""
    values = played()
    what = {"plan": PLAN, "cohort": list(NAMES), "numbers": NUMBERS, "bits": BITS, "grain": GRAIN}
    what |= {"dishonest": DISHONEST, "vectors": VECTORS}
    revealed: dict[str, dict[str, str]] = {}
    for holder, text in values["messages"]["reveal"].items():
        told = json.loads(text)
        for owner, share in {**told["seeds"], **told["mask_keys"]}.items():
            revealed.setdefault(owner, {})[holder] = b64(share).hex()
    return {"about": ABOUT, **what, **derived(values["secrets"], values["told"]), **values, "revealed": revealed}


def file() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))


def test_the_code_still_says_every_byte_of_the_file() -> None:
    assert written() == file()


def test_secrets_are_the_entropy_that_the_file_describes() -> None:
    for name in NAMES:
        stream, found = Stream(f"fedrec golden {name}"), file()["secrets"][name]
        assert [found[kind] for kind in ("share_key", "mask_key", "seed")] == [stream(32).hex() for _ in range(3)]


def test_context_session_keys_and_streams_follow_from_plan_and_secrets() -> None:
    told = file()
    assert told | derived(told["secrets"], told["told"]) == told
    roster = json.loads(told["told"]["share"])["keys"]
    assert [keys["partner"] for keys in roster] == list(NAMES)
    for keys in roster:
        secrets = told["secrets"][keys["partner"]]
        assert canonical(keys).decode() == told["messages"]["advertise"][keys["partner"]]
        publics = {kind: public_of(secrets[kind]) for kind in ("mask_key", "share_key")}
        assert {kind: b64(keys[kind]) for kind in publics} == publics
        values = {"context": told["context"], "partner": keys["partner"], "chosen": []}
        values |= {kind: key.hex() for kind, key in publics.items()}
        signed(keys["partner"], "secagg-keys", values, keys["signature"])


def test_shares_are_sealed_committed_and_on_the_polynomials() -> None:
    told = file()
    session = bytes.fromhex(told["session"])
    for owner in NAMES:
        stream, message = Stream(f"fedrec golden {owner}"), json.loads(told["messages"]["share"][owner])
        stream(64)
        seed, mask = bytes.fromhex(told["secrets"][owner]["seed"]), told["secrets"][owner]["mask_key"]
        assert stream(32) == seed
        assert b64(message["seed_commitment"]) == hashed("seed", session, owner.encode(), seed)
        shares = {}
        for kind, secret in (("seed", seed), ("mask-key", bytes.fromhex(mask))):
            second, first = (int.from_bytes(stream(32), "big") for _ in range(2))
            for point, holder in enumerate(NAMES, start=1):
                value = (int.from_bytes(secret, "big") + first * point + second * point**2) % PRIME
                shares[kind, holder] = value.to_bytes(32, "big")
        for holder in NAMES:
            pair = shares["seed", holder], shares["mask-key", holder]
            told_of = [b64(one) for one in message["commitments"][holder]]
            names = session, owner.encode(), holder.encode()
            assert told_of == [
                hashed("share", names[0], kind, names[1], names[2], share)
                for kind, share in zip((b"seed", b"mask-key"), pair, strict=True)
            ]
            if holder == owner:
                assert holder not in message["sealed"]
                continue
            secrets = told["secrets"]
            agreed = x25519(secrets[owner]["share_key"], public_of(secrets[holder]["share_key"]))
            key = hkdf(agreed, session, "share", owner, holder)
            assert AESGCM(key).decrypt(bytes(12), b64(message["sealed"][holder]), session) == b"".join(pair)
            assert json.loads(told["told"]["mask"][holder])["sealed"][owner] == message["sealed"][holder]
            if holder in told["revealed"][owner]:
                share = pair[1] if owner == LOST else pair[0]
                assert told["revealed"][owner][holder] == share.hex()


def test_masked_vectors_are_vectors_and_streams() -> None:
    told = file()
    for name, content in told["messages"]["mask"].items():
        words = np.array(told["vectors"][name], object)
        words = words + stream_of(bytes.fromhex(told["self_keys"][name]))
        for other in set(NAMES) - {name}:
            key = bytes.fromhex(told["pair_keys"]["|".join(sorted((name, other)))])
            words = words + (1 if name < other else -1) * np.array(stream_of(key), object)
        assert [int(word) % 2**BITS for word in words] == unpacked(bytes.fromhex(content)[64:])


def test_with_every_masked_vector_stands_a_signature_over_who_shared() -> None:
    """And with the survivors the signatures of all whose shares one holds: here of all others."""
    told = file()
    assert told["messages"]["mask"].keys() == set(told["survivors"])
    for name, content in told["messages"]["mask"].items():
        signature = base64.b64encode(bytes.fromhex(content)[:64]).decode()
        values = {"session": told["session"], "partner": name, "shared": list(NAMES)}
        signed(name, "secagg-shared", values, signature)
        assert json.loads(told["told"]["mask"][name])["shared"] == list(NAMES)
        for other in set(told["survivors"]) - {name}:
            assert json.loads(told["told"]["confirm"][other])["signatures"][name] == signature
    for name, text in told["told"]["confirm"].items():
        message = json.loads(text)
        assert message["survivors"] == told["survivors"]
        assert message["signatures"].keys() == set(told["survivors"]) - {name}
        assert canonical(message).decode() == text


def test_confirmations_are_over_session_partner_sharers_and_survivors() -> None:
    told = file()
    for name, text in told["messages"]["confirm"].items():
        values = {"session": told["session"], "partner": name, "shared": list(NAMES), "survivors": told["survivors"]}
        signed(name, "secagg-survivors", values, json.loads(text)["signature"])
    assert json.loads(told["told"]["reveal"])["signatures"].keys() == set(told["survivors"])


def test_the_sum_follows_from_what_the_coordinator_saw() -> None:
    """Masked vectors and revealed shares alone, and of the secrets none."""
    told = file()
    session = bytes.fromhex(told["session"])
    points = {name: point for point, name in enumerate(NAMES, start=1)}
    found = {
        owner: opened({points[holder]: bytes.fromhex(share) for holder, share in shares.items()})
        for owner, shares in told["revealed"].items()
    }
    assert found[LOST].hex() == told["secrets"][LOST]["mask_key"]
    total = sum((np.array(unpacked(bytes.fromhex(c)[64:]), object) for c in told["messages"]["mask"].values()), 0)
    keys = {keys["partner"]: b64(keys["mask_key"]) for keys in json.loads(told["told"]["share"])["keys"]}
    for name in told["survivors"]:
        total = total - np.array(stream_of(hkdf(found[name], session, "self", name)), object)
        agreed = x25519(found[LOST].hex(), keys[name])
        pair = hkdf(agreed, session, "mask", *sorted((name, LOST)))
        total = total - (1 if name < LOST else -1) * np.array(stream_of(pair), object)
    half = 2 ** (BITS - 1)
    assert [(int(word) + half) % 2**BITS - half for word in total] == told["total"]
    plain = np.sum([VECTORS[name] for name in told["survivors"]], axis=0)
    assert plain.tolist() == told["total"]
    assert told["survivors"] == [name for name in NAMES if name != LOST]


def test_messages_of_the_file_are_read_by_the_code() -> None:
    told = file()
    kinds = {"advertise": Keys, "share": Shares, "confirm": Confirmation, "reveal": Revealed}
    for step, kind in kinds.items():
        for text in told["messages"][step].values():
            assert kind.from_bytes(text.encode()).to_bytes().decode() == text  # type: ignore[attr-defined]
    assert Roster.from_bytes(told["told"]["share"].encode()).by_name.keys() == set(NAMES)
    for kind, texts in ((Inbox, told["told"]["mask"]), (Survivors, told["told"]["confirm"])):
        for text in texts.values():
            assert kind.from_bytes(text.encode()).to_bytes().decode() == text  # type: ignore[attr-defined]
    assert Confirmations.from_bytes(told["told"]["reveal"].encode()).signatures.keys() == set(told["survivors"])


def test_floats_are_written_as_c99_does() -> None:
    assert (c99(0.1), c99(1.0), c99(GRAIN)) == ("0x1.999999999999ap-4", "0x1.0000000000000p+0", "0x1.0000000000000p-10")
    assert all(c99(value) == value.hex() for value in (-3.7, 1e300, 2.0**-300, 60.0))


if __name__ == "__main__":
    FILE.write_text(json.dumps(written(), indent=1) + "\n", encoding="utf-8")
