"""The thin Flower ClientApp: unpack a round, ask the partner's worker, pack the answer. It never sees a row."""

import logging
import traceback

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fedrec.errors import FedrecError, PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterState
from fedrec.wire import ADAPTER, ADAPTER_DELTA, ANSWER, BODY, QUESTION, SIGNATURE, SUM, RoundPlan, SumHeader
from fedrec_client.link import connect

# Flower's Error wants a number; ours are above the range that Flower uses itself.
ERROR_CODE_OFFSET = 1000
_log = logging.getLogger(__name__)

app = ClientApp()


class _LastAdapter:
    """The adapter of the last message, decoded: thousands of partners in one process are sent the very same bytes.

    In earnest Flower starts this app anew for each message, and there is none. Bytes cannot change, so that the same
    objects are the same adapter.
    """

    def __init__(self) -> None:
        self._content = b""
        self._state: AdapterState | None = None

    def read(self, content: bytes) -> AdapterState:
        if self._state is None or content is not self._content:
            self._state, self._content = AdapterState.from_bytes(content), content
        return self._state


_adapter = _LastAdapter()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer one round. A refusal goes back as an error with its class and reason, which name no private value.

    Of any other failure only the class leaves: its words may quote what is private, and Flower would send them.
    """
    desk = str(context.node_config["worker"])
    try:
        if SUM in message.content:
            return Message(content=RecordDict({SUM: _add(message, desk)}), reply_to=message)
        return Message(content=RecordDict({ANSWER: _answer(message, desk)}), reply_to=message)
    except (PrivacyError, ProtocolError) as error:
        reason = f"{type(error).__name__}: {error.problem}"
        return Message(error=Error(ERROR_CODE_OFFSET + error.exit_code, reason), reply_to=message)
    except Exception as error:  # noqa: BLE001  # see above
        _log.error("a round failed here: %s", _in_own_words(error))
        code = error.exit_code if isinstance(error, FedrecError) else FedrecError.exit_code
        return Message(error=Error(ERROR_CODE_OFFSET + code, type(error).__name__), reply_to=message)


def _answer(message: Message, desk: str) -> ConfigRecord:
    plan, state, signature = _read(message)
    header, adapter_delta, own = connect(desk).answer(plan, state, signature)
    numbers = b"".join(tensor.astype("<f4", copy=False).tobytes() for tensor in adapter_delta.tensors.values())
    signed = {SIGNATURE: own} if own else {}
    return ConfigRecord({**header.to_record(), **signed, ADAPTER_DELTA: numbers})


def _add(message: Message, desk: str) -> ConfigRecord:
    """One step of a sum under masks; of its five, the third has the adapter with it."""
    record = message.content[SUM]
    values = dict(record) if isinstance(record, ConfigRecord) else {}
    body, content, signature = values.pop(BODY, None), values.pop(ADAPTER, b""), values.pop(SIGNATURE, "")
    if not isinstance(body, bytes) or not isinstance(content, bytes) or not isinstance(signature, str):
        raise ProtocolError("the message is no step of a sum", "both sides must run the same version of fedrec")
    state = _adapter.read(content) if content else None
    header, answer, own = connect(desk).add(SumHeader.from_record(values), body, state, signature)
    return ConfigRecord({**header.to_record(), **({SIGNATURE: own} if own else {}), BODY: answer})


def _read(message: Message) -> tuple[RoundPlan, AdapterState, str]:
    """Plan, adapter and signature of a question, none of which is checked here. Raises ProtocolError: not one."""
    record = message.content.get(QUESTION)
    values = dict(record) if isinstance(record, ConfigRecord) else {}
    content, signature = values.pop(ADAPTER, None), values.pop(SIGNATURE, "")
    if not isinstance(content, bytes) or not isinstance(signature, str):
        raise ProtocolError("the message is no question", "both sides must run the same version of fedrec")
    return RoundPlan.from_record(values), _adapter.read(content), signature


def _in_own_words(error: Exception) -> str:
    """For the partner's own log: our errors whole, of others the class and where it happened, but not their words."""
    if isinstance(error, FedrecError):
        return f"{type(error).__name__}: {error}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {frame.filename}:{frame.lineno}"
