"""Nodes in folders and a coordinator in one process, for a task's head: what tests of it have alike."""

import json
from dataclasses import dataclass, field
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
    write_interactions,
)
from fedrec.files import sha256
from fedrec.invitation import Invitation
from fedrec.registry.registry import Registry
from fedrec.signing import SigningKey
from fedrec.terms import FederationTerms, TaskName
from fedrec_client import app as client_app
from fedrec_client.agreement import Agreement, agree
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.desk import NodeDesk
from fedrec_client.importing import import_rows
from fedrec_client.node import adapters_of
from fedrec_client.peers import Peers
from fedrec_client.settings import Node, make_node
from fedrec_client.worker_process import make_desk
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
        row, key = "federated" if mode == "none" else f"federated_eps{EPSILON:g}_{mode}", f"{mode} {task}"
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
