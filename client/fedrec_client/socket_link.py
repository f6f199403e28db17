"""A worker's Unix socket: frames of JSON and safetensors, never pickle; a secret opens it."""

import json
import struct
from collections.abc import Mapping
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from fedrec.errors import BudgetError, ConfigError, FedrecError, PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.signing import read_secret
from fedrec.wire import RoundPlan, SumHeader, UpdateHeader
from fedrec_client.link import SignedSumAnswer

SOCKET, SECRET = "worker.sock", "worker.secret"
_LENGTH = struct.Struct(">I")
# Refusals whose words may travel on; of anything else only the class does.
_REFUSALS: Mapping[str, type[FedrecError]] = {c.__name__: c for c in (BudgetError, PrivacyError, ProtocolError)}


class SocketDesk:
    """The desk of another process.

    Args:
        folder: holds `worker.sock` and `worker.secret`, for this user alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def answer(self, plan: RoundPlan, state: AdapterState, signature: str) -> tuple[UpdateHeader, AdapterDelta, str]:
        """See `Desk`. Raises ProtocolError if no worker listens, too."""
        head, body = self.ask({"ask": "round", "plan": plan.to_record(), "signature": signature}, state.to_bytes())
        return UpdateHeader.from_record(head["header"]), AdapterDelta.from_bytes(body), str(head["signature"])

    def add(self, header: SumHeader, body: bytes, state: AdapterState | None, signature: str) -> SignedSumAnswer:
        """See `Desk`. Raises ProtocolError if no worker listens, too."""
        told = {"ask": "sum", "header": header.to_record(), "signature": signature, "body_bytes": len(body)}
        head, content = self.ask(told, body + (state.to_bytes() if state else b""))
        return SumHeader.from_record(head["header"]), content, str(head["signature"])

    def status(self) -> dict[str, Any]:
        """What the worker tells its own people. Raises ProtocolError if no worker listens."""
        return self.ask({"ask": "status"}, b"")[0]

    def ask(self, head: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """One question and its answer."""
        with _connect(self._folder) as connection:
            connection.send_bytes(pack(head, body))
            try:
                answer, content = unpack(connection.recv_bytes())
            except EOFError as error:
                raise ProtocolError("the partner's worker ended while it worked") from error
        if "refused" in answer:
            raise _REFUSALS.get(answer["refused"], _WorkerError)(answer["problem"])
        return answer, content


class _WorkerError(FedrecError):
    """The worker failed in a way whose words stay there."""


def pack(head: Mapping[str, Any], body: bytes) -> bytes:
    """Length, JSON, body."""
    text = json.dumps(head, allow_nan=False).encode()
    return _LENGTH.pack(len(text)) + text + body


def unpack(frame: bytes) -> tuple[dict[str, Any], bytes]:
    """The inverse. Raises ProtocolError: no frame of ours."""
    try:
        end = _LENGTH.size + _LENGTH.unpack_from(frame)[0]
        head = json.loads(frame[_LENGTH.size : end])
    except (struct.error, ValueError) as error:
        raise ProtocolError("a frame on the worker's socket cannot be read") from error
    if not isinstance(head, dict):
        raise ProtocolError("a frame on the worker's socket cannot be read")
    return head, frame[end:]


def _connect(folder: Path) -> Connection:
    try:
        return Client(str(folder / SOCKET), "AF_UNIX", authkey=read_secret(folder / SECRET))
    except (OSError, EOFError, ConfigError) as error:
        raise ProtocolError("the partner's worker does not listen", "start it") from error
