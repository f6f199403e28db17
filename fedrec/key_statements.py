"""What vouches for a new key: the old one's signature, so that nobody has to be told anew whom to trust."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedrec.errors import ProtocolError
from fedrec.signing import SigningKey, fingerprint, verify

_MOST = 1000
_BY_ANOTHER_WAY = "compare fingerprints with the coordinator by another way before anything else"


@dataclass(frozen=True)
class KeyStatement:
    """The coordinator's word that another key signs for it from now on. Public to partners.

    Attributes:
        sequence: 1 for the first; goes up by one.
        old_key, new_key: Ed25519, hex.
        date: of the change, ISO 8601; for people, no check depends on it.
        signature: the old key's, over the others.
    """

    sequence: int
    old_key: str
    new_key: str
    date: str
    signature: str

    @classmethod
    def make(cls, sequence: int, old: SigningKey, new_key: bytes, date: str) -> "KeyStatement":
        """Signed."""
        values = {"sequence": sequence, "old_key": old.public.hex(), "new_key": new_key.hex(), "date": date}
        return cls(sequence, old.public.hex(), new_key.hex(), date, old.sign("next-key", values))

    def check(self) -> None:
        """Raises ProtocolError: the old key did not sign this."""
        values = {name: value for name, value in asdict(self).items() if name != "signature"}
        verify(bytes.fromhex(self.old_key), "next-key", values, self.signature)


def read_statements(values: object) -> tuple[KeyStatement, ...]:
    """A chain from outside, every signature checked. Raises ProtocolError: it is none, with what to do.

    >>> old, new = SigningKey(bytes(32)), SigningKey(bytes([1] * 32))
    >>> chain = (KeyStatement.make(1, old, new.public, "2026-01-01"),)
    >>> read_statements([asdict(one) for one in chain]) == chain
    True
    """
    if not isinstance(values, list) or len(values) > _MOST:
        raise ProtocolError("the coordinator's chain of keys cannot be read", _BY_ANOTHER_WAY)
    chain = tuple(_read(value) for value in values)
    for place, statement in enumerate(chain):
        follows = place == 0 or chain[place - 1].new_key == statement.old_key
        again = statement.new_key in {chain[0].old_key, *(one.new_key for one in chain[:place])}
        if statement.sequence != place + 1 or not follows or again:
            raise ProtocolError(f"the coordinator's chain of keys breaks at {place + 1}", _BY_ANOTHER_WAY)
        statement.check()
    return chain


def chain_from(pinned: bytes, chain: Sequence[KeyStatement]) -> tuple[KeyStatement, ...]:
    """The part of a chain that leads on from a key.

    Raises: ProtocolError: the chain does not know the key, so that nothing vouches for the others.
    """
    keys = keys_of(chain)
    if not keys:
        return ()
    if pinned not in keys:
        words = f"the coordinator's chain of keys does not lead on from {fingerprint(pinned)}"
        raise ProtocolError(words, _BY_ANOTHER_WAY)
    return tuple(chain[keys.index(pinned) :])


def keys_of(chain: Sequence[KeyStatement]) -> list[bytes]:
    """Every key of a chain, oldest first; none for an empty one."""
    firsts = [chain[0].old_key] if chain else []
    return [bytes.fromhex(key) for key in (*firsts, *(one.new_key for one in chain))]


def partner_keys(name: str, *, old_key: str, signing_key: str, node_key: str, time: str) -> dict[str, Any]:
    """What a partner's old and new signing key both sign when the partner changes its keys."""
    return {"partner": name, "old_key": old_key, "signing_key": signing_key, "node_key": node_key, "time": time}


def _read(value: object) -> KeyStatement:
    refusal = ProtocolError("the coordinator's chain of keys cannot be read", _BY_ANOTHER_WAY)
    if not isinstance(value, Mapping):
        raise refusal
    try:
        read = KeyStatement(**value)
        sizes = {len(bytes.fromhex(key)) for key in (read.old_key, read.new_key)}
    except (TypeError, ValueError) as error:
        raise refusal from error
    texts = (read.old_key, read.new_key, read.date, read.signature)
    is_sound = sizes == {32} and type(read.sequence) is int and all(type(text) is str for text in texts)
    if not is_sound or any(key != key.lower() for key in (read.old_key, read.new_key)):
        raise refusal
    return read
