"""`flower-client api-keys`: keys of a node's service, and of a folder's, made beside a service that runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedrec.errors import ConfigError, DataError
from fedrec.invitation import Invitation
from fedrec_client.cli import app
from fedrec_client.serving.settings import default_text
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.settings import Node, make_node

HASH = "0" * 64


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path / "node", Invitation("localhost:8443", "shop", "s" * 20, HASH, HASH), b"PEM", 9094)


def run(node: Node, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["api-keys", *arguments, "--dir", str(node.folder)])


def test_the_commands(node: Node) -> None:
    assert run(node, "list").stdout.strip() == "no keys yet: every program on this machine may call"
    made = run(node, "create", "web", "--scope", "read", "--scope", "write")
    assert made.exit_code == 0
    secret = made.stdout.strip()
    assert secret.startswith("fk_")
    assert "web may read and write for default" in made.stderr
    assert "5 seconds" in made.stderr
    assert secret not in made.stderr
    other = json.loads(run(node, "create", "ops", "--scope", "admin", "--json").stdout)
    assert (other["name"], other["tenant"], other["scopes"]) == ("ops", "default", ["admin"])
    assert secret not in run(node, "list", "--json").stdout
    told = json.loads(run(node, "list", "--json").stdout)["keys"]
    assert [(key["name"], key["scopes"]) for key in told] == [("ops", ["admin"]), ("web", ["read", "write"])]
    assert run(node, "list").stdout.split()[:3] == ["ops", "default", "admin"]
    assert run(node, "revoke", "ops").exit_code == 0
    assert isinstance(run(node, "revoke", "ops").exception, ConfigError)


def test_a_service_that_has_the_store_open_sees_the_key(node: Node) -> None:
    run(node, "list")  # writes serving.toml
    store = ServingStore.open(store_url(node.serving, "sqlite"))
    try:
        assert store.keys.every() == []
        secret = run(node, "create", "web", "--scope", "read").stdout.strip()
        found = store.keys.find(secret)
        assert found is not None
        assert (found.name, found.tenant, found.scopes) == ("web", "default", {"read"})
        run(node, "create", "other", "--scope", "read")
        assert run(node, "revoke", "web").exit_code == 0
        assert store.keys.find(secret) is None
    finally:
        store.close()


def test_the_last_key_stays_where_the_service_would_be_open_without_it(node: Node) -> None:
    run(node, "create", "web", "--scope", "read")
    refused = run(node, "revoke", "web")
    assert isinstance(refused.exception, ConfigError)
    assert "last key" in str(refused.exception)
    settings = node.serving / "serving.toml"
    settings.write_text(settings.read_text().replace("behind_proxy = false", "behind_proxy = true"))
    assert run(node, "revoke", "web").exit_code == 0
    assert run(node, "list").stdout.strip() == "no keys yet: nobody may call"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["create", "x", "--scope", "root"], ConfigError, "scopes among"),
        (["create", "", "--scope", "read"], DataError, "id"),
        (["create", "x", "--scope", "read", "--tenant", "music"], ConfigError, "there is no tenant 'music'"),
        (["revoke", "x"], ConfigError, "there is no key 'x'"),
    ],
)
def test_what_makes_no_sense_is_refused(node: Node, arguments: list[str], error: type[Exception], words: str) -> None:
    refused = run(node, *arguments)
    assert isinstance(refused.exception, error)
    assert words in str(refused.exception)
    assert json.loads(run(node, "list", "--json").stdout) == {"keys": []}


def test_a_key_needs_a_scope_and_a_name_that_is_free(node: Node) -> None:
    assert run(node, "create", "x").exit_code == 2
    run(node, "create", "x", "--scope", "read")
    assert "of that name" in str(run(node, "create", "x", "--scope", "write").exception)


def test_a_folder_without_a_node_has_keys_too_but_must_be_one(tmp_path: Path) -> None:
    place = tmp_path / "serving"
    place.mkdir()
    arguments = ["api-keys", "create", "web", "--scope", "read", "--serving", str(place)]
    assert "has no serving.toml" in str(CliRunner().invoke(app, arguments).exception)
    assert list(place.iterdir()) == []
    tenants = '[[tenants]]\nname = "shop-de"\n[[tenants]]\nname = "shop-fr"\n'
    (place / "serving.toml").write_text(default_text() + tenants)
    assert "there are several tenants" in str(CliRunner().invoke(app, arguments).exception)
    made = CliRunner().invoke(app, [*arguments, "--tenant", "shop-fr"])
    assert made.exit_code == 0
    store = ServingStore.open(store_url(place, "sqlite"))
    try:
        assert [key.tenant for key in store.keys.every()] == ["shop-fr"]
    finally:
        store.close()
