"""`flower-client peers`: with whom this node adds up under masks. How: docs/operations.md, "Secure aggregation"."""

from typing import Annotated

import typer

from fedrec_client.command_words import HERE, AsJson, Folder, node_of, say

peers = typer.Typer(
    no_args_is_help=True,
    help="Partners that this node adds up with under masks. Exchange keys with their owners, not over the coordinator.",
)


@peers.command("key")
def key_(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """This node's name and public key, to be given to the other partners."""
    from fedrec.signing import fingerprint

    node = node_of(folder)
    name, key = node.settings.name, node.signing_key().public
    say({"name": name, "key": key.hex(), "fingerprint": fingerprint(key)}, as_json, f"{name} {key.hex()}")


@peers.command("list")
def list_(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Who is accepted, with fingerprints to compare."""
    from fedrec.signing import fingerprint
    from fedrec_client.peers import Peers

    keys = Peers(node_of(folder)).keys()
    lines = [f"{name} {fingerprint(key)}" for name, key in keys.items()]
    values = {name: {"key": key.hex(), "fingerprint": fingerprint(key)} for name, key in keys.items()}
    say({"peers": values}, as_json, "\n".join(lines) or "no peers yet: flower-client peers add NAME KEY")


@peers.command()
def add(
    name: Annotated[str, typer.Argument(help="The partner's name in the federation.")],
    key: Annotated[str, typer.Argument(help="What its `flower-client peers key` printed after the name.")],
    folder: Folder = HERE,
    replace: Annotated[bool, typer.Option("--replace", help="It has a new key, and told you so itself.")] = False,
    as_json: AsJson = False,
) -> None:
    """Accept a partner's key from the next sum on."""
    from fedrec_client.peers import Peers

    found = Peers(node_of(folder)).add(name, key, replace=replace)
    say({"name": name, "fingerprint": found}, as_json, f"{name} is accepted with key {found}")


@peers.command()
def remove(
    name: Annotated[str, typer.Argument(help="The partner's name.")], folder: Folder = HERE, as_json: AsJson = False
) -> None:
    """Accept a partner no longer; this node then stays out of sums that it takes part in."""
    from fedrec_client.peers import Peers

    Peers(node_of(folder)).remove(name)
    say({"removed": name}, as_json, f"{name} is no peer any more")
