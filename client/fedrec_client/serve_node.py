"""`flower-client serve`: recommendations from the newest adapter that the node holds, beside the partner's own rows."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import read_stored_interactions
from fedrec.data.sources import cache_dir
from fedrec.errors import FedrecError
from fedrec.model.features import TextEncoder
from fedrec.model.recommender import write_state
from fedrec.model.shared import SharedModel, encoder_folder, load_shared
from fedrec.privacy.ledger_view import LedgerView
from fedrec.recommend.live_model import LiveModel
from fedrec_client.adapters import Adapters, HeldAdapter
from fedrec_client.agreement import Agreement
from fedrec_client.importing import INTERACTIONS, read_catalog_bytes
from fedrec_client.node import adapters_of
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.service import Served, Service
from fedrec_client.serving.settings import ServingSettings, read_serving
from fedrec_client.serving.starting import Say, Starting
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import seed_imported
from fedrec_client.settings import Node

_log = logging.getLogger(__name__)
NO_ADAPTER = "round-0000"


def serve_node(node: Node, say: Say = lambda _: None) -> None:
    """Serve until stopped; newer adapters take over as the node fetches them.

    Raises: RunError: no terms are agreed to yet. ConfigError: `serving.toml` is wrong, or the port is taken.
    """
    agreement, settings = Agreement.read(node), read_serving(node.serving)
    models = NodeModels(node, agreement, settings)
    Starting(
        folder=node.serving,
        settings=settings,
        make=models.first,
        say=say,
        after=models.follow,
        outside=Outside(models.statement, lambda: _budget(node)),
    ).run()


@dataclass
class NodeModels:
    """Adapters of a node as live models.

    Attributes:
        served: the version that was made last.
    """

    node: Node
    agreement: Agreement
    settings: ServingSettings
    served: HeldAdapter | None = None
    _catalog: ItemCatalog | None = field(default=None, repr=False)
    _shared: SharedModel | None = field(default=None, repr=False)
    _task: "asyncio.Task[None] | None" = field(default=None, repr=False)

    @property
    def _adapters(self) -> Adapters:
        return adapters_of(self.node, self.agreement)

    def first(self, say: Say) -> Served:
        """Rows into the store, then the newest adapter; before there is one the untrained, which ranks by likeness.

        Slow: called in a thread.
        """
        terms, machine = self.agreement.terms, self.node.settings.model
        catalog = self._catalog = read_catalog_bytes(self.agreement.catalog)
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
        folder, dim = self._shared.folder, config.feature_dim
        encoder = TextEncoder(
            catalog, folder, encoder_folder(config), layer=config.feature_layer, dim=dim, cache=cache_dir()
        )
        return Served(catalog, self.newest(), encoder.encode, self._shared.features.hash)

    def newest(self) -> LiveModel:
        """The newest adapter that is held, made ready. Raises RunError: damaged."""
        assert self._shared is not None
        terms, held = self.agreement.terms, self._adapters.held()
        model = self._shared.with_adapter(terms.model.shape, terms.seed)
        if held is not None:
            write_state(model, self._adapters.load())
        self.served = held
        version = f"round-{held.round:04d}" if held else NO_ADAPTER
        return LiveModel(model, version, terms.work.max_history, self.settings.model.new_item_boost)

    def statement(self) -> Mapping[str, Any] | None:
        """What the adapter that serves promises; None before the first."""
        return None if self.served is None else self.served.statement

    def follow(self, service: Service) -> None:
        """In the event loop: serve from newer adapters as they come."""
        self._task = asyncio.get_running_loop().create_task(self._follow(service))

    async def _follow(self, service: Service) -> None:
        while True:
            await asyncio.sleep(self.node.settings.local.adapter_every_s)
            try:
                held = await asyncio.to_thread(self._adapters.held)
                if held != self.served:
                    await service.swap(await asyncio.to_thread(self.newest))
            except FedrecError as error:
                _log.warning("the adapter before is served on: %s", error.problem, extra={"event": "no_swap"})


def _budget(node: Node) -> dict[str, float] | None:
    """For the partner's own people; None where the ledger cannot be read."""
    try:
        budget = LedgerView(node.ledger).budget()
    except FedrecError:
        return None
    if budget is None:
        return None
    return {
        "epsilon_spent": budget.epsilon_spent,
        "epsilon_left": budget.epsilon_remaining,
        "delta": budget.delta,
    }
