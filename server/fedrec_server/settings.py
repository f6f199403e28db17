"""The coordinator's folder and its `server.toml`."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from fedrec.aggregation.mean import Aggregator
from fedrec.aggregation.robust import aggregator_of
from fedrec.defence import Defence
from fedrec.errors import ConfigError
from fedrec.files import make_folders, replace_file, storage_errors
from fedrec.registry.registry import Registry
from fedrec.signing import SigningKey
from fedrec.toml import Section, read_toml
from fedrec_server.keys.certificates import (
    LOOPBACK,
    make_authority,
    make_loopback_certificate,
    make_server_certificate,
)
from fedrec_server.keys.credentials import make_tokens
from fedrec_server.keys.given_certificates import GivenCertificate
from fedrec_server.rounds.federation import TERMS, Federation
from fedrec_server.rounds.heads import SignedHeads
from fedrec_server.rounds.superlink_place import SuperLinkPlace
from fedrec_server.state.store import Database, database_url

Port = Annotated[int, Field(ge=1, le=65535)]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
_TERMS_SIGNATURE = "terms.sig"


class GatewaySettings(Section):
    """`[gateway]`: what partners reach."""

    host: Host = "0.0.0.0"  # partners come from outside
    port: Port = 8443
    public_hosts: Annotated[tuple[Host, ...], Field(min_length=1)] = ("localhost",)
    object_megabytes: Annotated[int, Field(ge=1, le=2000)] = 256
    calls_per_s: Annotated[float, Field(gt=0)] = 200.0
    connections_per_address: Annotated[int, Field(ge=4, le=4000)] = 256


class LocalSettings(Section):
    """`[local]`: ports on the loopback, for this machine alone."""

    superlink_port: Port = 9191
    admin_port: Port = 8444


class StateSettings(Section):
    """`[state]`: where the coordinator remembers."""

    database: Annotated[str, Field(min_length=1, max_length=500)] = "sqlite"


class RoundSettings(Defence):
    """`[rounds]`: when a round counts, and how answers become one."""

    quorum: Annotated[int, Field(ge=1)] = 2
    partners_per_round: Annotated[int, Field(ge=0)] = 0
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    step_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    attempts: Annotated[int, Field(ge=1)] = 3
    pause_s: Annotated[float, Field(ge=0)] = 30.0
    max_delta_norm: Annotated[float, Field(gt=0)] = 1e4
    on_wish: bool = False


class ServerSettings(Section):
    """All of `server.toml`."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    gateway: GatewaySettings = GatewaySettings()
    local: LocalSettings = LocalSettings()
    state: StateSettings = StateSettings()
    rounds: RoundSettings = RoundSettings()


@dataclass(frozen=True)
class Coordinator:
    """A coordinator's folder.

    Attributes:
        folder: made by `flower-server init`.
    """

    folder: Path
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def settings(self) -> ServerSettings:
        """Raises ConfigError: no such folder, or `server.toml` is wrong."""
        return read_toml(
            self.folder / "server.toml", ServerSettings, "run `flower-server init`; every key stands there"
        )

    @property
    def keys(self) -> Path:
        """Certificates and keys."""
        return self.folder / "keys"

    @property
    def logs(self) -> Path:
        """Logs of every process."""
        return self.folder / "logs"

    @property
    def lock(self) -> Path:
        """Whoever holds this lock file has the folder's processes to itself."""
        return self.folder / "state" / "running.lock"

    @cached_property
    def superlink(self) -> SuperLinkPlace:
        """Where Flower's SuperLink listens."""
        database = self.folder / "state" / "flower.sqlite"
        port, loopback = self.settings.local.superlink_port, self.keys / LOOPBACK
        return SuperLinkPlace(port, loopback, self.keys / "executor.key", database)

    def signing_key(self) -> SigningKey:
        """The coordinator's own. Raises ConfigError: missing or readable by others."""
        return SigningKey.load(self.keys / "signing.key")

    @cached_property
    def database(self) -> Database:
        """One for this process. Raises ConfigError: no usable address. StorageError: it does not answer."""
        return Database.open(database_url(self.folder, self.settings.state.database))

    @cached_property
    def registry(self) -> Registry:
        """Committed versions."""
        return Registry(self.folder / "registry")

    @cached_property
    def heads(self) -> SignedHeads:
        """The newest version, signed."""
        return SignedHeads(self.registry)

    def has_federation(self) -> bool:
        """Whether one was given to train."""
        return (self.folder / "federation" / TERMS).is_file()

    def federation(self) -> Federation:
        """Raises RunError: none was given yet, or it is damaged."""
        if not self.has_federation():
            raise ConfigError(f"{self.folder}: trains no federation yet", "flower-server use FEDERATION_FOLDER")
        place = self.folder / "federation"
        stamp = [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(place.iterdir())]
        if self._kept.get("stamp") != stamp:  # pages and monitoring ask every few seconds, and it hardly ever changes
            self._kept.update(federation=Federation.read(place), stamp=stamp)
        return cast(Federation, self._kept["federation"])

    def terms_signature(self) -> str:
        """Over the federation's terms."""
        return (self.folder / "federation" / _TERMS_SIGNATURE).read_text().strip()

    def aggregator(self) -> Aggregator:
        """What makes one difference of a round's answers. Raises ConfigError: its assumption does not hold here."""
        terms, rounds = self.federation().terms, self.settings.rounds
        quorum = terms.plan.quorum if terms.plan else rounds.quorum
        if problems := rounds.problems(quorum, secagg=terms.mode == "secagg"):
            raise ConfigError.of_all(problems, "mend [rounds] there", str(self.folder / "server.toml"))
        return aggregator_of(rounds)

    def use(self, federation: Federation) -> None:
        """Take a federation to train, and sign its terms. Raises ConfigError: there is one already. StorageError."""
        place = self.folder / "federation"
        if place.exists():
            raise ConfigError(
                f"{place}: there is a federation already", "a coordinator trains one; init another folder"
            )
        federation.write(place)
        self.sign_terms()

    def sign_terms(self) -> None:
        """With the key of now. Raises as `federation` and `signing_key`. StorageError."""
        place, terms = self.folder / "federation", self.federation().terms
        signature = self.signing_key().sign("federation-terms", terms.to_dict())
        with storage_errors(place):
            replace_file(place / _TERMS_SIGNATURE, signature.encode() + b"\n")


def make_coordinator(
    folder: Path, *, name: str, hosts: tuple[str, ...], ports: dict[str, int], given: GivenCertificate | None = None
) -> Coordinator:
    """Write configuration, certificates and keys into a new folder.

    Args:
        given: a company's, in place of an own authority and certificate.
    Raises: ConfigError: the folder is there. StorageError.
    """
    if (folder / "server.toml").exists():
        raise ConfigError(f"{folder}: is a coordinator's folder already", "name a new one")
    template = (files("fedrec_server") / "server.toml").read_text(encoding="utf-8")
    text = template.replace("NAME", name).replace('"HOSTS"', ", ".join(f'"{host}"' for host in hosts))
    for key, port in ports.items():
        text = text.replace(key, str(port))
    keys = folder / "keys"
    with storage_errors(folder):
        for part in (folder, keys, folder / "state", folder / "logs"):
            make_folders(part)
            part.chmod(0o700)
        if given is None:
            make_authority(keys, name)
            make_server_certificate(keys, hosts)
        else:
            given.write(keys)
        make_loopback_certificate(keys)
        SigningKey.create(keys / "signing.key")
        replace_file(keys / "executor.key", os.urandom(32))
        make_tokens(keys)
        replace_file(folder / "server.toml", text.encode())
    coordinator = Coordinator(folder)
    coordinator.database.close()
    return coordinator
