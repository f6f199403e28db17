"""A task's head trained by nodes from their own folders: agreed, imported, private, under masks, from one ledger."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.supercore.run import Run
from numpy.typing import NDArray
from typer.testing import CliRunner

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import (
    Interaction,
    read_stored_interactions,
)
from fedrec.errors import ConfigError, DataError, FedrecError, QuorumError
from fedrec.privacy.integer_code import IntegerCode
from fedrec.registry.registry import Registry
from fedrec.tasks.item_part import TENSOR
from fedrec_client import app as client_app
from fedrec_client.agreement import agree
from fedrec_client.cli import app as cli
from fedrec_client.held_head import HeldHead, figures_of, highest
from fedrec_client.importing import INTERACTIONS, forget_imported, import_rows, read_catalog_bytes
from fedrec_client.serving.settings import read_serving
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import seed_imported
from fedrec_client.settings import PAUSED, Node
from fedrec_client.task_worker import TaskWorker
from fedrec_client.trained_head import own_rows
from fedrec_client.worker_process import open_ledger
from fedrec_server.rounds.session import run_rounds
from fedrec_sim.grid import InProcessGrid
from tests.integration.task_network import (
    COLUMNS,
    EPSILON,
    ROUNDS,
    USERS,
    Network,
    hold,
    new_node,
    ratings,
    stars,
    write_csv,
)


def with_rows_of(node: Node, owner: Node) -> Node:
    """The node, which shares the other's rows and ledger from now on."""
    path = node.folder / "client.toml"
    path.write_text(path.read_text().replace('rows_of = ""', f'rows_of = "{owner.folder}"'))
    return Node(node.folder)


def clipped_surprises(network: Network) -> NDArray[np.float64]:
    """What the part about items adds up without noise: one user at a time."""
    plan, total = network.terms.plan, 0.0
    assert plan is not None
    for desk in network.desks.values():
        worker = desk.worker
        assert isinstance(worker, TaskWorker)
        rows, items = worker._taste_rows()
        for place in range(rows.n_users):
            said = rows.surprises(place, items.row_weight * items.spread).astype(np.float64)
            total = total + said * min(1.0, plan.parts[0].l2_clip_norm / np.linalg.norm(said))
    return np.asarray(total)


def test_nodes_train_a_head_privately_under_masks(network: Any, tmp_path: Path) -> None:
    made: Network = network()
    made.open()
    registry = made.run(tmp_path / "registry")
    assert made.sums.compared == registry.head_round() == ROUNDS  # each to the last bit
    terms, plan = made.terms, made.terms.plan
    assert plan is not None
    # The released mean is the masked sum, and that is the plain sum of clipped surprises with the plan's noise on it.
    first = registry.load(1).tensors[TENSOR]
    grain = IntegerCode.of(plan, "items", 3, cast(int, terms.range_users)).grain
    np.testing.assert_allclose(first, -made.totals[0].reshape(first.shape) * grain / (3 * USERS), atol=1e-6)
    noise = first * 3 * USERS - clipped_surprises(made)
    assert noise.std() == pytest.approx(np.sqrt(3) * plan.noise_std("items"), rel=0.25)
    statement = registry.version(ROUNDS).statement
    assert (statement["unit"], statement["mode"], statement["masked"]) == ("user", "secagg", True)
    assert statement["epsilon"] == pytest.approx(EPSILON, abs=1.0)
    for node in made.nodes.values():
        assert open_ledger(node).spent()[0] == pytest.approx(statement["epsilon"], abs=0.1)
    assert all(event["part"] == part for event, part in zip(made.events, ["items"] * 5, strict=False))


def test_a_share_of_noise_never_leaves_without_masks(network: Any, tmp_path: Path) -> None:
    made: Network = network()
    made.open()
    open_session = replace(made.session(Registry(tmp_path / "registry")), masked=None)
    with pytest.raises(FedrecError):
        run_rounds(InProcessGrid(client_app.app, open_session.partners, Run.create_empty(1)), open_session)
    assert all(open_ledger(node).spent()[0] == 0 for node in made.nodes.values())


def test_a_head_is_read_beside_the_rows_of_its_partner(network: Any, catalog: ItemCatalog, tmp_path: Path) -> None:
    made: Network = network("inspect")
    made.open()
    registry = made.run(tmp_path / "registry")
    node, version = made.nodes["north"], registry.version(ROUNDS)
    with pytest.raises(FedrecError, match="no adapter yet"):
        HeldHead.load(node)
    hold(node, registry, made)
    held = HeldHead.load(node)
    assert held.round == version.round
    known = {(row.user, row.item) for row in ratings(catalog, "north", USERS, 1)}
    fresh = [
        Interaction(
            user, item, float(np.clip((5 if code % 4 == int(user[-2:]) % 4 else 2) + (code % 3 - 1), 1, 5)), 0.0, 0
        )
        for user in sorted({user for user, _ in known})
        for item, code in catalog.codes.items()
        if (user, item) not in known
    ]
    found = figures_of(held, write_csv(tmp_path / "fresh.csv", fresh), COLUMNS)
    assert found["rows"] == len(fresh)
    assert found["figures"]["rmse"] < 0.75 * np.std([float(row.rating or 0) for row in fresh])
    best = highest(held, "north01", 3)
    assert all(catalog.codes[item] % 4 == 1 for item, _ in best)
    with pytest.raises(DataError, match="no item 'nothing'"):
        held.of_items("north01", ["nothing"])
    refuse_what_was_imported(node, made, tmp_path)


def refuse_what_was_imported(node: Node, made: Network, folder: Path) -> None:
    """All of it, though the head reads a user's latest three ratings alone."""
    work = made.terms.work.model_copy(update={"max_history": 3})
    terms = made.terms.model_copy(update={"work": work})
    agree(node, Network(replace(made.federation, terms=terms), made.nodes).link(), anew=True)
    held, catalog = HeldHead.load(node), read_catalog_bytes(made.federation.catalog)
    known = [row for row in ratings(catalog, "north", USERS, 1) if row.user == "north01"]
    items = {row.item for row in known}
    assert held.rows["north01"].items.tolist() == [catalog.codes[row.item] for row in known[-3:]]
    offered = {item for item, _ in highest(held, "north01", len(catalog))}
    assert offered == set(catalog.ids) - items
    fresh = [replace(known[0], item=item) for item in sorted(offered)[:4]]
    rows = [fresh[0], replace(known[0], user="nobody"), known[0], *fresh[1:], replace(known[-1], rating=1.0)]
    file = write_csv(folder / "known.csv", rows)
    with pytest.raises(DataError, match=r"rated the item in the import.*: lines 4, 8") as found:
        figures_of(held, file, COLUMNS)
    assert not any(private in str(found.value) for private in ("north01", known[0].item, known[-1].item))
    assert figures_of(held, write_csv(folder / "mended.csv", rows[:2] + rows[3:-1]), COLUMNS)["rows"] == 5


@pytest.mark.parametrize("mode", ["none", "secagg"])
def test_a_click_head_is_trained_alike(network: Any, catalog: ItemCatalog, tmp_path: Path, mode: str) -> None:
    made: Network = network(mode, "click")
    made.open()
    registry = made.run(tmp_path / "registry")
    assert made.sums.compared == (ROUNDS if mode == "secagg" else 0)
    node = made.nodes["west"]
    hold(node, registry, made)
    held, known = HeldHead.load(node), {(row.user, row.item) for row in ratings(catalog, "west", USERS, 1)}
    rows = [
        Interaction(f"west{user:02d}", item, stars(user, code), 0.0, 0)
        for user in range(USERS)
        for item, code in catalog.codes.items()
        if (f"west{user:02d}", item) not in known
    ]
    assert figures_of(held, write_csv(tmp_path / "fresh.csv", rows), COLUMNS)["figures"]["auc"] > 0.8


@pytest.mark.parametrize(("noise_multiplier", "is_refused"), [(0.15, True), (1.0, False)])
def test_what_another_federation_took_of_the_budget_is_gone(
    network: Any, tmp_path: Path, noise_multiplier: float, *, is_refused: bool
) -> None:
    """One ledger for the data's whole life, whatever is trained of them."""
    made: Network = network("inspect")
    ledger, whole = open_ledger(made.nodes["north"]), made.federation.statement["epsilon"]
    charge: Any = {"sampling_prob": 1.0, "noise_multiplier": noise_multiplier, "steps": 1, "most_steps": 1}
    ledger.reserve("recommender", plan_hash="a" * 64, run="films/1", part="head", **charge)
    before = ledger.spent()[0]
    made.open()
    if is_refused:
        with pytest.raises(QuorumError, match=r"north: .*[Bb]udget"):
            made.run(tmp_path / "registry")
        assert ledger.spent()[0] == before
    else:
        made.run(tmp_path / "registry")
        assert whole + 0.5 < ledger.spent()[0] <= 95.0
        assert open_ledger(made.nodes["south"]).spent()[0] == pytest.approx(whole, abs=0.1)


def test_two_nodes_of_one_owner_pay_from_one_ledger(network: Any, tmp_path: Path) -> None:
    """One folder a federation, and one ledger for the rows that both learn from."""
    made: Network = network("inspect")
    first, second = made.nodes["north"], new_node(tmp_path / "far", "inspect")
    second = with_rows_of(second, first)
    agree(second, made.link())
    with pytest.raises(ConfigError, match="rows here are those of") as found:
        import_rows(second, tmp_path / "north.csv", COLUMNS)
    assert "ledger is there" in found.value.remedy
    others = {name: node for name, node in made.nodes.items() if name != "north"}
    both = Network(made.federation, {"far": second, **others}, made.desks)
    both.open()
    both.run(tmp_path / "registry", ("far", "south", "west"))
    assert open_ledger(first).spent()[0] == pytest.approx(made.federation.statement["epsilon"], abs=0.1)
    assert open_ledger(second).path == open_ledger(first).path
    del made.desks["far"]
    made.open()  # the same plan again is no new one either
    with pytest.raises(QuorumError, match=r"north: .* 1 are paid for"):
        made.run(tmp_path / "another")
    third = with_rows_of(new_node(tmp_path / "third", "inspect"), second)
    with pytest.raises(ConfigError, match="has its rows from another node"):
        third.data  # noqa: B018  # asked for what is refused


@pytest.mark.parametrize("gone", ["", "data", "state/ledger.sqlite"])
def test_what_a_node_has_paid_is_not_forgotten_for_another_ones_ledger(network: Any, gone: str) -> None:
    """Of the same people perhaps: their epsilon would be spent twice, with nothing to be seen of it."""
    nodes = network("inspect").nodes
    charge: Any = {"sampling_prob": 1.0, "noise_multiplier": 1.0, "steps": 1, "most_steps": 1}
    open_ledger(nodes["south"]).reserve("e", plan_hash="a" * 64, run="films/1", part="head", **charge)
    if gone:
        (nodes["south"].folder / gone).rename(nodes["south"].folder / "elsewhere")
    node = with_rows_of(nodes["south"], nodes["north"])
    with pytest.raises(ConfigError, match="rows or a ledger of its own") as found:
        open_ledger(node)
    assert "comes on top" in found.value.remedy
    with pytest.raises(ConfigError, match="rows or a ledger of its own"):
        node.data  # noqa: B018  # asked for what is refused


def test_whoever_is_deleted_is_in_no_later_round(network: Any, tmp_path: Path) -> None:
    made: Network = network("inspect")
    made.open()
    node, worker = made.nodes["north"], made.desks["north"].worker
    assert isinstance(worker, TaskWorker)
    assert worker.rows.n_users == USERS
    asked = ["forget", "north03", "--dir", str(node.folder), "--json"]
    told = CliRunner().invoke(cli, asked)
    assert json.loads(told.output) == {"user": "north03", "imported": True, "is_last": False, "service": None}
    made.run(tmp_path / "registry")
    assert worker.rows.n_users == USERS - 1
    assert open_ledger(node).spent()[0] == pytest.approx(made.federation.statement["epsilon"], abs=0.1)


def test_what_was_deleted_from_a_service_is_in_no_later_round(network: Any, catalog: ItemCatalog) -> None:
    """A service may have begun under other terms: its store decides who is still there."""
    made: Network = network("inspect")
    node, other = made.nodes["north"], made.nodes["south"]
    table = read_stored_interactions(node.data / INTERACTIONS, catalog)
    settings = read_serving(node.serving)
    store = ServingStore.open(store_url(node.serving, settings.store.database))
    books = store.of(settings.tenant_names[0])
    seed_imported(node.serving, books, table)
    books.users.remove("north04")
    gone = own_rows(node, made.terms, catalog)["north05"].items[0]
    books.events.remove("north05", catalog.ids[gone])
    store.close()
    found = own_rows(node, made.terms, catalog)
    assert len(found) == USERS - 1
    assert "north04" not in found
    assert gone not in found["north05"].items
    assert len(own_rows(other, made.terms, catalog)) == USERS


def test_too_few_users_pause_a_node(network: Any, tmp_path: Path) -> None:
    made: Network = network("inspect")
    made.open()
    node = made.nodes["north"]
    for user in range(USERS - 3):
        forget_imported(node, f"north{user:02d}")
    with pytest.raises(QuorumError, match="paused"):
        made.run(tmp_path / "registry")
    assert (node.state / PAUSED).exists()
    assert open_ledger(node).spent()[0] == 0
