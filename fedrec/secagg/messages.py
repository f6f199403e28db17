"""What partners and coordinator say to each other while they add up; JSON, and read strictly: it comes from outside."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from fedrec.errors import ProtocolError
from fedrec.secagg.graph import LEAST_PARTNERS, Graph, graph_of, two_thirds
from fedrec.secagg.masks import KEY_BYTES, VERSION
from fedrec.wire import RoundPlan

# Two shares, sealed.
_SEALED_BYTES = 2 * KEY_BYTES + 16
_MOST = 100_000


def _decoded(value: Any) -> Any:
    """Canonical base64 alone: nothing may be written in two ways, since it is hashed as it stands."""
    if not isinstance(value, str):
        return value
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is no base64") from error
    if base64.b64encode(content).decode() != value:
        raise ValueError("is no canonical base64")
    return content


def _canonical_text(value: str) -> str:
    _decoded(value)
    return value


def _fixed(n_bytes: int) -> Any:
    """Exactly so many bytes, in base64."""
    return Annotated[
        bytes,
        BeforeValidator(_decoded),
        Field(min_length=n_bytes, max_length=n_bytes),
        PlainSerializer(lambda value: base64.b64encode(value).decode(), return_type=str),
    ]


Bytes32, Sealed = _fixed(KEY_BYTES), _fixed(_SEALED_BYTES)
Name = Annotated[str, Field(min_length=1, max_length=200)]
Signature = Annotated[str, Field(min_length=88, max_length=88), AfterValidator(_canonical_text)]
Names = Annotated[tuple[Name, ...], Field(max_length=_MOST)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return _canonical(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a message. Raises ProtocolError: naming what is missing, unknown or malformed, without values."""
        try:
            return cls.model_validate(json.loads(content, object_pairs_hook=_each_once))
        except (ValueError, RecursionError) as error:  # pydantic's is a ValueError
            found = error.errors() if isinstance(error, ValidationError) else []
            problems = sorted({f"{_place(item['loc'])}: {item['type']}" for item in found}) or ["is no JSON"]
            raise ProtocolError.of_all(problems[:5], "both sides must run the same fedrec", cls.__name__) from error


class Opening(_Message):
    """Coordinator, step 1: what is to be added up, and who was asked.

    Attributes:
        plan: the round's.
        cohort: names in order.
    """

    plan: dict[str, StrictInt | StrictFloat | StrictStr]
    cohort: Names


class Keys(_Message):
    """Partner, step 1: keys of this sum alone, and whom it drew as neighbours; under its long-lived signature.

    Attributes:
        partner: who signs.
        mask_key: X25519, for the masks with others. Its private half is shared out.
        share_key: X25519, for sealing shares.
        chosen: neighbours by lot; none in the complete graph.
        signature: Ed25519 over all of it and the sum's context.
    """

    partner: Name
    mask_key: Bytes32  # type: ignore[valid-type]  # pydantic's way
    share_key: Bytes32  # type: ignore[valid-type]
    chosen: Names
    signature: Signature

    def signed(self, context: bytes) -> dict[str, Any]:
        """What the signature is over."""
        return keys_signed(context, self.partner, self.mask_key, self.share_key, self.chosen)


class Roster(_Message):
    """Coordinator, step 2: everybody's signed keys, in the order of names."""

    keys: Annotated[tuple[Keys, ...], Field(max_length=_MOST)]

    @cached_property
    def by_name(self) -> dict[str, Keys]:
        """Keys by partner."""
        return {keys.partner: keys for keys in self.keys}


class Shares(_Message):
    """Partner, step 2: a sealed pair of shares for every holder, and what they are checked against later.

    Attributes:
        sealed: holder -> shares of self mask's seed and of the mask key, for the holder's eyes alone.
        commitments: holder, the owner too where it is one -> hashes of the two shares, so that a wrong one shows.
        seed_commitment: hash of the seed.
    """

    sealed: dict[Name, Sealed]  # type: ignore[valid-type]
    commitments: dict[Name, tuple[Bytes32, Bytes32]]  # type: ignore[valid-type]
    seed_commitment: Bytes32  # type: ignore[valid-type]


class Inbox(_Message):
    """Coordinator, step 3, with the adapter: who shared, and what the others sealed for this partner.

    Attributes:
        shared: names in order.
        sealed: sender -> as in `Shares`.
        commitments: sender -> as in `Shares`.
    """

    shared: Names
    sealed: dict[Name, Sealed]  # type: ignore[valid-type]
    commitments: dict[Name, tuple[Bytes32, Bytes32]]  # type: ignore[valid-type]


class Survivors(_Message):
    """Coordinator, step 4: whose masked vectors are in the sum, and that they were masked as this partner was told.

    Attributes:
        survivors: names in order.
        signatures: of every survivor whose shares this partner holds: over who shared, as that survivor was told.
    """

    survivors: Names
    signatures: dict[Name, Signature]


class Confirmation(_Message):
    """Partner, step 4: its signature over the survivors, once a sum."""

    signature: Signature


class Confirmations(_Message):
    """Coordinator, step 5: proof that everybody was told the same survivors."""

    signatures: dict[Name, Signature]


class Revealed(_Message):
    """Partner, step 5: of each survivor a share of its self mask's seed, of each lost one a share of its mask key."""

    seeds: dict[Name, Bytes32] = Field(repr=False)  # type: ignore[valid-type]
    mask_keys: dict[Name, Bytes32] = Field(repr=False)  # type: ignore[valid-type]


@dataclass(frozen=True)
class SumTerms:
    """What is added up, by whom, in how many bits: all that both sides derive for themselves. Public.

    Attributes:
        plan: the round's; its quorum is the least number of survivors that privacy needs.
        cohort: names of all who were asked, in order.
        numbers: of a vector.
        bits: of a number in the sum.
        grain: what 1 stands for; see `IntegerCode`.
        dishonest: partners that may work with the coordinator, as the privacy plan says.
    Raises: ProtocolError: names that are not in order, or a quorum that they cannot reach.
    """

    plan: RoundPlan
    cohort: tuple[str, ...] = field(repr=False)
    numbers: int
    bits: int
    grain: float = 1.0
    dishonest: int = 0

    def __post_init__(self) -> None:
        if list(self.cohort) != sorted(set(self.cohort)):
            raise ProtocolError("the cohort's names must be in order, each once")
        if len(self.cohort) < LEAST_PARTNERS:
            raise ProtocolError("a sum of fewer than 3 partners hides nothing", "have at least 3")
        if not self.least <= len(self.cohort):
            raise ProtocolError(f"a quorum of {self.plan.quorum} cannot be had from {len(self.cohort)} partners")

    @cached_property
    def graph(self) -> Graph:
        """Who hides behind whom."""
        return graph_of(len(self.cohort), self.dishonest)

    @property
    def least(self) -> int:
        """Survivors, and signatures over them, without which nothing is opened."""
        return max(two_thirds(len(self.cohort)), self.plan.quorum)

    @property
    def threshold(self) -> int:
        """Shares that open a secret."""
        return self.least if self.graph.is_complete else self.graph.threshold

    @property
    def most_missing(self) -> int:
        """Owners of whom an honest holder may have no share to reveal: as many as may have sealed nothing to it."""
        return max(len(self.cohort) - two_thirds(len(self.cohort)), self.dishonest, 1)

    @cached_property
    def context(self) -> bytes:
        """Hash of protocol version, run, round, attempt, parent adapter, privacy plan, cohort and sizes."""
        values = {
            "plan": {name: _exact(value) for name, value in self.plan.to_record().items()},
            "cohort": list(self.cohort),
            "numbers": self.numbers,
            "bits": self.bits,
            "grain": _exact(self.grain),
            "degree": self.graph.degree,
            "threshold": self.threshold,
            "least": self.least,
        }
        return digest("context", _canonical(values))

    def session(self, roster: Roster) -> bytes:
        """Hash of the context and everybody's signed keys: what all keys are derived for."""
        return digest("roster", self.context, roster.to_bytes())


def keys_signed(
    context: bytes, partner: str, mask_key: bytes, share_key: bytes, chosen: tuple[str, ...]
) -> dict[str, Any]:
    """What a partner's signature over its keys is over."""
    keys = {"mask_key": mask_key.hex(), "share_key": share_key.hex()}
    return {"context": context.hex(), "partner": partner, **keys, "chosen": list(chosen)}


def shared_signed(session: bytes, partner: str, shared: tuple[str, ...]) -> Mapping[str, Any]:
    """What a partner's signature beside its masked vector is over: towards whom it masked."""
    return {"session": session.hex(), "partner": partner, "shared": list(shared)}


def survivors_signed(
    session: bytes, partner: str, shared: tuple[str, ...], survivors: tuple[str, ...]
) -> Mapping[str, Any]:
    """What a confirmation is over."""
    return {**shared_signed(session, partner, shared), "survivors": list(survivors)}


def share_commitment(session: bytes, kind: str, owner: str, holder: str, share: bytes) -> bytes:
    """A share is as random as a key, so that its hash tells nothing of it."""
    return digest("share", session, kind.encode(), owner.encode(), holder.encode(), share)


def seed_commitment(session: bytes, owner: str, seed: bytes) -> bytes:
    """Of a self mask's seed."""
    return digest("seed", session, owner.encode(), seed)


def digest(what: str, *pieces: bytes) -> bytes:
    """SHA-256 over version, purpose and pieces, each after its length."""
    hashed = hashlib.sha256(VERSION)
    for piece in (what.encode(), *pieces):
        hashed.update(len(piece).to_bytes(8, "big") + piece)
    return hashed.digest()


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _exact(value: object) -> object:
    """Floats as their bits, which no language writes differently."""
    return value.hex() if isinstance(value, float) else value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names differ."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice")
    return values


def _place(location: tuple[int | str, ...]) -> str:
    """Field names are ours, other keys are the sender's and stay out."""
    return str(location[0]) if location else "message"
