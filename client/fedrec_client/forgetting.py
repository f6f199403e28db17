"""`flower-client forget`: somebody's rows go from the imported ones and from a stopped service's store."""

from dataclasses import dataclass

from fedrec.data.interactions import read_stored_interactions
from fedrec.errors import ConfigError, RunError
from fedrec.processes import only_one
from fedrec_client.agreement import Agreement
from fedrec_client.importing import INTERACTIONS, forget_imported, read_catalog_bytes
from fedrec_client.serving.settings import FILE, ServingSettings, read_serving
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import imported_pairs, is_seeded, seed_imported
from fedrec_client.settings import SERVING_LOCK, Node


@dataclass(frozen=True)
class Forgotten:
    """What was deleted. Private.

    Attributes:
        imported: whether there were imported rows that are gone now.
        service: rows that went from the service's store, by kind; None: no service has run here.
        is_last: the imported rows are this user's alone and stay in their file, which must have some; no round reads
            them.
    """

    imported: bool
    service: dict[str, int] | None
    is_last: bool = False


def forget(node: Node, user: str, tenant: str = "") -> Forgotten:
    """Delete somebody here, as a service's API does; no later round reads them. Nothing is charged.

    A call that dies may be repeated: it goes on. The store is asked last, and decides from then on who is trained on.

    Args:
        tenant: of several of the service, whose user it is; the first, with whose people rows are imported, otherwise.
    Raises:
        ConfigError: the rows are another node's, or no such tenant.
        RunError: a service runs here, which knows more of people than its store; no terms are agreed to yet; or nobody
            else is among the imported rows.
        DataError: the rows are damaged. StorageError.
    """
    if node.owner is not node:
        owner = node.owner.folder
        raise ConfigError(f"the rows here are those of {owner}", f"flower-client forget USER --dir {owner}")
    running = "a service runs here: DELETE /v1/users/ID of its API deletes people, or `flower-client stop` first"
    with only_one(node.state / SERVING_LOCK, running):
        if (opened := _store(node)) is None:
            if tenant:
                raise ConfigError(f"no tenant {tenant!r}: no service has run here", "leave --tenant away")
            _refuse_last(node, user)
            return Forgotten(forget_imported(node, user), None)
        store, settings = opened
        try:
            return _everywhere(node, user, tenant, store, settings)
        finally:
            store.close()


def _everywhere(node: Node, user: str, tenant: str, store: ServingStore, settings: ServingSettings) -> Forgotten:
    first, imported, is_last = settings.tenant_names[0], False, False
    if tenant and tenant not in settings.tenant_names:
        raise ConfigError(f"no tenant {tenant!r}", f"name one of {', '.join(settings.tenant_names)}")
    if tenant in ("", first):
        if not is_seeded(node.serving) and imported_pairs(store, settings):
            # A first start was cut short, and numbers its events by the rows of the file: it must end before these go.
            catalog = read_catalog_bytes(Agreement.read(node).catalog)
            seed_imported(node.serving, store.of(first), read_stored_interactions(node.data / INTERACTIONS, catalog))
        if not is_seeded(node.serving):
            _refuse_last(node, user)
        imported = forget_imported(node, user)
        is_last = not imported and _is_last(node, user)
    return Forgotten(imported, store.of(tenant or first).users.remove(user), is_last)


def _store(node: Node) -> tuple[ServingStore, ServingSettings] | None:
    """Of the service that has run here."""
    if not (node.serving / FILE).is_file():
        return None
    settings = read_serving(node.serving)
    if settings.store.database == "sqlite" and not (node.serving / "serving.sqlite").is_file():
        return None
    return ServingStore.open(store_url(node.serving, settings.store.database)), settings


def _refuse_last(node: Node, user: str) -> None:
    """A file of rows must have some; without a store it alone decides who is trained on."""
    if _is_last(node, user):
        raise RunError(
            f"{node.data}: nobody else has rows here, and nothing was deleted",
            "flower-client stop, remove this folder, and repeat; the ledger stays, and other rows may be imported",
        )


def _is_last(node: Node, user: str) -> bool:
    path = node.data / INTERACTIONS
    if not path.is_file():
        return False
    return read_stored_interactions(path, read_catalog_bytes(Agreement.read(node).catalog)).user_ids == (user,)
