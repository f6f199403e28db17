"""A task's head trained by nodes from their own folders: agreed, imported, private, under masks, from one ledger."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.supercore.run import Run
from numpy.typing import NDArray

from fedrec.aggregation.mean import UniformMean
from fedrec.config import load_config
from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec.data.interactions import (
    ColumnMapping,
    Interaction,
    InteractionTable,
    read_stored_interactions,
    write_interactions,
)
from fedrec.errors import ConfigError, DataError, FedrecError, ModelError, ProtocolError, QuorumError
from fedrec.files import sha256
from fedrec.invitation import Invitation
from fedrec.privacy.integer_code import IntegerCode
from fedrec.registry.registry import Registry
from fedrec.signing import SigningKey
from fedrec.tasks.item_part import TENSOR
from fedrec.terms import FederationTerms, TaskName, read_terms
from fedrec_client import app as client_app
from fedrec_client.agreement import Agreement, agree, in_words
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.desk import NodeDesk
from fedrec_client.held_head import HeldHead, figures_of, highest
from fedrec_client.importing import INTERACTIONS, forget_imported, import_rows, read_catalog_bytes
from fedrec_client.node import RunningNode, adapters_of
from fedrec_client.peers import Peers
from fedrec_client.serve_node import serve_node
from fedrec_client.serving.settings import read_serving
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import seed_imported
from fedrec_client.settings import PAUSED, Node, make_node
from fedrec_client.task_worker import TaskWorker
from fedrec_client.trained_head import own_rows
from fedrec_client.worker_process import make_desk, open_ledger
from fedrec_server.rounds.exchange import Signatures
from fedrec_server.rounds.federation import Federation
from fedrec_server.rounds.heads import SignedHeads
from fedrec_server.rounds.masked import MaskedRounds
from fedrec_server.rounds.session import RoundSession, run_rounds
from fedrec_sim.cli_output import DEMO
from fedrec_sim.grid import InProcessGrid
from fedrec_sim.simulated_partner import PlainSums, WatchedSource
from fedrec_sim.tasks.network import make_task_federation

COORDINATOR = SigningKey(bytes(32))
NAMES = ("north", "south", "west")
USERS, ROUNDS = 30, 2
COLUMNS = ColumnMapping("user", "item", "rating", "timestamp")
EPSILON = 90.0  # so that the noise on the tests' few users leaves something to be seen


@dataclass
class Network:
    """Nodes in folders, and the coordinator's words for them."""

    federation: Federation
    nodes: dict[str, Node]
    desks: dict[str, NodeDesk] = field(default_factory=dict)
    sums: PlainSums = field(default_factory=PlainSums)
    events: list[dict[str, Any]] = field(default_factory=list)
    totals: list[NDArray[np.int64]] = field(default_factory=list)

    @property
    def terms(self) -> FederationTerms:
        return self.federation.terms

    def link(self) -> CoordinatorLink:
        network = self

        class Link:
            def terms(self) -> dict[str, Any]:
                terms, catalog = network.terms.to_dict(), network.federation.catalog_sha256
                signature = COORDINATOR.sign("federation-terms", terms)
                return {"terms": terms, "signature": signature, "catalog_sha256": catalog}

            def catalog(self, wanted: str) -> bytes:
                assert sha256(network.federation.catalog) == wanted
                return network.federation.catalog

        return cast(CoordinatorLink, Link())

    def open(self) -> None:
        """Every node's worker, as its process makes it; vectors are looked at before they are masked."""
        for name, node in self.nodes.items():
            desk = self.desks[name] = make_desk(node)
            if desk.sums is not None:
                worker = desk.sums.source
                desk.sums.source = WatchedSource(name, lambda worker=worker: worker, self.sums)  # type: ignore[misc]

    def session(self, registry: Registry, names: tuple[str, ...] = NAMES) -> RoundSession:
        """As the driver makes it."""
        terms, plan = self.terms, self.terms.plan
        keys = {name: self.nodes[name].signing_key().public for name in names}
        masked = None
        if terms.mode == "secagg":
            assert plan is not None
            assert terms.range_users is not None

            def audit(*told: Any) -> None:
                self.sums.compare(*told)
                self.totals.append(told[2])

            masked = MaskedRounds(plan, terms.range_users, keys, audit=audit)
        return RoundSession(
            run=f"{terms.name}/1",
            mode=terms.mode,
            seed=terms.seed,
            schedule=self.federation.schedule,
            registry=registry,
            initial_state=self.federation.initial,
            spec=terms.spec,
            aggregator=UniformMean(),
            partners=dict(enumerate(names, start=2)),
            quorum=plan.quorum + plan.dishonest if plan else len(names),
            max_attempts=1,
            round_timeout_s=60.0,
            max_norm=1e6,
            privacy_plan_hash=terms.plan_hash,
            statement=self.federation.statement,
            on_event=self.events.append,
            stop=lambda: False,
            signatures=Signatures(COORDINATOR, keys),
            masked=masked,
        )

    def run(self, folder: Path, names: tuple[str, ...] = NAMES) -> Registry:
        """All rounds, over Flower's messages and the installed ClientApp."""
        registry = Registry(folder)
        session = self.session(registry, names)
        grid = InProcessGrid(client_app.app, session.partners, Run.create_empty(1))
        run_rounds(grid, session)
        return registry


def stars(user: int, item: int) -> float:
    """Five for one genre and two for the others, a star more or less by item."""
    return float(np.clip((5 if item % 4 == user % 4 else 2) + item % 3 - 1, 1, 5))


def ratings(catalog: ItemCatalog, name: str, n_users: int, seed: int) -> list[Interaction]:
    """Of made people."""
    rng = np.random.default_rng([seed, *name.encode()])
    rows = []
    for user in range(n_users):
        for place, item in enumerate(rng.permutation(len(catalog))[: rng.integers(6, 14)]):
            rows.append(Interaction(f"{name}{user:02d}", catalog.ids[item], stars(user, item), 1000.0 * place, 0))
    return rows


def write_csv(path: Path, rows: list[Interaction]) -> Path:
    lines = [f"{row.user},{row.item},{row.rating},{row.timestamp:.0f}" for row in rows]
    path.write_text("\n".join(["user,item,rating,timestamp", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def published(catalog: ItemCatalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ratings that other people published."""
    folder = tmp_path_factory.mktemp("published")
    write_catalog(catalog, folder / "catalog.parquet")
    table = InteractionTable.from_rows(ratings(catalog, "p", 12, 9), catalog)
    write_interactions(table, folder / "interactions.parquet")
    return folder


@pytest.fixture(scope="module")
def make_federation(published: Path, tiny_llama: Path) -> Any:
    made: dict[str, Federation] = {}

    def make(mode: str, task: TaskName = "rating") -> Federation:
        asked = [f'model.backbone="{tiny_llama}"', 'model.sentence_encoder="none"', "model.feature_layer=2"]
        asked += [f'model.public_data="{published}"', "model.public_dim=16"]
        asked += ["partners=3", "rounds.quorum=3", f"rounds.dishonest={int(mode == 'secagg')}", "private.delta=1e-5"]
        row, key = f"federated_eps{EPSILON:g}_{mode}", f"{mode} {task}"
        if key not in made:
            config = load_config(DEMO, tuple(asked))
            small = config.model.model_copy(update={"feature_dim": 8})  # of which recommenders would want more
            made[key] = make_task_federation(
                config.model_copy(update={"model": small}),
                task=task,
                name="stars",
                row=row,
                catalog=(published / "catalog.parquet").read_bytes(),
                users_per_partner=USERS,
                seed=1,
                rounds=ROUNDS - 1,
            )
        return made[key]

    return make


def allow(node: Node, mode: str) -> Node:
    """The node with what the tests' terms cost in its policy."""
    path = node.folder / "client.toml"
    text = path.read_text().replace('modes = ["inspect"]', f'modes = ["{mode}"]')
    for name in ("epsilon_total", "epsilon_round"):
        text = text.replace(f"{name} = 8.0", f"{name} = 95.0")
    path.write_text(text.replace("min_users = 100", "min_users = 5"))
    return Node(node.folder)


def new_node(folder: Path, mode: str) -> Node:
    """Invited and enrolled under its folder's name."""
    invitation = Invitation("localhost:1", folder.name, "s", "0" * 64, COORDINATOR.public.hex())
    return allow(make_node(folder, invitation, b"PEM", 9094), mode)


@pytest.fixture
def network(catalog: ItemCatalog, make_federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(mode: str = "secagg", task: TaskName = "rating") -> Network:
        made = Network(make_federation(mode, task), {name: new_node(tmp_path / name, mode) for name in NAMES})
        for name, node in made.nodes.items():
            agree(node, made.link())
            import_rows(node, write_csv(tmp_path / f"{name}.csv", ratings(catalog, name, USERS, 1)), COLUMNS)
            for other in set(NAMES) - {name}:
                Peers(node).add(other, made.nodes[other].signing_key().public.hex())
        monkeypatch.setattr(client_app, "connect", lambda address: made.desks[address])
        return made

    return make


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
    with pytest.raises(DataError, match="were imported"):
        figures_of(held, write_csv(tmp_path / "known.csv", ratings(catalog, "north", USERS, 1)), COLUMNS)
    with pytest.raises(DataError, match="no item 'nothing'"):
        held.of_items("north01", ["nothing"])


def test_a_click_head_is_trained_alike(network: Any, catalog: ItemCatalog, tmp_path: Path) -> None:
    made: Network = network("secagg", "click")
    made.open()
    registry = made.run(tmp_path / "registry")
    assert made.sums.compared == ROUNDS
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


def hold(node: Node, registry: Registry, network: Network) -> None:
    """As the node's fetcher does, of a coordinator that signs its newest version."""
    heads = SignedHeads(registry)
    head = heads.sign(COORDINATOR, network.terms.name, 1)

    class Link:
        def adapter(self) -> dict[str, Any]:
            return {"head": head.to_dict(), "manifest": json.loads(heads.manifest(head))}

        def tensors(self, wanted: str) -> bytes:
            content = heads.tensors(head)
            assert sha256(content) == wanted
            return content

    adapters_of(node, Agreement.read(node)).fetch(cast(CoordinatorLink, Link()))


def test_what_is_agreed_to_is_read_before_a_row_is(network: Any) -> None:
    words = in_words(network().terms)
    for said in ("how many stars", "ratings of 1 to 5", "latest 1000 ratings", "part items, 1 steps at clip norm 1.9"):
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
    path = second.folder / "client.toml"
    path.write_text(path.read_text().replace('rows_of = ""', f'rows_of = "{first.folder}"'))
    second = Node(second.folder)
    agree(second, made.link())
    with pytest.raises(ConfigError, match="rows here are those of"):
        import_rows(second, tmp_path / "north.csv", COLUMNS)
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
    path = first.folder / "client.toml"
    path.write_text(path.read_text().replace('rows_of = ""', f'rows_of = "{second.folder}"'))
    with pytest.raises(ConfigError, match="has its rows from another node"):
        Node(second.folder).data  # noqa: B018  # asked for what is refused


def test_whoever_is_deleted_is_in_no_later_round(network: Any, tmp_path: Path) -> None:
    made: Network = network("inspect")
    made.open()
    node, worker = made.nodes["north"], made.desks["north"].worker
    assert isinstance(worker, TaskWorker)
    assert worker.rows.n_users == USERS
    forget_imported(node, "north03")
    made.run(tmp_path / "registry")
    assert worker.rows.n_users == USERS - 1


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
