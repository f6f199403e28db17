"""`flower-client serve`: recommendations from the newest adapter that the node holds, beside the partner's own rows."""

import asyncio
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fedrec.data.interactions import read_stored_interactions
from fedrec.data.sources import cache_dir
from fedrec.errors import FedrecError
from fedrec.model.adapter import AdapterState
from fedrec.model.recommender import write_state
from fedrec.model.shared import SharedModel, encoder_folder, load_shared, sentences_of
from fedrec.privacy.ledger_view import LedgerView
from fedrec.processes import only_one
from fedrec.query.query_model import QuerySource, load_query_model
from fedrec.recommend.live_model import LiveModel
from fedrec_client.adapters import Adapters
from fedrec_client.agreement import Agreement, refuse_to_serve
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.importing import INTERACTIONS, forget_imported, read_catalog_bytes
from fedrec_client.node import adapters_of
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.learning.learning import Coordination, Learning
from fedrec_client.serving.learning.promotion import Sources
from fedrec_client.serving.learning.promotion_record import Candidate, PromotionBook
from fedrec_client.serving.learning.scheduler import Budget
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.service import Served, Service
from fedrec_client.serving.settings import ServingSettings, read_serving
from fedrec_client.serving.starting import Say, Starting
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import Place, learnt_seq, seed_imported
from fedrec_client.settings import SERVING_LOCK, Node

NO_ADAPTER = "round-0000"


def serve_node(node: Node, say: Say = lambda _: None) -> None:
    """Serve until stopped; newer adapters take over as the node fetches them.

    Raises: RunError: no terms are agreed to yet, or a service runs here. ConfigError: `serving.toml` is wrong, the port
        is taken, or the terms are those of a task's head, which recommends nothing.
    """
    agreement = Agreement.read(node)
    refuse_to_serve(node, agreement.terms)
    settings = read_serving(node.serving)
    models = NodeModels(node, agreement, settings)
    with only_one(node.state / SERVING_LOCK, "`flower-client stop` ends it, if `start` began it"):
        Starting(
            folder=node.serving,
            settings=settings,
            make=models.first,
            say=say,
            after=models.live,
            outside=Outside(models.statement, models.budget),
        ).run()


@dataclass
class NodeModels:
    """Adapters of a node as live models.

    Attributes:
        began: what the service was opened with; None: the untrained one.
    """

    node: Node
    agreement: Agreement
    settings: ServingSettings
    began: Candidate | None = None
    _statements: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    _places: dict[str, Place] = field(default_factory=dict, repr=False)
    _shared: SharedModel | None = field(default=None, repr=False)

    @property
    def _adapters(self) -> Adapters:
        return adapters_of(self.node, self.agreement)

    def first(self, say: Say) -> Served:
        """Rows into the store, then the newest adapter; before there is one the untrained, which ranks by likeness.

        Slow: called in a thread.
        """
        terms, machine = self.agreement.terms, self.node.settings.model
        catalog = read_catalog_bytes(self.agreement.catalog)
        rows = None
        if (path := self.node.data / INTERACTIONS).is_file():
            rows = read_stored_interactions(path, catalog)
            store = ServingStore.open(store_url(self.node.serving, self.settings.store.database))
            try:
                seed_imported(self.node.serving, store.of(self.settings.tenant_names[0]), rows, say)
            finally:
                store.close()
        config = terms.model.config.model_copy(update={"device": machine.device, "threads": machine.threads})
        self._shared = load_shared(config, catalog, rows, say)
        self.began = PromotionBook(self.node.serving).at_start(self.newest())
        folder, later = self._shared.folder, self._shared.later_items(catalog)
        queries = load_query_model(QuerySource(catalog, folder, encoder_folder(config), config.layers), cache_dir())
        features, sentences = self._shared.features.hash, sentences_of(config)
        return Served(catalog, self.make(self.began), later, features, queries, sentences)

    def newest(self) -> Candidate | None:
        """The newest adapter that is held; its name tells generations apart, since rounds are counted anew."""
        held = self._adapters.held()
        if held is None:
            return None
        version = f"round-{held.round:04d}" + ("" if held.generation == 1 else f"-of-{held.generation}")
        self._statements[version], self._places[version] = held.statement, (held.generation, held.round)
        return Candidate(version, held.adapter_hash, lambda: self._adapters.load().to_bytes())

    def _learnt(self, candidate: Candidate, tenant: str) -> int:
        return learnt_seq(self.node.serving, tenant, self._places[candidate.version])

    def make(self, candidate: Candidate | None) -> LiveModel:
        """An adapter made ready; the untrained one of None. Raises RunError: damaged."""
        assert self._shared is not None
        terms = self.agreement.terms
        model = self._shared.with_adapter(terms.model.shape, terms.seed)
        if candidate is not None:
            write_state(model, AdapterState.from_bytes(candidate.content()))
        version = candidate.version if candidate else NO_ADAPTER
        return LiveModel(model, version, terms.work.max_history, self.settings.model.new_item_boost)

    def statement(self) -> Mapping[str, Any] | None:
        """What the newest adapter promises; None before the first."""
        return next(reversed(self._statements.values()), None)

    async def live(self, service: Service, metrics: ServingMetrics) -> None:
        """Watch, replay newer adapters before they serve, ask for rounds; until the service ends.

        Before there is any adapter too: where rounds wait for a wish, the first one does.
        """
        asked = Asked()
        service.tenants()[0].tenant.on_removed.append(self._forget)
        metrics.tell(asked)
        sources = Sources(self.newest, self.make, asked.counts, self._learnt)
        coordination = Coordination(self._cost, self._wish) if self.settings.learning.rounds else None
        learning = Learning(service, self.began, sources, coordination)
        await learning.start()
        try:
            await asyncio.Event().wait()
        finally:
            await learning.close()

    def _forget(self, user: str) -> None:
        """Imported rows are of the first tenant's people."""
        forget_imported(self.node, user)

    def budget(self) -> dict[str, float] | None:
        """For the partner's own people; None where the ledger cannot be read."""
        try:
            found = self._ledger.budget()
        except FedrecError:
            return None
        return {"epsilon_spent": found.epsilon_spent, "epsilon_left": found.epsilon_remaining, "delta": found.delta}

    def _cost(self) -> Budget | None:
        """What is left, and what the next round may take of it."""
        terms = self.agreement.terms
        if terms.plan is None:
            return None
        try:
            price = self._ledger.price_of_next(terms.plan, terms.name)
            return Budget(self._ledger.budget().epsilon_remaining, price)
        except FedrecError:
            return None

    @cached_property
    def _ledger(self) -> LedgerView:
        """One for all who look, since it remembers what it added up."""
        return LedgerView(self.node.ledger)

    def _wish(self) -> None:
        with closing(CoordinatorLink(self.node)) as link:
            link.wish()


class Asked:
    """How many lists were asked for since the process began, and how many of these failed here."""

    def __init__(self) -> None:
        self._asked = self._failed = 0

    def note_answer(self, route: str, status: int, seconds: float) -> None:
        """See `Observer`."""
        del seconds
        if "recommend" in route or "/rank" in route:
            self._asked += 1
            self._failed += status >= 500 and status != 503  # which is said when too much is asked at once

    def note_events(self, n: int) -> None:
        """See `Observer`."""

    def counts(self) -> tuple[int, int]:
        """Asked, failed."""
        return self._asked, self._failed
