"""What an administrator does, from the command line or a page alike; every deed is a line of the audit log."""

from datetime import timedelta
from typing import Any, Literal

from fedrec.errors import ConfigError
from fedrec.invitation import ENROL, REPLACE_KEYS, Invitation
from fedrec.terms import NAME
from fedrec_server.keys.certificates import authority_fingerprint
from fedrec_server.rounds.heads import SignedHead
from fedrec_server.settings import Coordinator
from fedrec_server.state.partner_book import Partner, PartnerBook
from fedrec_server.state.store import GENERATION, PAUSED, Office
from fedrec_server.supervisor import running_pid

# From where: the commands, the pages, the API.
Who = Literal["cli", "page", "api"]
_LONGEST_HOURS = 24 * 30


def invite(
    coordinator: Coordinator,
    name: str,
    *,
    hours: float,
    is_approved: bool,
    replaces_keys: bool = False,
    who: Who,
) -> dict[str, Any]:
    """A one-time invitation; whoever holds it can enrol under the name.

    Args:
        hours: how long it is valid, at most 30 days.
        is_approved: the partner is approved as soon as it enrols.
        replaces_keys: for a partner whose keys are lost or stolen; they stop counting now.
    Raises: ConfigError: no partner's name, or taken; hours out of range. StorageError.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no partner's name", "use small letters, digits and hyphens")
    if not 0 < hours <= _LONGEST_HOURS:
        raise ConfigError(f"an invitation cannot be valid for {hours:g} hours", f"at most {_LONGEST_HOURS}")
    valid_for, book = timedelta(hours=hours), PartnerBook(coordinator.database)
    secret = book.invite(name, valid_for=valid_for, is_approved=is_approved, replaces_keys=replaces_keys)
    kind = REPLACE_KEYS if replaces_keys else ENROL
    told = {"partner": name, "hours": hours, "is_approved": is_approved, "kind": kind}
    Office(coordinator.database).note(who, "invited", told)
    gateway = coordinator.settings.gateway
    address = f"{gateway.public_hosts[0]}:{gateway.port}"
    authority = authority_fingerprint((coordinator.keys / "ca.pem").read_bytes())
    token = Invitation(address, name, secret, authority, coordinator.signing_key().public.hex(), kind).to_token()
    return {"partner": name, "invitation": token, "valid_hours": hours}


def set_status(
    coordinator: Coordinator, name: str, status: Literal["approved", "suspended", "removed"], *, who: Who
) -> Partner:
    """Let a partner take part, keep it out, or keep it out for good. Raises ConfigError: unknown, or removed."""
    return PartnerBook(coordinator.database).set_status(name, status, who=who)


def set_paused(coordinator: Coordinator, is_paused: bool, *, who: Who) -> None:
    """Begin no further round, and drop the one under way; or go on. Raises StorageError."""
    Office(coordinator.database).set_setting(PAUSED, "yes" if is_paused else "no", who=who)


def roll_back(coordinator: Coordinator, number: int, *, who: Who) -> SignedHead:
    """Let an earlier version count, under a higher generation, which partners follow.

    Raises: ConfigError: rounds are under way. RunError: no such version. StorageError.
    """
    office = Office(coordinator.database)
    if running_pid(coordinator) is not None and office.setting(PAUSED) != "yes":
        raise ConfigError("rounds are under way", "pause, then roll back, then resume")
    coordinator.registry.load(number)
    # First: a crash after it costs a number, a crash before it would leave a version that partners take for an old one.
    generation = int(office.setting(GENERATION, "1")) + 1
    office.set_setting(GENERATION, str(generation), who=who)
    coordinator.registry.rollback(number)
    office.note(who, "rolled back", {"round": number, "generation": generation})
    return coordinator.heads.sign(coordinator.signing_key(), coordinator.federation().terms.name, generation)
