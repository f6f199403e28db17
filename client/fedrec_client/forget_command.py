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
    words = [f"imported rows: {'deleted' if gone.imported else 'none'}"]
    words += [] if gone.service is None else [f"the service's store: {kinds + ' deleted' if kinds else 'nothing'}"]
    say({"user": user, "imported": gone.imported, "service": gone.service}, as_json, f"{user}: {'; '.join(words)}")
