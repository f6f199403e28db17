"""A partner's worker for a task's head from its folder: agreed inputs, own rows, own ledger."""

from collections.abc import Callable

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import InteractionTable, read_stored_interactions
from fedrec.data.ratings import refuse_unlabelled
from fedrec.errors import ConfigError
from fedrec.model.shared import load_shared
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.signing import read_secret
from fedrec.tasks.head import TaskHead
from fedrec.tasks.own_rows import OwnRows, TasteRows
from fedrec.tasks.stars import rated_by
from fedrec.tasks.taste import PublicTaste
from fedrec.tasks.taste_head import SCALE, PublicRows, agreed_head
from fedrec.tasks.terms import TaskTerms
from fedrec.tasks.training import PlainWork
from fedrec.terms import FederationTerms, HeadTerms
from fedrec.wire import RoundPlan
from fedrec_client.agreement import Agreement
from fedrec_client.importing import INTERACTIONS, read_catalog_bytes
from fedrec_client.serving.settings import read_serving
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import imported_pairs, is_seeded
from fedrec_client.settings import Node
from fedrec_client.task_worker import TaskWorker
from fedrec_client.trained import pause_if_few, refuse_other_model, tie_break


def make_task_worker(node: Node, agreement: Agreement, ledger: PrivacyLedger) -> tuple[TaskWorker, int]:
    """The worker, and how many users the partner has.

    Raises: ModelError: this machine makes other inputs than the terms name. DataError: rows without ratings. As what it
        reads.
    """
    terms, catalog = agreement.terms, read_catalog_bytes(agreement.catalog)
    table = read_stored_interactions(node.data / INTERACTIONS, catalog)
    head_terms, taste = agreed_inputs(node, terms, catalog, table)
    rows = TasteRows(taste, tuple(own_rows(node, terms, catalog).values()))
    work = terms.work
    worker = TaskWorker(
        partner=node.settings.name,
        head=TaskHead(head_terms.shape),
        terms=head_terms,
        rows=rows,
        plan=terms.plan,
        ledger=ledger if terms.plan else None,
        noise_root=read_secret(node.keys / "noise.key", 32),
        work=PlainWork(weight_decay=work.weight_decay, batch_users=work.batch_users, most_rows=work.max_history),
        renew=_renewing(node, terms, catalog, taste),
    )
    return worker, rows.n_users


def agreed_inputs(
    node: Node, terms: FederationTerms, catalog: ItemCatalog, table: InteractionTable | None
) -> tuple[TaskTerms, PublicTaste]:
    """The head of the terms and the public taste that its inputs are made of, both made here and held against them.

    Args:
        table: the partner's own rows, which must not be the published ones.
    Raises: ModelError: another model, catalogue, feature, recipe or published rows than the terms name.
    """
    task, machine = task_of(terms), node.settings.model
    config = terms.model.config.model_copy(update={"device": machine.device, "threads": machine.threads})
    shared = load_shared(config, catalog, table)
    refuse_other_model(shared, catalog, terms)
    taste = PublicRows.named(config.public_data).taste(task.task, catalog, shared.features)
    return agreed_head(terms, taste, catalog), taste


def own_rows(
    node: Node, terms: FederationTerms, catalog: ItemCatalog, *, with_older: bool = False
) -> dict[str, OwnRows]:
    """What each of the partner's users says in ratings, read anew: who was deleted is not there. Private.

    Args:
        with_older: than the latest ratings that the terms read, too.
    Raises: DataError: rows without ratings, or with such that are not on the terms' scale.
    """
    task = task_of(terms)
    table = read_stored_interactions(node.data / INTERACTIONS, catalog)
    refuse_unlabelled(table, task.low, task.high)
    there = _still_there(node) if is_seeded(node.owner.serving) else None
    most_rows = table.n_rows if with_older else terms.work.max_history
    return rated_by(table, SCALE[task.task], most_rows=most_rows, seed=tie_break(node), only=there)


def task_of(terms: FederationTerms) -> HeadTerms:
    """Raises ConfigError: the federation trains a recommender."""
    if terms.task is None:
        raise ConfigError(
            f"{terms.name} trains a recommender, no task's head", "flower-client serve recommends from it"
        )
    return terms.task


def _still_there(node: Node) -> set[tuple[str, str]]:
    """What a service that runs beside the rows still has of them: what was deleted there is in no later round."""
    folder = node.owner.serving
    settings = read_serving(folder)
    store = ServingStore.open(store_url(folder, settings.store.database))
    try:
        return imported_pairs(store, settings)
    finally:
        store.close()


def _renewing(
    node: Node, terms: FederationTerms, catalog: ItemCatalog, taste: PublicTaste
) -> Callable[[RoundPlan], TasteRows]:
    """Reads the partner's rows as they are; with fewer users than the policy wants the node pauses."""

    def renew(_: RoundPlan) -> TasteRows:
        rows = own_rows(node, terms, catalog)
        pause_if_few(node, len(rows))
        return TasteRows(taste, tuple(rows.values()))

    return renew
