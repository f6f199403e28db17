"""Flower's records to our types and back. What comes from outside is measured before it is decoded.

All tensors of a message are one value of one record. Flower carries each array as three objects, with a call each on
every hop, and asks again after a second for one that is not there yet: 75 objects took 7 s on the loopback.
"""

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from numpy.typing import NDArray

from fedrec.errors import ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState, Shape
from fedrec.wire import FLAT, SAFETENSORS, RoundPlan, Signature, UpdateHeader


def adapter_record(state: AdapterState) -> ConfigRecord:
    """The adapter as a safetensors file; made once a round, shared by its questions."""
    return ConfigRecord({SAFETENSORS: state.to_bytes()})


def questions(plan: RoundPlan, adapter: ConfigRecord, nodes: Iterable[int], signature: str = "") -> list[Message]:
    """A round for each node. Flower drops a question, and the answer to it, after the round's deadline."""
    asked = {"plan": ConfigRecord({**plan.to_record()})}
    if signature:
        asked["signature"] = ConfigRecord({**Signature(signature).to_record()})
    return [
        Message(
            RecordDict({**asked, "adapter": adapter}),
            node,
            MessageType.TRAIN,
            ttl=plan.deadline_s,
            group_id=str(plan.round),
        )
        for node in nodes
    ]


def read_answer(content: RecordDict, shapes: Mapping[str, Shape]) -> tuple[UpdateHeader, AdapterDelta, str]:
    """Header, difference and signature of an answer; the signature is not checked here, and may be empty.

    Args:
        content: from outside.
        shapes: of the round's part. A tensor of any other name or size is not decoded.
    Raises: ProtocolError: in words, without values.
    """
    header, delta = content.get("header"), content.get("adapter_delta")
    signed = content.get("signature", ConfigRecord())
    extra = content.keys() - {"header", "adapter_delta", "signature"}
    if extra or not isinstance(header, ConfigRecord) or not isinstance(signed, ConfigRecord):
        raise ProtocolError("the answer is not a header and an adapter_delta")
    numbers = delta.get(FLAT) if isinstance(delta, ConfigRecord) and delta.keys() == {FLAT} else None
    if not isinstance(numbers, bytes):
        raise ProtocolError(f"adapter_delta is not one value {FLAT!r}")
    read = UpdateHeader.from_record(dict(header))
    signature = Signature.from_record(dict(signed)).value if signed else ""
    return read, AdapterDelta(_split(numbers, shapes)), signature


def _split(content: bytes, shapes: Mapping[str, Shape]) -> dict[str, NDArray[np.float32]]:
    """Little-endian float32, in name order, as the sender joined them; `delta_hash` is over names and shapes too."""
    n_numbers = sum(map(prod, shapes.values()))
    if len(content) != 4 * n_numbers:
        raise ProtocolError(f"adapter_delta is not {n_numbers} float32 numbers, those of the round's part")
    flat = np.frombuffer(content, "<f4").astype(np.float32, copy=False)
    tensors, start = dict[str, NDArray[np.float32]](), 0
    for name in sorted(shapes):
        end = start + prod(shapes[name])
        tensors[name] = flat[start:end].reshape(shapes[name])
        start = end
    return tensors
