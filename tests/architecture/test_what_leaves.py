"""Nothing leaves that is not declared charged or public: every field of every message, ours and Flower's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, Metadata, RecordDict
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.run import Run
from pydantic import BaseModel

from fedrec import wire
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.secagg.messages import Confirmation, Keys, Revealed, Shares
from fedrec.signing import SigningKey
from fedrec.wire import ANSWER, FIELD_DISCLOSURE, QUESTION, SUM, RoundPlan, SumHeader, UpdateHeader
from fedrec_client.app import app
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.link import register
from fedrec_server.gateway.partner_desk import Enrolment
from fedrec_server.gateway.rotations import Rotation
from fedrec_server.rounds.records import question
from fedrec_sim.grid import InProcessGrid

OURS = [kind for kind in vars(wire).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
RECORDS = {QUESTION: RoundPlan, ANSWER: UpdateHeader, SUM: SumHeader}
# What a partner says in the body of a step.
BODIES = [Keys, Shares, Confirmation, Revealed]
BESIDE = {"adapter", "adapter_delta", "body", "signature"}  # values of a record that are no fields of ours

HEADERS = {"fedrec-partner", "fedrec-time", "fedrec-signature"}
# What Flower's node puts into the message with which it hands over an answer; others are objects and their tree.
PUSHED = {"node", "messages_list", "message_object_trees", "clientapp_runtime_list"}


def fields_of(kind: type) -> set[str]:
    """Names of what a message of this class carries."""
    if issubclass(kind, BaseModel):
        names = list(kind.model_fields)
    elif dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    else:
        names = [name for name in dir(kind) if isinstance(getattr(kind, name), property)]
    return {f"{kind.__name__}.{name}" for name in names}


def undeclared(kinds: list[type], declared: Mapping[str, str] = FIELD_DISCLOSURE) -> set[str]:
    return {name for kind in kinds for name in fields_of(kind) if declared.get(name) not in ("charged", "public")}


def undeclared_in(content: RecordDict, declared: Mapping[str, str] = FIELD_DISCLOSURE) -> set[str]:
    """Of a real message: fields under the name of the class they are, what stands beside them under its own."""
    found = set()
    for name, record in content.items():
        kind = RECORDS.get(name)
        fields = [name] if kind is None else [key if key in BESIDE else f"{kind.__name__}.{key}" for key in record]
        found |= {field for field in fields if field not in declared}
    return found


def test_every_field_of_every_message_is_declared() -> None:
    assert {RoundPlan, SumHeader, UpdateHeader} <= set(OURS)
    assert undeclared([*OURS, *BODIES, Metadata, Error, Enrolment, Rotation]) == set()


def test_nothing_is_declared_that_no_message_has() -> None:
    known = set().union(*(fields_of(kind) for kind in [*OURS, *BODIES, Metadata, Error, Enrolment, Rotation]))
    assert FIELD_DISCLOSURE.keys() - known == BESIDE | HEADERS | {"PushMessagesRequest.clientapp_runtime_list"}


def test_flowers_node_hands_over_nothing_else() -> None:
    assert set(PushMessagesRequest.DESCRIPTOR.fields_by_name) == PUSHED


@pytest.mark.parametrize("call", ["me", "wish"])
def test_a_call_of_a_partners_node_carries_no_other_header(call: str) -> None:
    seen: list[httpx.Request] = []
    link = CoordinatorLink.__new__(CoordinatorLink)
    link._name, link._address, link._key = "shop", "gateway:1", SigningKey(bytes(32))

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    link._client = httpx.Client(transport=httpx.MockTransport(answer), base_url="https://gateway")
    getattr(link, call)()
    usual = set(link._client.headers) | {"host"} | ({"content-length"} if call == "wish" else set())
    link.close()
    assert set(seen[0].headers) - usual == HEADERS
    assert seen[0].content == b""


def test_what_is_charged() -> None:
    charged = {name for name, disclosure in FIELD_DISCLOSURE.items() if disclosure == "charged"}
    assert charged == {"UpdateHeader.delta_hash", "SumHeader.body_hash", "adapter_delta", "body", "signature"}


def mutant_of(kind: type, name: str) -> type:
    """The same message with one field more."""
    made = dataclasses.make_dataclass(kind.__name__, [(name, int)], bases=(kind,), frozen=True, kw_only=True)
    assert isinstance(made, type)
    return made


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("name", ["n_examples", "mean_loss", "seconds"])
def test_mutant_a_field_that_is_added_without_declaration_is_found(kind: type, name: str) -> None:
    assert undeclared([mutant_of(kind, name)]) == {f"{kind.__name__}.{name}"}


def test_mutant_a_declaration_that_is_neither_charged_nor_public_is_found() -> None:
    declared = {**FIELD_DISCLOSURE, "UpdateHeader.partner": "harmless"}
    assert undeclared(OURS, declared) == {"UpdateHeader.partner"}


def test_mutant_a_new_message_class_is_found() -> None:
    assert undeclared([dataclasses.make_dataclass("Telemetry", ["rows"])]) == {"Telemetry.rows"}


class Answering:
    """A worker whose answer carries nothing but its form."""

    def train(self, plan: RoundPlan, state: AdapterState) -> tuple[UpdateHeader, AdapterDelta]:
        delta = AdapterDelta({"w": np.ones(2, np.float32)})
        return UpdateHeader(plan.run, plan.round, plan.attempt, "shop", delta.hash, plan.privacy_plan_hash), delta


def exchange() -> tuple[Message, Message]:
    """A question and its answer as Flower carries them."""
    register("answering", Answering())
    grid = InProcessGrid(app, {2: "answering"}, Run.create_empty(1))
    values: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(RoundPlan)}
    texts = dict.fromkeys(("run", "part", "parent_hash", "privacy_plan_hash"), "x")
    plan = RoundPlan(**{**values, **texts, "mode": "none"})
    state = AdapterState({"w": np.ones(2, np.float32)})
    asked = grid.create_message(RecordDict({QUESTION: question(plan, state)}), "train", 2, "1")
    (answer,) = grid.send_and_receive([asked])
    return asked, answer


def test_real_messages_carry_nothing_else() -> None:
    for message in exchange():
        assert not message.has_error()
        assert undeclared_in(message.content) == set()


@pytest.mark.parametrize("name", ["metrics", ANSWER])
def test_mutant_a_record_or_key_that_is_added_to_a_real_answer_is_found(name: str) -> None:
    _, answer = exchange()
    answer.content[name] = ConfigRecord({**dict(answer.content.get(name, {})), "n_examples": 3})
    assert undeclared_in(answer.content) == {"metrics" if name == "metrics" else "UpdateHeader.n_examples"}
