"""`flower-server`: a coordinator from the first day on."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedrec.errors import ConfigError, FedrecError
from fedrec.logs import log_json
from fedrec_server.command_words import HERE, AsJson, Folder, console
from fedrec_server.command_words import coordinator_of as _coordinator
from fedrec_server.command_words import say as _say
from fedrec_server.key_commands import keys

errors = Console(stderr=True)
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Coordinate a federation: rounds, partners, adapter versions. Start with `flower-server init DIR`. "
    "Not to be mixed up with `flower-server-app` of old Flower releases, which ran a ServerApp. "
    "Exit codes: docs/errors.md.",
)
partner = typer.Typer(no_args_is_help=True, help="Who takes part.")
app.add_typer(partner, name="partner")
app.add_typer(keys)

Name = Annotated[str, typer.Argument(help="The partner's name.")]
CaFile = Annotated[Path | None, typer.Option("--ssl-ca-certfile", help="A company's own root, which partners pin.")]
CertFile = Annotated[
    Path | None, typer.Option("--ssl-certfile", help="Its certificate for the public hosts, intermediates behind it.")
]
KeyFile = Annotated[Path | None, typer.Option("--ssl-keyfile", help="The key of that certificate, unencrypted PEM.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    name: Annotated[str, typer.Option(help="What partners see: small letters, digits, hyphens.")] = "federation",
    host: Annotated[list[str] | None, typer.Option(help="Name or address that partners use; repeat it.")] = None,
    port: Annotated[int, typer.Option(help="Of the gateway.")] = 8443,
    superlink_port: Annotated[int, typer.Option(help="Of Flower's SuperLink, on the loopback.")] = 9191,
    admin_port: Annotated[int, typer.Option(help="Of the admin API, on the loopback.")] = 8444,
    ssl_ca_certfile: CaFile = None,
    ssl_certfile: CertFile = None,
    ssl_keyfile: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Write `server.toml`, a certificate authority, a server certificate and the coordinator's signing key.

    The three `--ssl` options, named as Flower's, take a company's own authority and certificate instead.

    Example: `flower-server init /srv/fedrec --name films --host coordinator.example`
    """
    from fedrec_server.settings import make_coordinator

    ports = {"GATEWAY_PORT": port, "SUPERLINK_PORT": superlink_port, "ADMIN_PORT": admin_port}
    hosts = tuple(host or ["localhost"])
    given = _given(ssl_ca_certfile, ssl_certfile, ssl_keyfile, hosts)
    made = make_coordinator(folder, name=name, hosts=hosts, ports=ports, given=given)
    told = {"folder": str(folder), "coordinator": made.signing_key().public.hex(), "authority": _authority(made)}
    _say(told, as_json, f"{folder}: ready. Next: flower-server use FEDERATION --dir {folder}")


@app.command()
def use(
    federation: Annotated[Path, typer.Argument(help="A folder that `fedrec federation make` wrote.")],
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Take a federation to train: its terms are signed, and partners agree to them."""
    from fedrec_server.rounds.federation import Federation

    taken = Federation.read(federation)
    _coordinator(folder).use(taken)
    told = {"federation": taken.terms.name, "terms": taken.terms.hash, "rounds": len(taken.schedule)}
    _say(told, as_json, f"{taken.terms.name}: {len(taken.schedule)} rounds. Next: flower-server invite NAME")


@app.command()
def invite(
    name: Name,
    folder: Folder = HERE,
    hours: Annotated[float, typer.Option(help="How long it is valid.", min=0.01)] = 72.0,
    approve: Annotated[bool, typer.Option("--approve", help="Approve as soon as it enrols.")] = False,
    replace_keys: Annotated[
        bool,
        typer.Option("--replace-keys", help="For a partner whose keys are lost or stolen; they stop counting now."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a one-time invitation for a partner; send it like a password."""
    from fedrec_server.admin import administration

    made = administration.invite(
        _coordinator(folder), name, hours=hours, is_approved=approve, replaces_keys=replace_keys, who="cli"
    )
    _say(made, as_json, made["invitation"])


@app.command()
def certificate(
    folder: Folder = HERE,
    days: Annotated[int, typer.Option(help="How long it is valid, if it is made here.", min=1)] = 825,
    ssl_certfile: CertFile = None,
    ssl_keyfile: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Renew the server certificate for `gateway.public_hosts`; partners notice nothing. Start anew afterwards.

    With `--ssl-certfile` and `--ssl-keyfile` it is a given one, of the authority that partners have pinned.
    """
    from fedrec_server.keys.certificates import expires_at, make_server_certificate

    made = _coordinator(folder)
    hosts = made.settings.gateway.public_hosts
    authority = made.keys / "ca.pem" if ssl_certfile or ssl_keyfile else None
    given = _given(authority, ssl_certfile, ssl_keyfile, hosts)
    if given is None:
        make_server_certificate(made.keys, hosts, days)
    else:
        given.write(made.keys)
    until = expires_at(made.keys).isoformat()
    _say({"expires_at": until}, as_json, f"valid until {until}")


@app.command()
def password(
    folder: Folder = HERE,
    remove: Annotated[bool, typer.Option("--remove", help="Let the token alone open the pages again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set the password of the admin pages, asked for twice or read from a pipe; whoever is logged in must do so anew.

    Example: `flower-server password --dir /srv/fedrec < password.txt`
    """
    from fedrec_server.keys.credentials import remove_password, set_password
    from fedrec_server.state.store import Office

    made = _coordinator(folder)
    keys = made.keys
    if remove:
        remove_password(keys)
    elif sys.stdin.isatty():
        set_password(keys, typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    else:
        set_password(keys, sys.stdin.readline().rstrip("\n"))
    Office(made.database).note("cli", "password removed" if remove else "password set", {})
    _say({"has_password": not remove}, as_json, "removed" if remove else "set")


@app.command()
def start(folder: Folder = HERE) -> None:
    """Run the SuperLink, the gateway, the rounds and the admin pages until stopped."""
    from fedrec_server.supervisor import Supervisor

    log_json()
    supervisor = Supervisor(_coordinator(folder))
    supervisor.stop_on_signals()
    supervisor.run()


@app.command()
def stop(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """End a coordinator that runs on this machine; committed rounds stay."""
    from fedrec_server.supervisor import running_pid

    number = running_pid(_coordinator(folder))
    if number is not None:
        os.kill(number, signal.SIGTERM)
    _say({"stopped": number is not None}, as_json, "stopping" if number else "nothing runs here")


@app.command()
def status(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """What runs, who takes part, how far training is."""
    from fedrec_server.admin.overview import overview

    told = overview(_coordinator(folder))
    if as_json:
        _say(told, True, "")
        return
    console.print(f"{told['federation']}: round {told['round']} of {told['rounds']}, ", end="")
    console.print("running" if told["running"] else "not running", ", paused" if told["paused"] else "")
    _print_partners(told["partners"])


@app.command()
def rounds(
    folder: Folder = HERE,
    limit: Annotated[int, typer.Option(help="How many attempts.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """The latest attempts at rounds, newest first."""
    from fedrec_server.state.round_book import RoundBook

    found = RoundBook(_coordinator(folder).database).latest(limit)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table("round", "attempt", "part", "status", "seconds", "partners", "lost")
    for one in found:
        lost = "; ".join(f"{name}: {reason}" for name, reason in one["reasons"].items())
        partners = one["partners"] if isinstance(one["partners"], int) else ", ".join(one["partners"])
        cells = (one["round"], one["attempt"], one["part"], one["status"], f"{one['seconds']:.1f}", partners, lost)
        table.add_row(*map(str, cells))
    console.print(table)


@app.command()
def rollback(
    number: Annotated[int, typer.Argument(metavar="ROUND", help="A committed round.", min=0)],
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """Let partners serve an earlier version again, and train on from it. Nothing is deleted. Pause or stop first."""
    from fedrec_server.admin import administration

    head = administration.roll_back(_coordinator(folder), number, who="cli")
    _say(head.to_dict(), as_json, f"round {head.round}, generation {head.generation}")


@app.command()
def pause(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Begin no further round; the one under way is dropped."""
    _set_paused(folder, True, as_json)


@app.command()
def resume(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Go on."""
    _set_paused(folder, False, as_json)


@partner.command("list")
def list_partners(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Everybody who ever enrolled."""
    from fedrec_server.admin.overview import partners_told

    found = partners_told(_coordinator(folder))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print_partners(found)


@partner.command()
def approve(name: Name, folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Let a partner take part. Compare the fingerprint of its key with it first."""
    _set_status(folder, name, "approved", as_json)


@partner.command()
def suspend(name: Name, folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Keep a partner out until it is approved again."""
    _set_status(folder, name, "suspended", as_json)


@partner.command()
def remove(name: Name, folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Keep a partner out for good."""
    _set_status(folder, name, "removed", as_json)


def main() -> None:
    """Entry point: a named error is printed without a traceback and sets its exit code."""
    try:
        app()
    except FedrecError as error:
        errors.print(f"[red]{type(error).__name__}[/red]: ", end="")
        errors.print(str(error), markup=False, highlight=False)
        sys.exit(error.exit_code)


def _given(authority: Path | None, certificate: Path | None, key: Path | None, hosts: tuple[str, ...]) -> Any:
    from fedrec_server.keys.given_certificates import read_given

    if authority is None and certificate is None and key is None:
        return None
    if authority is None or certificate is None or key is None:
        missing = {"--ssl-ca-certfile": authority, "--ssl-certfile": certificate, "--ssl-keyfile": key}
        words = ", ".join(option for option, path in missing.items() if path is None)
        raise ConfigError(f"a certificate was given without {words}", "give all of them, or none")
    return read_given(authority, certificate, key, hosts)


def _authority(made: Any) -> str:
    from fedrec_server.keys.certificates import authority_fingerprint

    return authority_fingerprint((made.keys / "ca.pem").read_bytes())


def _set_status(folder: Path, name: str, status: Any, as_json: bool) -> None:
    from fedrec_server.admin import administration

    found = administration.set_status(_coordinator(folder), name, status, who="cli")
    _say({"partner": found.name, "status": found.status}, as_json, f"{name}: {found.status}")


def _set_paused(folder: Path, is_paused: bool, as_json: bool) -> None:
    from fedrec_server.admin import administration

    administration.set_paused(_coordinator(folder), is_paused, who="cli")
    _say({"paused": is_paused}, as_json, "paused" if is_paused else "goes on")


def _print_partners(found: list[dict[str, Any]]) -> None:
    table = Table("partner", "status", "key", "last seen", "last reason")
    for one in found:
        table.add_row(one["name"], one["status"], one["fingerprint"], one["last_seen"] or "never", one["reason"])
    console.print(table)
