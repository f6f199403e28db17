"""Answers are claimed all at once, and each is taken when all of it is there; none waits for another."""

from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.task_identity import TaskIdentity

from fedrec_server.rounds.grid import AnswerGrid


class Runtime:
    """In place of the SuperLink's Runtime API: tells of an answer once, gives out what was pushed of it."""

    def __init__(self) -> None:
        self.answers: dict[str, Message] = {}
        self.objects: dict[str, bytes] = {}
        self.gone: set[str] = set()
        self.calls: list[str] = []
        self.fails = False

    def answer(self, number: str, **values: Any) -> Message:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        asked = Message(RecordDict(), 5, "train")
        asked.metadata.__dict__["_message_id"] = number
        answer = Message(RecordDict({"answer": ConfigRecord(values)}), reply_to=asked)
        answer.metadata.__dict__["_message_id"] = answer.object_id
        self.answers[number] = answer
        self.objects |= {name: found.deflate() for name, found in get_all_nested_objects(answer).items()}
        return answer

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802  # Flower's name
        self.calls.append("PullMessages")
        told = [self.answers.pop(number) for number in request.message_ids if number in self.answers]
        return PullAppMessagesResponse(
            messages_list=[message_to_proto(remove_content_from_message(one)) for one in told],
            message_object_trees=[get_object_tree(one) for one in told],
        )

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802  # Flower's name
        self.calls.append("PullObject")
        if self.fails:
            raise httpx.HTTPStatusError("500", request=cast(Any, None), response=cast(Any, None))
        content = self.objects.get(request.object_id, b"")
        found = request.object_id not in self.gone
        return PullObjectResponse(object_found=found, object_available=bool(content), object_content=content)

    def ConfirmMessageReceived(self, request: ConfirmMessageReceivedRequest) -> None:  # noqa: N802  # Flower's name
        self.calls.append("ConfirmMessageReceived")


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def grid(runtime: Runtime) -> AnswerGrid:
    made = AnswerGrid("127.0.0.1:1", b"", "token", lambda: None)
    made._client, made._run = cast(Any, runtime), cast(Any, SimpleNamespace(run_id=1))
    return made


def numbers_of(messages: list[Message]) -> list[str]:
    return [message.metadata.reply_to_message_id for message in messages]


def test_one_look_claims_all_answers(runtime: Runtime, grid: AnswerGrid) -> None:
    for number in "abc":
        runtime.answer(number, value=number)
    found = list(grid.pull_messages("abcd"))
    assert numbers_of(found) == ["a", "b", "c"]
    assert [cast(ConfigRecord, one.content["answer"])["value"] for one in found] == ["a", "b", "c"]
    assert runtime.calls.count("PullMessages") == 1
    assert runtime.calls.count("ConfirmMessageReceived") == 3


def test_an_answer_that_is_on_its_way_holds_up_nobody_and_is_not_lost(runtime: Runtime, grid: AnswerGrid) -> None:
    late = runtime.answer("a", value="late")
    runtime.answer("b", value="there")
    root = runtime.objects.pop(late.metadata.message_id)
    assert numbers_of(list(grid.pull_messages("ab"))) == ["b"]
    runtime.objects[late.metadata.message_id] = root
    assert numbers_of(list(grid.pull_messages("a"))) == ["a"]


def test_many_answers_on_their_way_cost_a_look_few_calls_and_hide_none_that_is_there(
    runtime: Runtime, grid: AnswerGrid
) -> None:
    numbers = [f"n{number}" for number in range(30)]
    for number in numbers:
        runtime.objects.pop(runtime.answer(number, value=number).metadata.message_id)
    runtime.answer("there", value="x")
    looks = []
    for _ in range(4):
        runtime.calls.clear()
        looks.append(numbers_of(list(grid.pull_messages([*numbers, "there"]))))
        assert runtime.calls.count("PullObject") <= 8 + 3
    assert [name for look in looks for name in look] == ["there"]


def test_bytes_that_cannot_be_unpacked_cost_their_sender_alone(runtime: Runtime, grid: AnswerGrid) -> None:
    broken = runtime.answer("a", value="broken")
    runtime.answer("b", value="whole")
    runtime.objects[broken.metadata.message_id] = b"no object"
    bad, good = grid.pull_messages("ab")
    assert bad.has_error()
    assert bad.metadata.reply_to_message_id == "a"
    assert bad.metadata.src_node_id == broken.metadata.src_node_id
    assert bad.error.reason.startswith("answer cannot be fetched: ")
    assert not good.has_error()


def test_an_answer_that_never_comes_is_told_as_lost(runtime: Runtime, grid: AnswerGrid) -> None:
    runtime.gone.add(runtime.answer("a", value="x").metadata.message_id)
    (lost,) = grid.pull_messages("a")
    assert lost.has_error()


def test_a_superlink_that_fails_for_a_moment_costs_no_answer(runtime: Runtime, grid: AnswerGrid) -> None:
    runtime.answer("a", value="x")
    runtime.fails = True
    assert list(grid.pull_messages("a")) == []
    runtime.fails = False
    assert numbers_of(list(grid.pull_messages("a"))) == ["a"]


def test_answers_of_a_round_that_is_over_are_forgotten(
    runtime: Runtime, grid: AnswerGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.objects.pop(runtime.answer("a", value="x").metadata.message_id)
    assert list(grid.pull_messages("a")) == []
    monkeypatch.setattr("fedrec_server.rounds.grid.time", lambda: 1e12)
    list(grid.pull_messages("b"))
    assert grid._answers == {}
