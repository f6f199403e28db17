"""`flower-client`: a partner's node, from the invitation on."""

import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedrec.errors import FedrecError, ProtocolError
from fedrec_client.api_key_commands import api_keys
from fedrec_client.command_words import HERE, AsJson, Folder
from fedrec_client.command_words import node_of as _node
from fedrec_client.command_words import say as _say
from fedrec_client.fairness_command import fairness
from fedrec_client.forget_command import forget
from fedrec_client.head_commands import evaluate, predict
from fedrec_client.key_commands import keys
from fedrec_client.peer_commands import peers

errors = Console(stderr=True)
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Take part in a federation: rows, keys and budget stay in this node's folder. Start with "
    "`flower-client init DIR --invite TOKEN`. Not to be mixed up with `flower-client-app` of old Flower releases. "
    "Exit codes: docs/errors.md.",
)
app.add_typer(keys)
app.add_typer(peers, name="peers")
app.add_typer(api_keys, name="api-keys")
app.command()(predict)
app.command()(evaluate)
app.command()(fairness)
app.command()(forget)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    invite: Annotated[str, typer.Option(help="What the coordinator's `flower-server invite` printed.")],
    port: Annotated[int, typer.Option(help="Of Flower's SuperNode, on the loopback.")] = 9094,
    metrics_port: Annotated[int, typer.Option(help="Of the node's metrics, on the loopback; 0: none.", min=0)] = 0,
    root_certificates: Annotated[
        Path | None, typer.Option(help="The coordinator's ca.pem, given by hand; fetched otherwise.")
    ] = None,
    auth_supernode_private_key: Annotated[
        Path | None, typer.Option(help="An own P-384 key for Flower's node; one is made otherwise.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make this node's keys, check that the coordinator is the one of the invitation, and enrol.

    `--root-certificates` and `--auth-supernode-private-key` are named as Flower's; either way the authority must be
    the one that the invitation names.

    Example: `flower-client init /srv/fedrec-node --invite fedrec1.eyJ...`
    """
    from fedrec.invitation import Invitation
    from fedrec.signing import fingerprint
    from fedrec_client.authority import read_authority
    from fedrec_client.coordinator_link import CoordinatorLink, fetch_authority, meet
    from fedrec_client.node_key import read_node_key
    from fedrec_client.settings import make_node, mark_enrolled, unmake_node

    invitation = Invitation.from_token(invite)
    own_key = read_node_key(auth_supernode_private_key) if auth_supernode_private_key else None
    if root_certificates:
        authority = read_authority(root_certificates, invitation.authority)
    else:
        authority = fetch_authority(invitation.address, invitation.authority)
    meet(invitation.address, authority)
    node = make_node(folder, invitation, authority, port, metrics_port, own_key)
    try:
        with closing(CoordinatorLink(node)) as link:
            told = link.enrol(invitation.secret, node.keys)
    except ProtocolError:
        unmake_node(node)  # refused: these keys are nobody's
        raise
    mark_enrolled(node)
    key = fingerprint(node.signing_key().public)
    values = {"folder": str(folder), "partner": invitation.name, "status": told["status"], "fingerprint": key}
    _say(values, as_json, f"{folder}: enrolled as {invitation.name} ({told['status']}); this node's key is {key}")


@app.command()
def agree(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Fetch the federation's terms, hold them against this node's policy, and keep them."""
    from fedrec_client.agreement import agree as take
    from fedrec_client.agreement import in_words
    from fedrec_client.coordinator_keys import CoordinatorKeys, describe_key
    from fedrec_client.coordinator_link import CoordinatorLink

    node = _node(folder)
    with closing(CoordinatorLink(node)) as link:
        terms = take(node, link, anew=True).terms
    key = describe_key(CoordinatorKeys(node))["fingerprint"]
    values = {"federation": terms.name, "mode": terms.mode, "terms": terms.hash, "plan": terms.plan_hash}
    values |= {"coordinator_key": key, "trains": in_words(terms, node.settings.policy.delta)}
    words = f"agreed to {terms.name}, mode {terms.mode}, terms {terms.hash[:16]}, signed by {key}"
    _say(values, as_json, f"{words}: {values['trains']}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Interactions: CSV, TSV, Parquet or JSON lines.")],
    folder: Folder = HERE,
    user: Annotated[str, typer.Option(help="Column of the user.")] = "user",
    item: Annotated[str, typer.Option(help="Column of the item.")] = "item",
    timestamp: Annotated[str, typer.Option(help="Column of the time: Unix seconds or ISO 8601.")] = "timestamp",
    rating: Annotated[str | None, typer.Option(help="Column of the rating, if there is one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check and store this partner's rows; they never leave this folder. Makes the ledger with the policy's budget."""
    from fedrec.data.interactions import ColumnMapping
    from fedrec_client.importing import import_rows

    found = import_rows(_node(folder), file, ColumnMapping(user, item, rating, timestamp))
    _say(found, as_json, f"{found['users']} users, {found['rows']} interactions")


@app.command()
def start(folder: Folder = HERE) -> None:
    """Run the SuperNode and the warm worker until stopped; answers rounds that the policy allows."""
    from fedrec.logs import log_json
    from fedrec_client.node import RunningNode

    log_json()
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    running = RunningNode(_node(folder))
    running.stop_on_signals()
    running.run()


@app.command()
def serve(folder: Folder = HERE) -> None:
    """Serve recommendations beside this partner's rows: three APIs, a storefront, the operator's page.

    serving/serving.toml says how; it is written with its defaults at the first start. docs/serving.md has curl lines.
    `start` does this too with `local.serve = true`.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are loaded: see serving.toml, model.threads
    from fedrec.logs import log_json
    from fedrec_client.serve_node import serve_node

    log_json()
    serve_node(_node(folder), lambda line: errors.print(line, markup=False))


@app.command()
def stop(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """End a node that runs on this machine."""
    number = _running(_node(folder))
    if number is not None:
        os.kill(number, signal.SIGTERM)
    _say({"stopped": number is not None}, as_json, "stopping" if number else "nothing runs here")


@app.command()
def status(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """What runs, the latest round, the adapter that is held, why the last round was refused."""
    from fedrec_client.glance import glance

    told = glance(_node(folder))
    words = f"{told['partner']}: {'running' if told['running'] else 'not running'}, round {told['round']}"
    adapter = told["adapter"]["round"]
    _say(told, as_json, f"{words}, adapter {'none' if adapter is None else 'of round ' + str(adapter)}")


@app.command()
def budget(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """What the ledger says was spent, and what is left."""
    from fedrec_client.worker_process import open_ledger

    ledger = open_ledger(_node(folder))
    epsilon, delta = ledger.spent()
    values = {"epsilon_spent": epsilon, "epsilon_left": ledger.remaining(), "delta": delta}
    _say(values, as_json, f"epsilon {epsilon:.3f} spent, {values['epsilon_left']:.3f} left, at delta {delta:g}")


@app.command()
def pause(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Refuse rounds until `resume`."""
    from fedrec_client.settings import PAUSED

    (_node(folder).state / PAUSED).touch(mode=0o600)
    _say({"paused": True}, as_json, "paused")


@app.command()
def resume(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Answer rounds again."""
    from fedrec_client.settings import PAUSED

    (_node(folder).state / PAUSED).unlink(missing_ok=True)
    _say({"paused": False}, as_json, "goes on")


@app.command()
def leave(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Tell the coordinator that this partner takes no further part. Rows, ledger and adapter stay here."""
    from fedrec_client.coordinator_link import CoordinatorLink

    node = _node(folder)
    with closing(CoordinatorLink(node)) as link:
        told = link.leave()
    _say(told, as_json, f"{node.settings.name}: {told['status']}")


def main() -> None:
    """Entry point: a named error is printed without a traceback and sets its exit code."""
    try:
        app()
    except FedrecError as error:
        errors.print(f"[red]{type(error).__name__}[/red]: ", end="")
        errors.print(str(error), markup=False, highlight=False)
        sys.exit(error.exit_code)


def _running(node: Any) -> int | None:
    from fedrec.processes import holder_of

    return holder_of(node.state / "running.lock")
