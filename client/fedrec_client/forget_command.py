"""`flower-client forget`: delete somebody at a node."""

from typing import Annotated

import typer

from fedrec_client.command_words import HERE, AsJson, Folder, node_of, say


def forget(
    user: Annotated[str, typer.Argument(help="As in the imported rows.")],
    folder: Folder = HERE,
    tenant: Annotated[str, typer.Option(help="Of a service with several shops, which; the first otherwise.")] = "",
    as_json: AsJson = False,
) -> None:
    """Delete a user's imported rows, and all that a service's store keeps of them; no later round reads them.

    Charges nothing. The node may run; a service may not, since it deletes people by its own API. Adapters that left
    already, backups and the files that were imported keep what they have. docs/operations.md says more.

    Example: `flower-client forget 42 --dir /srv/fedrec-node`
    """
    from fedrec_client.forgetting import forget as delete

    gone = delete(node_of(folder), user, tenant)
    kinds = ", ".join(f"{n} {kind}" for kind, n in (gone.service or {}).items() if n)
    rows = "deleted" if gone.imported else "none"
    if gone.is_last:
        rows = f"nobody else's are there, so they stay in {folder}/data, where no round reads them"
    words = [f"imported rows: {rows}"]
    words += [] if gone.service is None else [f"the service's store: {kinds + ' deleted' if kinds else 'nothing'}"]
    told = {"user": user, "imported": gone.imported, "is_last": gone.is_last, "service": gone.service}
    say(told, as_json, f"{user}: {'; '.join(words)}")
