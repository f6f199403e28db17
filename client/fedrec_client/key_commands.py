"""Commands of `flower-client` that change keys. When and how: docs/operations.md, "Key rotation"."""

from typing import Annotated, Any

import typer

from fedrec_client.command_words import HERE, AsJson, Folder, node_of, say

keys = typer.Typer()
_THEN = "Next: flower-client start"


@keys.command()
def rotate(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Put new keys in place of this node's, for which the old one vouches. Rows and ledger stay. Stop first."""
    from fedrec_client.own_keys import rotate as put

    node = node_of(folder)
    _say_key(node, put(node), as_json)


@keys.command()
def rekey(
    invite: Annotated[str, typer.Option(help="What `flower-server invite NAME --replace-keys` printed.")],
    folder: Folder = HERE,
    new_noise_key: Annotated[
        bool, typer.Option("--new-noise-key", help="The folder was stolen: draw later noise from another key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put new keys in place of lost or stolen ones, with an invitation. Rows and ledger stay. Stop first."""
    from fedrec.invitation import Invitation
    from fedrec_client.own_keys import rekey as put

    node = node_of(folder)
    _say_key(node, put(node, Invitation.from_token(invite), new_noise_key=new_noise_key), as_json)


@keys.command()
def trust(
    fingerprint: Annotated[str, typer.Option(help="SHA-256 of the coordinator's authority, hex, told by telephone.")],
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Trust another certificate authority of the coordinator, if a rotation was missed. Stop first."""
    from fedrec_client.own_keys import trust as pin

    pin(node_of(folder), fingerprint.lower().replace(":", ""))
    say({"authority": fingerprint}, as_json, f"trusted. {_THEN}")


def _say_key(node: Any, told: dict[str, Any], as_json: bool) -> None:
    from fedrec.signing import fingerprint

    key = fingerprint(node.signing_key().public)
    values = {"partner": told["partner"], "status": told["status"], "fingerprint": key}
    say(values, as_json, f"{told['partner']} ({told['status']}): this node's key is now {key}. {_THEN}")
