"""A partner's worker from its folder: agreed model, imported rows, own ledger and keys. Loads torch."""

import hmac
import logging
from collections.abc import Callable

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import read_stored_interactions
from fedrec.data.sequences import build_sequences
from fedrec.errors import ModelError, PrivacyError
from fedrec.model.shared import SharedModel, load_shared
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.signing import read_secret
from fedrec.terms import FederationTerms
from fedrec.training.local import PlainSettings
from fedrec.wire import RoundPlan
from fedrec_client.agreement import Agreement
from fedrec_client.desk import generation_of
from fedrec_client.importing import INTERACTIONS, read_catalog_bytes
from fedrec_client.serving.settings import read_serving
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import Place, is_seeded, note_learnt, training_histories
from fedrec_client.settings import PAUSED, Node
from fedrec_client.worker import PartnerData, Worker

_log = logging.getLogger(__name__)


def make_worker(node: Node, agreement: Agreement, ledger: PrivacyLedger) -> tuple[Worker, int]:
    """The worker, and how many users the partner has.

    Raises: ModelError: this machine's model, catalogue or features are not those of the terms. As what it reads.
    """
    terms, machine = agreement.terms, node.settings.model
    catalog = read_catalog_bytes(agreement.catalog)
    rows = read_stored_interactions(node.data / INTERACTIONS, catalog)
    config = terms.model.config.model_copy(update={"device": machine.device, "threads": machine.threads})
    shared = load_shared(config, catalog, rows)
    refuse_other_model(shared, catalog, terms)
    source = _Stored(node, catalog)
    data = PartnerData.of(_from_store(node, catalog)) if is_seeded(node.owner.serving) else source.data()
    work = terms.work
    settings = PlainSettings(1e-3, work.weight_decay, work.batch_users, work.max_history)
    worker = Worker(
        partner=node.settings.name,
        model=shared.with_adapter(terms.model.shape, terms.seed),
        data=data,
        plan=terms.plan,
        ledger=ledger if terms.plan else None,
        noise_root=read_secret(node.keys / "noise.key", 32),
        plain=settings,
        renew=renewing(node, catalog, source),
    )
    return worker, len(data.histories)


class _Stored:
    """Imported rows as histories, read again once the file is another: somebody may have been deleted from it."""

    def __init__(self, node: Node, catalog: ItemCatalog) -> None:
        self._node, self._catalog = node, catalog
        self._known: tuple[tuple[int, int], PartnerData] | None = None

    def data(self) -> PartnerData:
        """As of now. Private. Raises DataError: the rows are damaged."""
        path = self._node.data / INTERACTIONS
        found = path.stat()
        place = (found.st_ino, found.st_mtime_ns)  # looked at first: a file that changes meanwhile is read again
        if self._known is None or self._known[0] != place:
            rows = read_stored_interactions(path, self._catalog)
            sequences = build_sequences(rows, tie_break(self._node))
            self._known = place, PartnerData.of([np.asarray(sequence.items) for sequence in sequences])
        return self._known[1]


def renewing(node: Node, catalog: ItemCatalog, stored: _Stored) -> Callable[[RoundPlan], PartnerData]:
    """Reads the partner's data as they are: from the store of its service, once there is one; else from the file.

    Decided anew each time, since a service may begin after the worker. With fewer users than the policy wants the node
    pauses: its people are told in the log, the coordinator no more than that it is paused.
    """

    def renew(plan: RoundPlan) -> PartnerData:
        if is_seeded(node.owner.serving):
            data = PartnerData.of(_from_store(node, catalog, (generation_of(plan.run), plan.round)))
        else:
            data = stored.data()
        pause_if_few(node, len(data.histories))
        return data

    return renew


def pause_if_few(node: Node, n_users: int) -> None:
    """Raises PrivacyError: fewer users than the policy wants; the node is paused from now on."""
    if n_users < node.settings.policy.min_users:
        (node.state / PAUSED).touch(mode=0o600)
        _log.error("fewer users than policy.min_users: paused", extra={"event": "too_few_users"})
        raise PrivacyError("comes while this node is paused", "the partner's client.toml says what it allows")


def _from_store(node: Node, catalog: ItemCatalog, place: Place | None = None) -> list[np.ndarray]:
    """What training reads, for the adapter of a place if they are to be trained on now."""
    folder = node.owner.serving
    settings = read_serving(folder)
    store = ServingStore.open(store_url(folder, settings.store.database))
    try:
        histories = training_histories(store, settings, catalog)
        if place is not None and node.owner is node:  # after they are read: what came meanwhile may be among them
            note_learnt(folder, store, settings, place)
        return histories
    finally:
        store.close()


def refuse_other_model(shared: SharedModel, catalog: ItemCatalog, terms: FederationTerms) -> None:
    """Raises ModelError: this machine's model, catalogue or features are not those of the terms."""
    model = terms.model
    found = {"backbone": shared.backbone.hash, "catalogue": catalog.hash, "item features": shared.features.hash}
    wanted = {"backbone": model.backbone_hash, "catalogue": model.catalog_hash, "item features": model.feature_hash}
    problems = [f"{name}: this machine has another one than the terms" for name in found if found[name] != wanted[name]]
    if problems:
        raise ModelError.of_all(problems, "fetch the same models; both sides must run the same fedrec", "model")


def tie_break(node: Node) -> int:
    """Rows of one second are ordered by chance, but always alike here, so that a repeated round has the same data."""
    digest = hmac.digest(read_secret(node.keys / "noise.key", 32), b"ties in time", "sha256")
    return int.from_bytes(digest[:4], "big")
