"""Flower's records to our types and back. What comes from outside is measured before it is decoded."""

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from numpy.typing import NDArray

from fedrec.errors import ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState, Shape
from fedrec.wire import RoundPlan, Signature, UpdateHeader

# numpy's file format, version 1.0, as Flower's arrays carry it.
_MAGIC = b"\x93NUMPY\x01\x00"


def adapter_record(state: AdapterState) -> ArrayRecord:
    """The adapter as Flower carries it; made once a round, shared by its questions."""
    return ArrayRecord({name: Array(tensor) for name, tensor in state.tensors.items()})


def questions(plan: RoundPlan, adapter: ArrayRecord, nodes: Iterable[int], signature: str = "") -> list[Message]:
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
    header, arrays = content.get("header"), content.get("adapter_delta")
    signed = content.get("signature", ConfigRecord())
    extra = content.keys() - {"header", "adapter_delta", "signature"}
    if extra or not isinstance(header, ConfigRecord) or not isinstance(signed, ConfigRecord):
        raise ProtocolError("the answer is not a header and an adapter_delta")
    if not isinstance(arrays, ArrayRecord) or arrays.keys() != shapes.keys():
        raise ProtocolError("the answer has other tensors than the round's part")
    read = UpdateHeader.from_record(dict(header))
    signature = Signature.from_record(dict(signed)).value if signed else ""
    tensors = {name: _decode(arrays[name], name, shape) for name, shape in shapes.items()}
    return read, AdapterDelta(tensors), signature


def _decode(array: Array, name: str, shape: Shape) -> NDArray[np.float32]:
    """One tensor in numpy's file format, which is compared, not parsed: the sender writes what it likes."""
    start = 10 + int.from_bytes(array.data[8:10], "little")
    header, body = array.data[10:start], array.data[start:]
    expected = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple(shape)}, }}".encode()
    if array.data[:8] != _MAGIC or header.rstrip() != expected or len(body) != 4 * prod(shape):
        raise ProtocolError(f"{name!r} is not a float32 array of shape {list(shape)}")
    return np.frombuffer(body, "<f4").reshape(shape).astype(np.float32, copy=False)
