"""A partner loads what the coordinator signed, and nothing older, changed or foreign."""

import copy
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fedrec.errors import ProtocolError, RunError
from fedrec.files import sha256
from fedrec.model.adapter import AdapterSpec, AdapterState
from fedrec.registry.registry import Registry
from fedrec.signing import SigningKey
from fedrec_client.adapters import Adapters
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_server.rounds.heads import SignedHeads

KEY, MALLORY = SigningKey(bytes(32)), SigningKey(bytes([1] * 32))
SPEC = AdapterSpec("llm", "h", "h", "h", {"head": {"w": (3,)}})


class Serving:
    """What a coordinator's gateway tells, from a real registry."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry(folder)
        self.heads = SignedHeads(self.registry)
        self.told: dict[str, Any] = {"head": None, "manifest": None}
        self.content = b""

    def commit(self, number: int, value: float, *, generation: int = 1, key: SigningKey = KEY) -> None:
        parent = self.registry.head()
        self.registry.commit(
            AdapterState({"w": np.full(3, value, np.float32)}),
            round=number,
            parent=parent.adapter_hash if parent else "",
            mode="inspect",
            statement={"mode": "inspect", "epsilon": 8.0},
            server_state={},
        )
        self.publish(generation, key)

    def publish(self, generation: int, key: SigningKey = KEY) -> None:
        head = self.heads.sign(key, "films", generation)
        self.told = {"head": head.to_dict(), "manifest": json.loads(self.heads.manifest(head))}
        self.content = self.heads.tensors(head)

    def adapter(self) -> dict[str, Any]:
        return copy.deepcopy(self.told)

    def tensors(self, wanted: str) -> bytes:
        assert sha256(self.content) == wanted
        return self.content


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    return Serving(tmp_path / "registry")


@pytest.fixture
def adapters(tmp_path: Path) -> Adapters:
    return Adapters(tmp_path / "adapter", KEY.public, "films", SPEC)


def fetch(adapters: Adapters, serving: Serving) -> Any:
    return adapters.fetch(cast(CoordinatorLink, serving))


def test_before_the_first_round_there_is_none(adapters: Adapters, serving: Serving) -> None:
    assert fetch(adapters, serving) is None
    assert adapters.held() is None
    with pytest.raises(RunError, match="no adapter yet"):
        adapters.load()


def test_the_newest_is_taken_once_and_kept_whole(adapters: Adapters, serving: Serving, tmp_path: Path) -> None:
    serving.commit(0, 0.0)
    serving.commit(1, 1.0)
    held = fetch(adapters, serving)
    assert (held.round, held.statement["epsilon"]) == (1, 8.0)
    assert fetch(adapters, serving) is None
    serving.commit(2, 2.0)
    assert fetch(adapters, serving).round == 2
    assert adapters.load().tensors["w"].tolist() == [2.0] * 3
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["current"]


def test_an_older_one_is_refused_unless_a_rollback_is_signed(adapters: Adapters, serving: Serving) -> None:
    for number in range(3):
        serving.commit(number, float(number))
    fetch(adapters, serving)
    serving.registry.rollback(1)
    serving.publish(generation=1)
    with pytest.raises(ProtocolError, match="older than what is held"):
        fetch(adapters, serving)
    serving.publish(generation=2)
    assert fetch(adapters, serving).round == 1
    assert adapters.load().tensors["w"].tolist() == [1.0] * 3


@pytest.mark.parametrize("case", ["key", "manifest", "head", "federation", "tensors", "shape", "no objects"])
def test_what_is_not_the_coordinators_is_refused_and_the_old_one_stays(
    adapters: Adapters, serving: Serving, tmp_path: Path, case: str
) -> None:
    serving.commit(0, 0.0)
    fetch(adapters, serving)
    serving.commit(1, 1.0, key=MALLORY if case == "key" else KEY)
    if case == "manifest":
        serving.told["manifest"]["adapter_hash"] = "0" * 64
    elif case == "head":
        serving.told["head"]["round"] = 7
    elif case == "no objects":
        serving.told = {"head": [], "manifest": 3}
    elif case == "federation":
        adapters = Adapters(tmp_path / "adapter", KEY.public, "music", SPEC)
    elif case == "shape":
        adapters = Adapters(
            tmp_path / "adapter", KEY.public, "films", AdapterSpec("llm", "h", "h", "h", {"head": {"w": (4,)}})
        )
    elif case == "tensors":
        other = AdapterState({"w": np.full(3, 9.0, np.float32)}).to_bytes()
        serving.tensors = lambda _: other  # type: ignore[method-assign]
    with pytest.raises(ProtocolError):
        fetch(adapters, serving)
    held = adapters.held()
    assert held is not None
    assert held.round == 0


def test_a_damaged_file_is_never_loaded(adapters: Adapters, serving: Serving, tmp_path: Path) -> None:
    serving.commit(0, 0.0)
    fetch(adapters, serving)
    path = tmp_path / "adapter" / "current" / "adapter.safetensors"
    path.write_bytes(AdapterState({"w": np.ones(3, np.float32)}).to_bytes())
    with pytest.raises(RunError, match="damaged"):
        adapters.load()
