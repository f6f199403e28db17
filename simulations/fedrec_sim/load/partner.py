"""A partner of a load: a node that connects, beats, asks for work and answers at once with public numbers, signed."""

import asyncio
import random
from dataclasses import dataclass, field
from math import prod

import httpx
import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import (
    HEARTBEAT_BASE_MULTIPLIER,
    HEARTBEAT_CALL_TIMEOUT,
    HEARTBEAT_DEFAULT_INTERVAL,
    HEARTBEAT_RANDOM_RANGE,
)
from flwr.common.serde import message_to_proto
from flwr.proto.fab_pb2 import GetFabRequest, GetFabResponse
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest, GetRunResponse
from flwr.supercore.constant import PULL_BACKOFF_CAP, PULL_INITIAL_BACKOFF
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.retry import exponential
from flwr.supercore.task_identity import TaskIdentity

from fedrec.errors import ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.signing import SigningKey, verify
from fedrec.terms import FederationTerms
from fedrec.wire import ADAPTER, ADAPTER_DELTA, ANSWER, QUESTION, SIGNATURE, RoundPlan, UpdateHeader
from fedrec_sim.load.fleet import FleetClient

# As Flower's node waits after it was told that there is nothing.
_PAUSE_S = 3.0


@dataclass(frozen=True)
class LoadPartner:
    """Answers with 1 in the number that is its own and 0 elsewhere, so that a sum shows whose answer is in it.

    Attributes:
        place: which number, from 0; the part has more than there are partners.
        coordinator: public key under which plans are signed.
    """

    name: str
    place: int
    terms: FederationTerms
    coordinator: bytes
    node_key: ec.EllipticCurvePrivateKey = field(repr=False)
    signing_key: SigningKey = field(repr=False)

    def answer(self, message: Message) -> Message:
        """A good answer to a question. Raises ProtocolError: not the coordinator's, or not whole."""
        record = message.content[QUESTION]
        assert isinstance(record, ConfigRecord)
        values = dict(record)
        content, signature = values.pop(ADAPTER), values.pop(SIGNATURE)
        assert isinstance(content, bytes)
        assert isinstance(signature, str)
        plan = RoundPlan.from_record(values)
        verify(self.coordinator, "round-plan", plan.to_record(), signature)
        if AdapterState.from_bytes(content).hash != plan.parent_hash:
            raise ProtocolError("the adapter is not the parent that the round names")
        adapter_delta = self._adapter_delta(plan.part)
        place = (plan.run, plan.round, plan.attempt)
        header = UpdateHeader(*place, self.name, adapter_delta.hash, plan.privacy_plan_hash)
        own = self.signing_key.sign("answer", header.to_record())
        numbers = b"".join(tensor.tobytes() for tensor in adapter_delta.tensors.values())
        said = ConfigRecord({**header.to_record(), SIGNATURE: own, ADAPTER_DELTA: numbers})
        return Message(RecordDict({ANSWER: said}), reply_to=message)

    def _adapter_delta(self, part: str) -> AdapterDelta:
        tensors, left = {}, self.place
        for name, shape in sorted(self.terms.parts[part].items()):
            tensors[name] = np.zeros(shape, np.float32)
            if 0 <= left < prod(shape):
                tensors[name].flat[left] = 1.0
            left -= prod(shape)
        return AdapterDelta(tensors)


class LoadNode:
    """Does what Flower's SuperNode does, call by call.

    Args:
        partner: whose answers it sends.
        client: signed with the partner's node key.
    """

    def __init__(self, partner: LoadPartner, client: FleetClient) -> None:
        self._partner, self._client = partner, client
        self._node = Node()
        self._runs: set[int] = set()

    async def activate(self) -> None:
        """Connect. Raises httpx.HTTPStatusError: refused."""
        request = ActivateNodeRequest(public_key=self._client.public_key, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        activated = await self._client.call("activate-node", request, ActivateNodeResponse)
        self._node = Node(node_id=activated.node_id)

    async def beat(self) -> None:
        """Tell the SuperLink that it lives, for ever; the first beats of many nodes are spread as they would be."""
        every_s = HEARTBEAT_DEFAULT_INTERVAL - HEARTBEAT_CALL_TIMEOUT
        await asyncio.sleep(random.uniform(0.0, every_s))
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        while True:
            for delay_s in exponential(max_delay=20):
                try:
                    timeout_s = float(HEARTBEAT_CALL_TIMEOUT)
                    await self._client.call_once("send-node-heartbeat", request, SendNodeHeartbeatResponse, timeout_s)
                    break
                except (httpx.TransportError, httpx.HTTPStatusError):
                    await asyncio.sleep(delay_s)
            await asyncio.sleep(every_s * (HEARTBEAT_BASE_MULTIPLIER + random.uniform(*HEARTBEAT_RANDOM_RANGE)))

    async def work(self) -> None:
        """Ask for questions and answer them, for ever. One that cannot be answered is left, as Flower's node does."""
        while True:
            try:
                pulled = await self._client.call(
                    "pull-messages", PullMessagesRequest(node=self._node), PullMessagesResponse
                )
                if pulled.messages_list:
                    await self._answer(pulled)
                    continue
            except (httpx.HTTPStatusError, ProtocolError):  # what comes of it, the coordinator tells: no answer
                pass
            await asyncio.sleep(_PAUSE_S)

    async def _answer(self, pulled: PullMessagesResponse) -> None:
        run, tree = pulled.messages_list[0].metadata.run_id, pulled.message_object_trees[0]
        await self._get_run(run)
        message = await self._pull(run, tree)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run, self._node.node_id
        answer = self._partner.answer(message)
        answer.metadata.__dict__["_message_id"] = answer.object_id
        with no_object_id_recompute():
            tree = get_object_tree(answer)
            contents = {name: found.deflate() for name, found in get_all_nested_objects(answer).items()}
            sent = message_to_proto(remove_content_from_message(answer))
        await self._push(run, sent, tree, contents)

    async def _get_run(self, run: int) -> None:
        """What Flower's node asks once of each run."""
        if run not in self._runs:
            found = await self._client.call("get-run", GetRunRequest(node=self._node, run_id=run), GetRunResponse)
            request = GetFabRequest(node=self._node, hash_str=found.run.fab_hash, run_id=run)
            await self._client.call("get-fab", request, GetFabResponse)
            self._runs.add(run)

    async def _pull(self, run: int, tree: ObjectTree) -> Message:
        names = [one.object_id for one in iterate_object_tree(tree)]
        contents = await asyncio.gather(*(self._pull_object(run, name) for name in names))
        request = ConfirmMessageReceivedRequest(node=self._node, run_id=run, message_object_id=tree.object_id)
        await self._client.call("confirm-message-received", request, ConfirmMessageReceivedResponse)
        message = inflate_object_from_contents(tree.object_id, dict(zip(names, contents, strict=True)))
        assert isinstance(message, Message)
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    async def _pull_object(self, run: int, name: str) -> bytes:
        """One that is not there yet is asked for again, after as long as Flower's node waits."""
        request = PullObjectRequest(node=self._node, run_id=run, object_id=name)
        for delay_s in exponential(PULL_INITIAL_BACKOFF, max_delay=PULL_BACKOFF_CAP):
            found = await self._client.call("pull-object", request, PullObjectResponse)
            if found.object_available:
                return bytes(found.object_content)
            if not found.object_found:
                break
            await asyncio.sleep(delay_s)
        raise ProtocolError("the question is not there any more")

    async def _push(self, run: int, sent: MessageProto, tree: ObjectTree, contents: dict[str, bytes]) -> None:
        request = PushMessagesRequest(
            node=self._node, messages_list=[sent], message_object_trees=[tree], clientapp_runtime_list=[0.0]
        )
        pushed = await self._client.call("push-messages", request, PushMessagesResponse)
        requests = [
            PushObjectRequest(
                node=self._node,
                run_id=run,
                session_id=pushed.session_id,
                object_id=name,
                object_content=contents[name],
            )
            for name in pushed.objects_to_push
        ]
        await asyncio.gather(*(self._client.call("push-object", request, PushObjectResponse) for request in requests))
