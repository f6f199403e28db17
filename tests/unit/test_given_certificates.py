"""A company's own authority, certificate and keys, under the names that Flower's own commands give the options."""

import base64
import json
import ssl
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from typer.testing import CliRunner

from fedrec.errors import ConfigError
from fedrec.invitation import Invitation
from fedrec.signing import SigningKey
from fedrec_client.cli import app as client
from fedrec_client.coordinator_link import CertificateError
from fedrec_client.settings import Node
from fedrec_server.cli import app as server
from fedrec_server.keys.certificates import authority_fingerprint, make_loopback_certificate
from fedrec_server.settings import Coordinator
from fedrec_server.supervisor import Supervisor

Issue = Callable[..., Path]
Listen = Callable[..., Any]
World = Any
PEM, NONE = serialization.Encoding.PEM, serialization.NoEncryption()
FORMS = serialization.PrivateFormat


def run(cli: Any, *words: str | Path) -> Any:
    """What it prints, or the error that it ends with."""
    done = CliRunner().invoke(cli, [*map(str, words), "--json"])
    if done.exception is not None:
        return done.exception
    return json.loads(done.stdout)


def init(folder: Path, ca: Path, certificate: Path, key: Path, *hosts: str) -> Any:
    names = [word for host in hosts or ("fedrec.example",) for word in ("--host", host)]
    options = ["--ssl-ca-certfile", ca, "--ssl-certfile", certificate, "--ssl-keyfile", key]
    return run(server, "init", folder, *names, *options)


def handshake(keys: Path, host: str) -> None:
    """As a partner's node would see the folder's certificate. Raises ssl.SSLError."""
    there, here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=keys / "ca.pem")
    there.load_cert_chain(keys / "server.pem", keys / "server.key")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = here.wrap_bio(down, up, server_hostname=host), there.wrap_bio(up, down, server_side=True)
    for side in sides * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


@pytest.mark.parametrize("host", ["fedrec.example", "FEDREC.example", "a.wild.example", "192.0.2.7"])
def test_a_companys_certificate_is_taken_with_its_intermediate(issue: Issue, tmp_path: Path, host: str) -> None:
    root = issue(tmp_path / "root", None, [], is_authority=True, name="root")
    between = issue(tmp_path / "between", root, [], is_authority=True, name="between")
    given = issue(tmp_path / "given", between, ["fedrec.example", "*.wild.example", "192.0.2.7"])
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"Bag Attributes\n" + (given / "server.pem").read_bytes() + (between / "ca.pem").read_bytes())
    told = init(tmp_path / "coordinator", root / "ca.pem", chain, given / "server.key", host)
    keys = tmp_path / "coordinator" / "keys"
    assert told["authority"] == authority_fingerprint((root / "ca.pem").read_bytes())
    assert stat.S_IMODE((keys / "server.key").stat().st_mode) == 0o600
    assert not (keys / "ca.key").exists()
    handshake(keys, host)
    handshake(keys / "loopback", "127.0.0.1")


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_written(
    true: Path, foreign: Path, issue: Issue, tmp_path: Path
) -> None:
    given = issue(tmp_path / "given", foreign, ["other.example"], days=(-3, -1))
    error = init(tmp_path / "new", true / "ca.pem", given / "server.pem", true / "server.key", "a.example", "1.2.3.4")
    assert isinstance(error, ConfigError)
    for words in (
        "has expired on",
        "is not for a.example",
        "is not for 1.2.3.4",
        "is not the key",
        "was not signed by",
    ):
        assert words in error.problem
    assert "5 problems" in error.problem
    assert "PRIVATE KEY" not in str(error)
    assert not (tmp_path / "new").exists()


def test_files_that_are_no_certificates_or_keys_are_told(true: Path, tmp_path: Path) -> None:
    nonsense, locked = tmp_path / "nonsense.pem", tmp_path / "locked.key"
    nonsense.write_text("nonsense")
    secret = ec.generate_private_key(ec.SECP256R1())
    locked.write_bytes(secret.private_bytes(PEM, FORMS.PKCS8, serialization.BestAvailableEncryption(b"word")))
    problem = init(tmp_path / "new", tmp_path / "none.pem", nonsense, locked).problem
    assert "none.pem: cannot be read: No such file" in problem
    assert "nonsense.pem: no PEM certificate" in problem
    assert "locked.key: is encrypted" in problem
    problem = init(tmp_path / "new", true / "server.pem", true / "server.pem", nonsense, "localhost").problem
    assert "server.pem: is not a certificate authority's" in problem
    assert "nonsense.pem: no PEM private key" in problem


@pytest.mark.parametrize(
    ("roots", "words"), [("two", "2 certificates; partners pin one"), ("between", "is an intermediate; give the root")]
)
def test_partners_pin_one_root(true: Path, foreign: Path, issue: Issue, tmp_path: Path, roots: str, words: str) -> None:
    between = issue(tmp_path / "between", true, [], is_authority=True, name="between")
    given = issue(tmp_path / "given", between, ["fedrec.example"])
    both = tmp_path / "both.pem"
    both.write_bytes((true / "ca.pem").read_bytes() + (foreign / "ca.pem").read_bytes())
    ca = both if roots == "two" else between / "ca.pem"
    assert words in init(tmp_path / "new", ca, given / "server.pem", given / "server.key").problem


def test_an_intermediate_that_is_missing_or_expired_is_told(true: Path, issue: Issue, tmp_path: Path) -> None:
    between = issue(tmp_path / "between", true, [], is_authority=True, name="between", days=(-3, -1))
    given = issue(tmp_path / "given", between, ["fedrec.example"])
    problem = init(tmp_path / "new", true / "ca.pem", given / "server.pem", given / "server.key").problem
    assert "CN=server was not signed by CN=films fedrec CA" in problem
    chain = tmp_path / "chain.pem"
    chain.write_bytes((given / "server.pem").read_bytes() + (between / "ca.pem").read_bytes())
    problem = init(tmp_path / "new", true / "ca.pem", chain, given / "server.key").problem
    assert "CN=between has expired" in problem


def test_what_only_a_tls_connection_shows_is_told(true: Path, issue: Issue, tmp_path: Path) -> None:
    """Signed by a key that may not sign: every signature is right, and no partner would take it."""
    leaf = issue(tmp_path / "leaf", true, ["x.example"])
    (leaf / "ca.pem").write_bytes((leaf / "server.pem").read_bytes())
    (leaf / "ca.key").write_bytes((leaf / "server.key").read_bytes())
    given = issue(tmp_path / "given", leaf, ["fedrec.example"])
    chain = tmp_path / "chain.pem"
    chain.write_bytes((given / "server.pem").read_bytes() + (leaf / "ca.pem").read_bytes())
    problem = init(tmp_path / "new", true / "ca.pem", chain, given / "server.key").problem
    assert "does not hold in a TLS connection: invalid CA certificate" in problem


@pytest.mark.parametrize("given", [["--ssl-certfile"], ["--ssl-certfile", "--ssl-keyfile"], ["--ssl-ca-certfile"]])
def test_a_part_of_the_files_is_not_enough(true: Path, tmp_path: Path, given: list[str]) -> None:
    options = [word for option in given for word in (option, str(true / "ca.pem"))]
    problem = run(server, "init", tmp_path / "new", *options).problem
    assert problem.startswith("a certificate was given without --ssl-")
    assert not (tmp_path / "new").exists()


def test_renewal_takes_a_certificate_of_the_pinned_authority_alone(
    true: Path, foreign: Path, issue: Issue, tmp_path: Path
) -> None:
    first, second = (issue(tmp_path / name, true, ["fedrec.example"]) for name in ("first", "second"))
    place = tmp_path / "coordinator"
    init(place, true / "ca.pem", first / "server.pem", first / "server.key")
    keys = place / "keys"

    def renew(given: Path) -> Any:
        words = ["--ssl-certfile", given / "server.pem", "--ssl-keyfile", given / "server.key"]
        return run(server, "certificate", "--dir", place, *words)

    assert "expires_at" in renew(second)
    assert (keys / "server.pem").read_bytes() == (second / "server.pem").read_bytes()
    assert "was not signed by" in renew(issue(tmp_path / "wrong", foreign, ["fedrec.example"])).problem
    assert "is not for fedrec.example" in renew(issue(tmp_path / "other", true, ["other.example"])).problem
    bare = run(server, "certificate", "--dir", place)
    assert "the authority's key is not here" in bare.problem
    assert "--ssl-certfile" in bare.remedy
    assert "without --ssl-keyfile" in run(server, "certificate", "--dir", place, "--ssl-certfile", keys).problem
    assert (keys / "server.pem").read_bytes() == (second / "server.pem").read_bytes()


def test_the_loopback_has_keys_of_its_own_also_in_older_folders(tmp_path: Path) -> None:
    run(server, "init", tmp_path / "new", "--host", "fedrec.example")
    coordinator = Coordinator(tmp_path / "new")
    loopback = coordinator.keys / "loopback"
    assert coordinator.superlink.certificates == loopback
    assert str(loopback / "server.pem") in coordinator.superlink.command()
    assert sorted(path.name for path in loopback.iterdir()) == ["ca.pem", "server.key", "server.pem"]
    handshake(loopback, "127.0.0.1")
    before = (loopback / "ca.pem").read_bytes()
    assert before != (coordinator.keys / "ca.pem").read_bytes()
    make_loopback_certificate(coordinator.keys)
    assert (loopback / "ca.pem").read_bytes() == before  # good for long
    (loopback / "ca.pem").unlink()
    make_loopback_certificate(coordinator.keys)
    handshake(loopback, "127.0.0.1")


def test_a_start_makes_what_an_older_folder_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(server, "init", tmp_path / "old")
    coordinator = Coordinator(tmp_path / "old")
    loopback = coordinator.keys / "loopback"
    for path in loopback.iterdir():
        path.unlink()
    loopback.rmdir()
    supervisor = Supervisor(coordinator)
    supervisor.stop.set()
    monkeypatch.setattr(Coordinator, "aggregator", lambda self: None)
    supervisor.run()
    handshake(loopback, "127.0.0.1")


def test_a_loopback_certificate_that_ends_soon_is_made_anew(
    true: Path, issue: Issue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_loopback_certificate(tmp_path)
    issue(tmp_path / "loopback", true, ["127.0.0.1"], days=(-1, 30))
    make_loopback_certificate(tmp_path)
    handshake(tmp_path / "loopback", "127.0.0.1")
    assert not (tmp_path / "loopback" / "ca.key").exists()


# The partner's side


def invited(world: World, port: int, authority: Path) -> str:
    secret = world.book.invite("music", valid_for=timedelta(hours=1), is_approved=False)
    fingerprint = authority_fingerprint((authority / "ca.pem").read_bytes())
    return Invitation(f"localhost:{port}", "music", secret, fingerprint, "cd" * 32).to_token()


def join(folder: Path, token: str, **options: Path) -> Any:
    words = [word for name, path in options.items() for word in (f"--{name.replace('_', '-')}", str(path))]
    return run(client, "init", folder, "--invite", token, *words)


def test_an_authority_given_by_hand_is_not_fetched(world: World, listen: Listen, true: Path, tmp_path: Path) -> None:
    """The gateway hands out nonsense here."""
    listener = listen(world)
    told = join(tmp_path / "node", invited(world, listener.port, true), root_certificates=true / "ca.pem")
    assert told["status"] == "pending"
    assert Node(tmp_path / "node").authorities.read() == (true / "ca.pem").read_bytes()


@pytest.mark.parametrize("given", ["foreign", "both", "none"])
def test_an_authority_given_by_hand_is_held_against_the_invitation(
    world: World, listen: Listen, true: Path, foreign: Path, tmp_path: Path, given: str
) -> None:
    token, file = invited(world, listen(world).port, true), tmp_path / "given.pem"
    other = (foreign / "ca.pem").read_bytes()
    if given != "none":
        file.write_bytes(other if given == "foreign" else (true / "ca.pem").read_bytes() + other)
    error = join(tmp_path / "node", token, root_certificates=file)
    assert isinstance(error, ConfigError)
    assert str(file) in error.problem
    assert not (tmp_path / "node").exists()
    assert join(tmp_path / "node", token, root_certificates=true / "ca.pem")["status"] == "pending"  # not spent


def test_a_right_file_helps_nobody_who_stands_between(
    world: World, listen: Listen, true: Path, foreign: Path, tmp_path: Path
) -> None:
    token = invited(world, listen(world, keys=foreign).port, true)
    assert isinstance(join(tmp_path / "node", token, root_certificates=true / "ca.pem"), CertificateError)
    assert not (tmp_path / "node").exists()


def own_key(path: Path, form: serialization.PrivateFormat, curve: ec.EllipticCurve | None = None) -> bytes:
    """Write a key; its public part as the coordinator keeps it."""
    key = ec.generate_private_key(curve or ec.SECP384R1())
    path.write_bytes(key.private_bytes(PEM, form, NONE))
    path.chmod(0o600)
    return key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("form", [FORMS.OpenSSH, FORMS.PKCS8, FORMS.TraditionalOpenSSL])
def test_a_partner_brings_its_own_node_key(
    world: World, listen: Listen, true: Path, tmp_path: Path, form: serialization.PrivateFormat
) -> None:
    public = own_key(tmp_path / "own.key", form)
    token = invited(world, listen(world).port, true)
    files = {"root_certificates": true / "ca.pem", "auth_supernode_private_key": tmp_path / "own.key"}
    assert join(tmp_path / "node", token, **files)["status"] == "pending"
    assert base64.b64decode(world.book.partner("music").node_key) == public
    kept = tmp_path / "node" / "keys" / "node.key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert serialization.load_ssh_private_key(kept.read_bytes(), None)


@pytest.mark.parametrize("wrong", ["another curve", "another kind", "encrypted", "nonsense", "open to all", "missing"])
def test_a_node_key_that_flower_would_not_take_is_refused_before_anything_else(
    world: World, listen: Listen, true: Path, tmp_path: Path, wrong: str
) -> None:
    path, key = tmp_path / "own.key", ec.generate_private_key(ec.SECP384R1())
    own_key(path, FORMS.OpenSSH, ec.SECP256R1() if wrong == "another curve" else None)
    match wrong:
        case "another kind":
            path.write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, FORMS.OpenSSH, NONE))
        case "encrypted":
            path.write_bytes(key.private_bytes(PEM, FORMS.PKCS8, serialization.BestAvailableEncryption(b"word")))
        case "nonsense":
            path.write_bytes(SigningKey(bytes(32)).public)
        case "open to all":
            path.chmod(0o644)
        case "missing":
            path.unlink()
    token = invited(world, listen(world).port, true)
    files = {"root_certificates": true / "ca.pem", "auth_supernode_private_key": path}
    error = join(tmp_path / "node", token, **files)
    assert isinstance(error, ConfigError)
    assert str(path) in error.problem
    assert not (tmp_path / "node").exists()


def test_a_second_try_with_another_node_key_is_refused(
    world: World, listen: Listen, true: Path, tmp_path: Path
) -> None:
    token, node = invited(world, listen(world).port, true), tmp_path / "node"
    own_key(tmp_path / "one.key", FORMS.OpenSSH)
    own_key(tmp_path / "two.key", FORMS.PKCS8)
    files = {"root_certificates": true / "ca.pem"}
    join(node, token, auth_supernode_private_key=tmp_path / "one.key", **files)
    (node / "state" / "enrolled").unlink()  # as if the answer had been lost
    error = join(node, token, auth_supernode_private_key=tmp_path / "two.key", **files)
    assert "an earlier try enrolled another node key" in error.problem
    assert join(node, token, auth_supernode_private_key=tmp_path / "one.key", **files)["status"] == "pending"


def test_help_tells_the_commands_from_flowers_old_ones() -> None:
    for cli, old in ((server, "flower-server-app"), (client, "flower-client-app")):
        assert old in CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "300"}).stdout


def test_the_options_are_named_as_flowers() -> None:
    """In its installed version, which this fails with when they are renamed there."""
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    said = CliRunner().invoke(server, ["init", "--help"], env={"COLUMNS": "300"}).stdout
    for option in ("--ssl-ca-certfile", "--ssl-certfile", "--ssl-keyfile"):
        assert option in said
        assert option in _parse_args_run_superlink().format_help()
    said = CliRunner().invoke(client, ["init", "--help"], env={"COLUMNS": "300"}).stdout
    for option in ("--root-certificates", "--auth-supernode-private-key"):
        assert option in said
        assert option in _parse_args_run_supernode().format_help()


def test_certificates_made_here_hold_strictly_too(true: Path) -> None:
    """Python 3.13 asks for more of a certificate than older ones."""
    found = x509.load_pem_x509_certificate((true / "ca.pem").read_bytes())
    assert found.extensions.get_extension_for_class(x509.KeyUsage).critical
    strict = ssl.create_default_context(cafile=true / "ca.pem")
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    handshake(true, "localhost")
