"""Flower's records to our types and back. What comes from outside is measured before it is decoded.

One array a message: Flower carries each as an object of its own, with a call each on every hop, and asks again after a
second for one that is not there yet. 75 of them took 7 s on the loopback, one takes a tenth of one.
"""

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from numpy.typing import NDArray

from fedrec.errors import ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState, Shape
from fedrec.wire import FLAT, SAFETENSORS, RoundPlan, Signature, UpdateHeader

# numpy's file format, version 1.0, as Flower's arrays carry it.
_MAGIC = b"\x93NUMPY\x01\x00"


def adapter_record(state: AdapterState) -> ArrayRecord:
    """The adapter as a safetensors file; made once a round, shared by its questions."""
    content = state.to_bytes()
    return ArrayRecord({SAFETENSORS: Array("float32", (len(content),), SAFETENSORS, content)})


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
    if not isinstance(arrays, ArrayRecord) or arrays.keys() != {FLAT}:
        raise ProtocolError(f"adapter_delta is not one array {FLAT!r}")
    read = UpdateHeader.from_record(dict(header))
    signature = Signature.from_record(dict(signed)).value if signed else ""
    return read, AdapterDelta(_split(_decode(arrays[FLAT], shapes), shapes)), signature


def _decode(array: Array, shapes: Mapping[str, Shape]) -> NDArray[np.float32]:
    """All numbers in numpy's file format, which is compared, not parsed: the sender writes what it likes."""
    shape = (sum(map(prod, shapes.values())),)
    start = 10 + int.from_bytes(array.data[8:10], "little")
    header, body = array.data[10:start], array.data[start:]
    expected = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    if array.data[:8] != _MAGIC or header.rstrip() != expected or len(body) != 4 * prod(shape):
        raise ProtocolError(f"adapter_delta is not {shape[0]} float32 numbers, those of the round's part")
    return np.frombuffer(body, "<f4").astype(np.float32, copy=False)


def _split(flat: NDArray[np.float32], shapes: Mapping[str, Shape]) -> dict[str, NDArray[np.float32]]:
    """In name order, as the sender joined them; `delta_hash` is over names and shapes too."""
    tensors, start = dict[str, NDArray[np.float32]](), 0
    for name in sorted(shapes):
        end = start + prod(shapes[name])
        tensors[name] = flat[start:end].reshape(shapes[name])
        start = end
    return tensors
