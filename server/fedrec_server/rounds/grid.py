"""Flower's Grid for many partners: it rings when questions wait, and takes each answer once all of it is there."""

from collections.abc import Callable, Iterable, Iterator
from time import time
from typing import cast

import httpx
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.superlink.grid import HttpGrid

from fedrec.errors import ProtocolError

# Answers on their way that one look finds; to try a thousand would keep the SuperLink from taking them.
_MOST_MISSING = 8
Claimed = tuple[MessageProto, ObjectTree]


class AnswerGrid(HttpGrid):
    """Flower's own would wait a second and more for each answer that is still on its way, and with it for all others.

    It also gives out all answers that it is asked for or none: bytes of one sender that cannot be unpacked would cost
    every other the turn. Here they become an error in that sender's name.

    Args:
        address: of the SuperLink.
        authority: its certificate authority, PEM.
        token: of the run's task.
        after_push: called when questions were handed over.
    """

    def __init__(self, address: str, authority: bytes, token: str, after_push: Callable[[], None]) -> None:
        super().__init__(address, insecure=False, root_certificates=authority, token=token)
        self._after_push = after_push
        self._answers: dict[str, Claimed] = {}  # question -> answer, of which the SuperLink tells only once

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand over, then ring."""
        numbers = super().push_messages(messages)
        self._after_push()
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Answers to these questions, as far as they are there; each is fetched when it is its turn.

        Raises: httpx.HTTPStatusError: the SuperLink refuses to look.
        """
        asked, missing = dict.fromkeys(message_ids), 0
        self._claim([number for number in asked if number not in self._answers])
        for number in [number for number in self._answers if number in asked]:
            claimed = self._answers.pop(number)
            if (answer := self._fetch(*claimed)) is not None:
                yield answer
                continue
            self._answers[number] = claimed  # behind all others, so that none which never comes is always first
            missing += 1
            if missing == _MOST_MISSING:
                return

    def _claim(self, numbers: list[str]) -> None:
        """One call, however many questions are open. Answers that nobody asked for in time are forgotten."""
        for number, (answer, _) in tuple(self._answers.items()):
            if answer.metadata.created_at + answer.metadata.ttl < time():
                del self._answers[number]
        if numbers:
            told = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=numbers))
            for answer, tree in zip(told.messages_list, told.message_object_trees, strict=True):
                self._answers[answer.metadata.reply_to_message_id] = (answer, tree)

    def _fetch(self, answer: MessageProto, tree: ObjectTree) -> Message | None:
        """An answer, or what is wrong with it; None while something of it is on its way, or cannot be had now."""
        try:
            contents = self._contents(tree)
            if contents is None:
                return None
            self._confirm(tree)
            message = inflate_object_from_contents(tree.object_id, contents)
            if not isinstance(message, Message):
                raise ProtocolError("no message")
        except httpx.HTTPStatusError:
            return None
        except Exception as error:  # noqa: BLE001  # whatever a sender's bytes provoke costs it its turn
            return _broken(answer, f"answer cannot be fetched: {type(error).__name__}")
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def _contents(self, tree: ObjectTree) -> dict[str, bytes] | None:
        """Of the whole tree; None if something is missing yet. Raises ProtocolError: something never comes."""
        found = {}
        # Nodes hand over the root last: while it is missing, nothing large is fetched in vain.
        for one in reversed(list(iterate_object_tree(tree))):
            request = PullObjectRequest(node=self.node, run_id=self._run_id, object_id=one.object_id)
            told = self._runtime_client.PullObject(request)
            if not told.object_found:
                raise ProtocolError("a part of the answer never came")
            if not told.object_available:
                return None
            found[one.object_id] = told.object_content
        return found

    @property
    def _run_id(self) -> int:
        return cast(Run, self._run).run_id

    def _confirm(self, tree: ObjectTree) -> None:
        request = ConfirmMessageReceivedRequest(node=self.node, run_id=self._run_id, message_object_id=tree.object_id)
        self._runtime_client.ConfirmMessageReceived(request)


def _broken(answer: MessageProto, reason: str) -> Message:
    """An error in place of an answer, as from its sender."""
    told = answer.metadata
    metadata = Metadata(
        run_id=told.run_id,
        message_id="",
        src_node_id=told.src_node_id,
        dst_node_id=told.dst_node_id,
        reply_to_message_id=told.reply_to_message_id,
        group_id=told.group_id,
        created_at=told.created_at,
        ttl=told.ttl,
        message_type=SYSTEM_MESSAGE_TYPE,
    )
    return make_message(metadata=metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, reason))
