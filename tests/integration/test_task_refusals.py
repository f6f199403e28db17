"""What a node and its coordinator refuse of a task's head, in words that say what to do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import (
    Interaction,
    read_stored_interactions,
    write_interactions,
)
from fedrec.errors import ConfigError, DataError, ModelError, ProtocolError
from fedrec.terms import read_terms
from fedrec_client.agreement import agree, in_words
from fedrec_client.importing import INTERACTIONS, import_rows, read_catalog_bytes
from fedrec_client.node import RunningNode
from fedrec_client.serve_node import serve_node
from fedrec_client.settings import Node
from fedrec_client.worker_process import make_desk
from tests.integration.task_network import COLUMNS, Network, new_node, write_csv


def test_what_is_agreed_to_is_read_before_a_row_is(network: Any) -> None:
    words = in_words(network().terms, 1e-5)
    for said in (
        "how many stars",
        "ratings of 1 to 5",
        "latest 1000 ratings",
        "part items, 1 steps at clip norm 1.9",
        "epsilon 89.9",
    ):
        assert said in words


def changed(node: Node, network: Network, **task: Any) -> Network:
    """The same node under terms that the coordinator signed otherwise."""
    terms = network.terms
    assert terms.task is not None
    made = terms.model_copy(update={"task": terms.task.model_copy(update=task)})
    other = Network(replace(network.federation, terms=made), {node.settings.name: node})
    agree(node, other.link(), anew=True)
    return other


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"inputs_hash": "1" * 64}, "inputs .*published ratings"),
        ({"high": 10.0}, "scale of ratings"),
        ({"start": "nothing"}, "first weights"),
        ({"width": 9}, "shape of the head"),
    ],
)
def test_a_node_that_makes_other_inputs_takes_no_part(network: Any, task: dict[str, Any], words: str) -> None:
    made: Network = network("inspect")
    node = made.nodes["north"]
    changed(node, made, **task)
    with pytest.raises(ModelError, match=words) as found:
        make_desk(node)
    assert "same fedrec" in found.value.remedy


def test_rows_without_what_the_task_asks_are_refused_whole(network: Any, catalog: ItemCatalog, tmp_path: Path) -> None:
    made: Network = network("inspect")
    for path, columns, words in (
        (tmp_path / "north.csv", replace(COLUMNS, rating=None), "no ratings"),
        (write_csv(tmp_path / "tens.csv", [Interaction("u", "i0", 10.0, 0.0, 0)]), COLUMNS, "not on the terms' scale"),
    ):
        node = new_node(tmp_path / path.stem / "east", "inspect")
        agree(node, made.link())
        with pytest.raises(DataError, match=words):
            import_rows(node, path, columns)
        assert not node.data.exists()
        assert not node.ledger.exists()


def test_rows_that_came_without_ratings_for_a_recommender_train_no_head(network: Any, tmp_path: Path) -> None:
    """Terms may change after rows were imported; the worker reads no further than this."""
    made: Network = network("inspect")
    node = made.nodes["north"]
    table = read_stored_interactions(node.data / INTERACTIONS, read_catalog_bytes(made.federation.catalog))
    bare = replace(table, rating=np.full(table.n_rows, np.nan, np.float32))
    write_interactions(bare, node.data / INTERACTIONS)
    with pytest.raises(DataError, match="no ratings") as found:
        make_desk(node)
    assert "--rating" in found.value.remedy


def test_a_head_recommends_nothing(network: Any) -> None:
    made: Network = network("inspect")
    node = made.nodes["north"]
    with pytest.raises(ConfigError, match="recommends nothing"):
        serve_node(node)
    path = node.folder / "client.toml"
    path.write_text(path.read_text().replace("serve = false", "serve = true"))
    with pytest.raises(ConfigError, match="recommends nothing"):
        RunningNode(Node(node.folder)).run()


def test_terms_of_a_task_must_be_whole(make_federation: Any) -> None:
    terms = make_federation("inspect").terms
    assert read_terms(terms.to_dict(), "x") == terms
    assert "task" not in terms.model_copy(update={"task": None}).to_dict()
    values = terms.to_dict()
    for change, words in (
        ({"parts": {"task": values["parts"]["task"]}}, "must be items, task"),
        ({"task": {**values["task"], "low": 5.0}}, "below task.high"),
        ({"task": {**values["task"], "more": 1}}, "task.more"),
    ):
        with pytest.raises(ProtocolError, match=words):
            read_terms({**values, **change}, "x")
