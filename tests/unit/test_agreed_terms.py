"""Terms stay agreed to when the coordinator's key changes; new ones must be signed by the key of now."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest

from fedrec.config import ModelConfig, ShapeConfig
from fedrec.errors import PrivacyError, ProtocolError, RunError
from fedrec.files import sha256
from fedrec.invitation import Invitation
from fedrec.key_statements import KeyStatement
from fedrec.signing import SigningKey
from fedrec.terms import FORMAT, FederationTerms, ModelTerms, WorkTerms, read_terms
from fedrec_client.agreement import Agreement, agree
from fedrec_client.coordinator_keys import CoordinatorKeys
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.node import RunningNode
from fedrec_client.settings import Node, make_node

OLD, NEW = SigningKey(bytes(32)), SigningKey(bytes([1] * 32))
HASH = "0" * 64
MODEL = ModelTerms(config=ModelConfig(), backbone_hash=HASH, catalog_hash=HASH, feature_hash=HASH, shape=ShapeConfig())
TERMS = FederationTerms(
    format=FORMAT,
    name="films",
    mode="none",
    privacy_plan=None,
    model=MODEL,
    work=WorkTerms(max_history=50, weight_decay=0.0, batch_users=8),
    parts={"head": {"w": (4,)}},
    initial_hash=HASH,
    seed=1,
)


class Coordinator:
    """What the gateway tells, signed by one key or the next."""

    def __init__(self) -> None:
        self.key, self.chain = OLD, list[KeyStatement]()

    def rotate(self) -> None:
        self.key, self.chain = NEW, [KeyStatement.make(1, OLD, NEW.public, "2026-01-01")]

    def terms(self) -> dict[str, Any]:
        signature = self.key.sign("federation-terms", TERMS.to_dict())
        return {"terms": TERMS.to_dict(), "signature": signature, "catalog_sha256": sha256(b"PAR1")}

    def catalog(self, wanted: str) -> bytes:
        return b"PAR1"

    def keys(self) -> dict[str, Any]:
        return {"statements": [asdict(one) for one in self.chain], "authorities": None}


@pytest.fixture
def coordinator() -> Coordinator:
    return Coordinator()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    invitation = Invitation("localhost:1", "shop", "s", HASH, OLD.public.hex())
    made = make_node(tmp_path / "node", invitation, b"PEM", 9094)
    path = made.folder / "client.toml"
    path.write_text(path.read_text().replace('modes = ["inspect"]', 'modes = ["none"]'))
    return Node(made.folder)


def take(node: Node, coordinator: Coordinator, *, anew: bool = False) -> Agreement:
    return agree(node, cast(CoordinatorLink, coordinator), anew=anew)


def test_terms_under_the_old_key_stay_agreed_to(node: Node, coordinator: Coordinator) -> None:
    take(node, coordinator)
    coordinator.rotate()
    CoordinatorKeys(node).follow(cast(CoordinatorLink, coordinator))
    assert Agreement.read(node).terms == TERMS
    take(node, coordinator)
    assert Agreement.read(node).terms == TERMS


def test_new_terms_under_the_old_key_are_refused_once_it_was_replaced(node: Node, coordinator: Coordinator) -> None:
    take(node, coordinator)
    coordinator.rotate()
    take(node, coordinator)
    coordinator.key = OLD
    with pytest.raises(ProtocolError, match="is not that of"):
        take(node, coordinator, anew=True)


def test_a_key_that_nothing_vouches_for_signs_no_terms(node: Node, coordinator: Coordinator) -> None:
    coordinator.key = NEW
    with pytest.raises(ProtocolError, match="is not that of"):
        take(node, coordinator, anew=True)


def test_where_a_person_must_accept_a_key_agree_is_how(node: Node, coordinator: Coordinator) -> None:
    path = node.folder / "client.toml"
    path.write_text(path.read_text().replace("accept_new_keys = true ", "accept_new_keys = false "))
    node = Node(node.folder)
    coordinator.rotate()
    with pytest.raises(PrivacyError, match="accept_new_keys is false"):
        take(node, coordinator)
    take(node, coordinator, anew=True)
    assert CoordinatorKeys(node).current() == NEW.public


def test_a_node_with_keys_half_changed_does_not_start(node: Node, coordinator: Coordinator) -> None:
    take(node, coordinator)
    for folder in (node.data, node.keys / "next"):
        folder.mkdir()
    with pytest.raises(RunError, match="half changed") as found:
        RunningNode(node).run()
    assert "flower-client rotate" in found.value.remedy


def test_what_was_added_later_is_in_the_terms_only_where_it_is_used() -> None:
    """Else the same federation would have other terms, and its partners would have to agree anew."""
    shape = TERMS.to_dict()["model"]["shape"]
    assert not {"gate_dim", "method"} & shape.keys()
    other = TERMS.model_copy(
        update={"model": MODEL.model_copy(update={"shape": ShapeConfig(method="ffa-lora")})},
    )
    assert other.to_dict()["model"]["shape"] == {**shape, "method": "ffa-lora"}
    assert other.hash != TERMS.hash
    assert read_terms(other.to_dict(), "x") == other
