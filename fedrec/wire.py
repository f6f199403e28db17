"""What travels between coordinator and partner besides tensors, and who may see each field of it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

from fedrec.errors import ProtocolError

Mode = Literal["none", "inspect", "secagg"]
Disclosure = Literal["public", "charged"]
Record = dict[str, int | float | str | bool]

# A message is one record: the fields of a plan or header, and beside them: `adapter`, a safetensors file;
# `adapter_delta`, the part's numbers, little-endian float32, joined in the order of names; `signature` is Ed25519 over
# plan or header (`fedrec.signing`), base64, and absent inside one process, where nobody else could have written it.
QUESTION, ANSWER = "question", "answer"
ADAPTER, ADAPTER_DELTA, SIGNATURE = "adapter", "adapter_delta", "signature"
MAX_SIGNATURE = 100

# Where vectors are added up under masks: the fields of a `SumHeader`; `body`, a message of `fedrec.secagg.messages` or
# a masked vector; and with step `mask` the adapter.
SUM, BODY = "sum", "body"
SumStep = Literal["advertise", "share", "mask", "confirm", "reveal"]

# Longer texts have no business in a header.
MAX_TEXT = 200


@dataclass(frozen=True)
class RoundPlan:
    """One question to the cohort. The coordinator asks; the partner's own plan and ledger decide. Public.

    Attributes:
        run: name of the run.
        round, attempt: from 1.
        part: which tensors may move.
        local_epochs, local_steps: work of one answer; epochs without privacy, steps with it.
        learning_rate: of the partner's steps, > 0.
        parent_hash: of the adapter that travels with the plan.
        privacy_plan_hash: of the `PrivacyPlan` that the partner must have agreed to; "none" in mode `none`.
        quorum: good replies that the round needs; in secagg mode the noise is sized for them.
        deadline_s: after it an answer counts no more.
        seed: of what may be random without privacy; never of noise.
    Raises: ProtocolError: naming every field out of range.
    """

    run: str
    round: int
    attempt: int
    part: str
    local_epochs: int
    local_steps: int
    learning_rate: float
    parent_hash: str
    privacy_plan_hash: str
    mode: Mode
    quorum: int
    deadline_s: float
    seed: int

    def __post_init__(self) -> None:
        counts = ("round", "attempt", "local_epochs", "local_steps", "quorum")
        problems = [f"{name} must be at least 1" for name in counts if getattr(self, name) < 1]
        positive = ("learning_rate", "deadline_s")
        problems += [f"{n} must be finite and > 0" for n in positive if not 0 < getattr(self, n) < math.inf]
        if not self.learning_rate <= 1e30:
            problems.append("learning_rate must be within float32")
        if self.mode not in get_args(Mode):
            problems.append(f"mode must be one of {', '.join(get_args(Mode))}")
        if not 0 <= self.seed < 2**63:
            problems.append("seed must be 0 to 2**63 - 1")
        _refuse("RoundPlan", problems + _bad_texts(self))

    def to_record(self) -> Record:
        """As a flat record that Flower carries."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> "RoundPlan":
        """Read a record. Raises ProtocolError naming every field that is missing, unknown or malformed."""
        return cls(**_values(cls, record))


@dataclass(frozen=True)
class UpdateHeader:
    """What a partner says about its answer. There is no example count: nothing here can scale noise away.

    Attributes:
        run, round, attempt, plan_hash: as asked; plan_hash is that of the `PrivacyPlan`.
        partner: who answers.
        delta_hash: of the adapter_delta; the partner's ledger holds the same.
    Raises: ProtocolError: naming every field out of range.

    >>> UpdateHeader.from_record({"run": "demo"})
    Traceback (most recent call last):
    ...
    fedrec.errors.ProtocolError: UpdateHeader: 5 problems
      - attempt: missing
      - delta_hash: missing
      - partner: missing
      - plan_hash: missing
      - round: missing
      remedy: both sides must run the same version of fedrec
    """

    run: str
    round: int
    attempt: int
    partner: str
    delta_hash: str
    plan_hash: str

    def __post_init__(self) -> None:
        problems = [f"{name} must be at least 1" for name in ("round", "attempt") if getattr(self, name) < 1]
        _refuse("UpdateHeader", problems + _bad_texts(self))

    def to_record(self) -> Record:
        """As a flat record that Flower carries."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> "UpdateHeader":
        """Read a record. Raises ProtocolError naming every field that is missing, unknown or malformed."""
        return cls(**_values(cls, record))


@dataclass(frozen=True)
class SumHeader:
    """Goes before every message of a sum under masks, in both directions, and is what is signed of it.

    Attributes:
        run, round, attempt: whose sum it is.
        step: of five.
        sender: `coordinator`, or the partner's name.
        body_hash: SHA-256 of the body, hex.
    Raises: ProtocolError: naming every field out of range.
    """

    run: str
    round: int
    attempt: int
    step: SumStep
    sender: str
    body_hash: str

    def __post_init__(self) -> None:
        problems = [f"{name} must be at least 1" for name in ("round", "attempt") if getattr(self, name) < 1]
        if self.step not in get_args(SumStep):
            problems.append(f"step must be one of {', '.join(get_args(SumStep))}")
        _refuse("SumHeader", problems + _bad_texts(self))

    @property
    def number(self) -> int:
        """Of the step, from 1."""
        return get_args(SumStep).index(self.step) + 1

    def to_record(self) -> Record:
        """As a flat record that Flower carries."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> "SumHeader":
        """Read a record. Raises ProtocolError naming every field that is missing, unknown or malformed."""
        return cls(**_values(cls, record))


# Charged: computed from interactions, so paid for in the ledger before it leaves. Public: known without them.
FIELD_DISCLOSURE: Final[Mapping[str, Disclosure]] = {
    "RoundPlan.run": "public",
    "RoundPlan.round": "public",
    "RoundPlan.attempt": "public",
    "RoundPlan.part": "public",
    "RoundPlan.local_epochs": "public",
    "RoundPlan.local_steps": "public",
    "RoundPlan.learning_rate": "public",
    "RoundPlan.parent_hash": "public",
    "RoundPlan.privacy_plan_hash": "public",
    "RoundPlan.mode": "public",
    "RoundPlan.quorum": "public",
    "RoundPlan.deadline_s": "public",
    "RoundPlan.seed": "public",
    "adapter": "public",
    "UpdateHeader.run": "public",
    "UpdateHeader.round": "public",
    "UpdateHeader.attempt": "public",
    "UpdateHeader.partner": "public",
    "UpdateHeader.plan_hash": "public",
    "UpdateHeader.delta_hash": "charged",
    "adapter_delta": "charged",
    # Of a sum under masks. Keys, sealed shares, signatures and revealed shares are random; the masked vector is uniform
    # to whoever lacks the masks, and what the sum gives away is paid for.
    "SumHeader.run": "public",
    "SumHeader.round": "public",
    "SumHeader.attempt": "public",
    "SumHeader.step": "public",
    "SumHeader.sender": "public",
    "SumHeader.body_hash": "charged",
    "body": "charged",
    "Keys.partner": "public",
    "Keys.mask_key": "public",
    "Keys.share_key": "public",
    "Keys.chosen": "public",
    "Keys.signature": "public",
    "Shares.sealed": "public",
    "Shares.commitments": "public",
    "Shares.seed_commitment": "public",
    "Confirmation.signature": "public",
    "Revealed.seeds": "public",
    "Revealed.mask_keys": "public",
    "signature": "charged",  # a partner's is over delta_hash
    # A refusal's words name public figures (plan, budget, what is left of it); of other failures only the class leaves.
    "Error.code": "public",
    "Error.reason": "public",
    # Once, when a partner enrols; and in the headers of its calls to the gateway.
    "Enrolment.name": "public",
    "Enrolment.secret": "public",  # the coordinator's own, from the invitation
    "Enrolment.node_key": "public",
    "Enrolment.signing_key": "public",
    # When a partner puts other keys in place of its own; signatures over public values alone.
    "Rotation.name": "public",
    "Rotation.old_key": "public",
    "Rotation.signing_key": "public",
    "Rotation.node_key": "public",
    "Rotation.time": "public",
    "Rotation.old_signature": "public",
    "Rotation.new_signature": "public",
    # A wish for a round is these headers alone. Its time is public by declaration: `serving/learning/scheduler.py` says
    # what it may tell, and lets the hour show at most.
    "fedrec-partner": "public",
    "fedrec-time": "public",
    "fedrec-signature": "public",
    # Flower's envelope. The times are public by declaration alone: how long a partner works may depend on how much
    # data it has, which docs/threat-model.md says is open.
    "Metadata.created_at": "public",
    "Metadata.delivered_at": "public",
    "Metadata.dst_node_id": "public",
    "Metadata.dst_task_id": "public",
    "Metadata.group_id": "public",
    "Metadata.message_id": "public",
    "Metadata.message_type": "public",
    "Metadata.reply_to_message_id": "public",
    "Metadata.run_id": "public",
    "Metadata.src_node_id": "public",
    "Metadata.src_task_id": "public",
    "Metadata.ttl": "public",
    "PushMessagesRequest.clientapp_runtime_list": "public",  # how long the worker took; as the times above
}


def _values(
    kind: type[RoundPlan] | type[UpdateHeader] | type[SumHeader], record: Mapping[str, object]
) -> dict[str, Any]:
    """A record's values if names and types are exactly those of the message. A Literal travels as text."""
    types = {f.name: f.type if f.type in (int, float) else str for f in fields(kind)}
    problems = [f"{name}: missing" for name in sorted(types.keys() - record.keys())]
    unknown = len(record.keys() - types.keys())
    problems += [f"{unknown} unknown fields"] if unknown else []  # not named: the sender chose the names
    values: dict[str, Any] = {}
    for name in sorted(types.keys() & record.keys()):
        value = record[name]
        if types[name] is float and type(value) is int:
            value = float(value)
        if type(value) is not types[name]:
            problems.append(f"{name}: must be {types[name].__name__}, is {type(value).__name__}")
        values[name] = value
    _refuse(kind.__name__, problems)
    return values


def _bad_texts(message: RoundPlan | UpdateHeader | SumHeader) -> list[str]:
    texts = {name: value for name, value in vars(message).items() if isinstance(value, str)}
    return [
        f"{name} must be 1 to {MAX_TEXT} printable characters"
        for name, text in texts.items()
        if not (0 < len(text) <= MAX_TEXT and text.isprintable())
    ]


def _refuse(message: str, problems: list[str]) -> None:
    if problems:
        raise ProtocolError.of_all(problems, "both sides must run the same version of fedrec", message)
