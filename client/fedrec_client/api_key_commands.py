"""`flower-client api-keys`: who may call this partner's service. How: docs/operations.md, "Serving"."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from fedrec_client.command_words import HERE, AsJson, Folder, node_of, say

if TYPE_CHECKING:
    from fedrec_client.serving.settings import ServingSettings
    from fedrec_client.serving.store.key_book import KeyBook, Scope

api_keys = typer.Typer(
    no_args_is_help=True,
    help="Keys that callers of the partner's service show. While it runs it believes what it last read for 5 seconds.",
)
ServingFolder = Annotated[
    Path | None, typer.Option("--serving", help="A folder with serving.toml, such as RUN/serving, in place of --dir.")
]
Name = Annotated[str, typer.Argument(help="Under which the key is listed and revoked.")]
_KEPT = "A service that runs notices within 5 seconds."


@api_keys.command()
def create(
    name: Name,
    scope: Annotated[list[str], typer.Option(help="read, write or admin; may be given more than once.")],
    tenant: Annotated[str, typer.Option(help="One of [[tenants]]; needed where there are several.")] = "",
    folder: Folder = HERE,
    serving: ServingFolder = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret stands alone on standard output, now and never again: only its hash is kept.

    Example: `flower-client api-keys create shop --scope read --scope write --dir /srv/node`
    """
    with _opened(folder, serving) as (book, settings):
        tenant = _tenant(tenant, settings)
        secret = book.create(tenant, name, cast("Set[Scope]", set(scope)))
    told = {"name": name, "tenant": tenant, "scopes": sorted(set(scope)), "secret": secret}
    say(told, as_json, secret)
    _note(f"{name} may {' and '.join(sorted(set(scope)))} for {tenant}. The secret is not shown again. {_KEPT}")


@api_keys.command("list")
def list_(folder: Folder = HERE, serving: ServingFolder = None, as_json: AsJson = False) -> None:
    """Every key, without its secret, which nobody has but its holder."""
    with _opened(folder, serving) as (book, settings):
        keys, is_open = book.every(), _would_open(settings)
    told = [
        {"name": key.name, "tenant": key.tenant, "scopes": sorted(key.scopes), "created_at": key.created_at}
        for key in keys
    ]
    lines = [
        f"{key.name} {key.tenant} {','.join(sorted(key.scopes))} {datetime.fromtimestamp(key.created_at, UTC):%Y-%m-%d}"
        for key in keys
    ]
    none = "no keys yet: every program on this machine may call" if is_open else "no keys yet: nobody may call"
    say({"keys": told}, as_json, "\n".join(lines) or none)


@api_keys.command()
def revoke(name: Name, folder: Folder = HERE, serving: ServingFolder = None, as_json: AsJson = False) -> None:
    """Take a key away, for good. The last one stays where the service would be open to this machine without it."""
    from fedrec.errors import ConfigError

    with _opened(folder, serving) as (book, settings):
        names = [key.name for key in book.every()]
        if names == [name] and _would_open(settings):
            problem = f"{name} is the last key, and without any every program on this machine may call"
            raise ConfigError(problem, "make another first: flower-client api-keys create")
        if not book.revoke(name):
            raise ConfigError(f"there is no key {name!r}", "flower-client api-keys list")
    say({"revoked": name}, as_json, f"{name} opens nothing any more. {_KEPT}")


@contextmanager
def _opened(folder: Path, serving: Path | None) -> Iterator[tuple["KeyBook", "ServingSettings"]]:
    """The keys of a node's service, or of a folder's; several processes may use one store."""
    from fedrec.errors import ConfigError
    from fedrec_client.serving.settings import FILE, read_serving
    from fedrec_client.serving.store.store import ServingStore, store_url

    if serving is not None and not (serving / FILE).is_file():
        raise ConfigError(f"{serving}: has no {FILE}", "name the folder of a service; its first start writes the file")
    place: Path = serving or node_of(folder).serving
    settings = read_serving(place)
    store = ServingStore.open(store_url(place, settings.store.database))
    try:
        yield store.keys, settings
    finally:
        store.close()


def _tenant(named: str, settings: "ServingSettings") -> str:
    """The one that is named, or the only one. Raises ConfigError."""
    from fedrec.errors import ConfigError

    names = settings.tenant_names
    if not named and len(names) == 1:
        return names[0]
    if named not in names:
        problem = f"there is no tenant {named!r}" if named else "there are several tenants"
        raise ConfigError(problem, f"--tenant, one of: {', '.join(names)}")
    return named


def _would_open(settings: "ServingSettings") -> bool:
    from fedrec_client.serving.http.guard import is_open_without_keys

    return is_open_without_keys(settings)


def _note(words: str) -> None:
    """For people; standard output holds the secret alone, so that it can go into a file."""
    Console(stderr=True).print(words, soft_wrap=True, highlight=False, markup=False)
