"""Flower's records to our types and back. What comes from outside is measured before it is decoded.

A message is one record. Flower carries each record as an object of its own and each array as three, with a call on
every hop, and asks again after a second for one that is not there yet: 75 objects took 7 s on the loopback.
"""

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from numpy.typing import NDArray

from fedrec.errors import ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState, Shape
from fedrec.wire import (
    ADAPTER,
    ADAPTER_DELTA,
    ANSWER,
    BODY,
    MAX_SIGNATURE,
    QUESTION,
    SIGNATURE,
    SUM,
    RoundPlan,
    SumHeader,
    UpdateHeader,
)


def question(plan: RoundPlan, state: AdapterState, signature: str = "") -> ConfigRecord:
    """A round as Flower carries it; made once an attempt, shared by its messages."""
    signed = {SIGNATURE: signature} if signature else {}
    return ConfigRecord({**plan.to_record(), **signed, ADAPTER: state.to_bytes()})


def questions(plan: RoundPlan, record: ConfigRecord, nodes: Iterable[int]) -> list[Message]:
    """A round for each node. Flower drops a question, and the answer to it, after the round's deadline."""
    ttl, group = plan.deadline_s, str(plan.round)
    return [Message(RecordDict({QUESTION: record}), n, MessageType.TRAIN, ttl=ttl, group_id=group) for n in nodes]


def read_answer(content: RecordDict, shapes: Mapping[str, Shape]) -> tuple[UpdateHeader, AdapterDelta, str]:
    """Header, difference and signature of an answer; the signature is not checked here, and may be empty.

    Args:
        content: from outside.
        shapes: of the round's part. Numbers that are not exactly so many are not decoded.
    Raises: ProtocolError: in words, without values.
    """
    record = content.get(ANSWER)
    if content.keys() != {ANSWER} or not isinstance(record, ConfigRecord):
        raise ProtocolError("the message is not one record, an answer")
    values = dict(record)
    numbers, signature = values.pop(ADAPTER_DELTA, None), values.pop(SIGNATURE, "")
    if not isinstance(numbers, bytes):
        raise ProtocolError("adapter_delta is missing, or not bytes")
    if not isinstance(signature, str) or len(signature) > MAX_SIGNATURE:
        raise ProtocolError("the signature is no text, or too long")
    return UpdateHeader.from_record(values), AdapterDelta(_split(numbers, shapes)), signature


def read_sum_answer(content: RecordDict) -> tuple[SumHeader, bytes, str]:
    """Header, body and signature of a partner's step; neither hash nor signature is checked here.

    Raises: ProtocolError: in words, without values.
    """
    record = content.get(SUM)
    if content.keys() != {SUM} or not isinstance(record, ConfigRecord):
        raise ProtocolError("the message is not one record, a step of a sum")
    values = dict(record)
    body, signature = values.pop(BODY, None), values.pop(SIGNATURE, "")
    if not isinstance(body, bytes):
        raise ProtocolError("the body is missing, or not bytes")
    if not isinstance(signature, str) or len(signature) > MAX_SIGNATURE:
        raise ProtocolError("the signature is no text, or too long")
    return SumHeader.from_record(values), body, signature


def numbers_of(shapes: Mapping[str, Shape]) -> int:
    """How many numbers a part has."""
    return sum(map(prod, shapes.values()))


def _split(content: bytes, shapes: Mapping[str, Shape]) -> dict[str, NDArray[np.float32]]:
    """Little-endian float32, in name order, as the sender joined them; `delta_hash` is over names and shapes too."""
    n_numbers = numbers_of(shapes)
    if len(content) != 4 * n_numbers:
        raise ProtocolError(f"adapter_delta is not {n_numbers} float32 numbers, those of the round's part")
    return split_numbers(np.frombuffer(content, "<f4").astype(np.float32, copy=False), shapes)


def split_numbers(flat: NDArray[np.float32], shapes: Mapping[str, Shape]) -> dict[str, NDArray[np.float32]]:
    """Numbers in name order as the tensors that they are."""
    tensors, start = dict[str, NDArray[np.float32]](), 0
    for name in sorted(shapes):
        end = start + prod(shapes[name])
        tensors[name] = flat[start:end].reshape(shapes[name])
        start = end
    return tensors
