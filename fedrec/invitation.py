"""What a partner is handed to enrol once: where the coordinator is, and how to be sure that it is the one."""

import base64
import json
from dataclasses import asdict, dataclass, field

from fedrec.errors import ConfigError

_PREFIX = "fedrec1."
# What an invitation is for: to enrol a new partner, or to put new keys in place of a partner's.
ENROL, REPLACE_KEYS = "enrol", "replace-keys"


@dataclass(frozen=True)
class Invitation:
    """Whoever holds it can enrol, once, under the name in it: to be sent like a password.

    Attributes:
        address: host:port of the gateway.
        name: of the partner.
        secret: spent by enrolment.
        authority: SHA-256 of the coordinator's CA certificate.
        coordinator: the coordinator's signing key, hex.
        kind: `ENROL` or `REPLACE_KEYS`, so that nobody begins a new folder, and a new ledger, with the latter.
    """

    address: str
    name: str
    secret: str = field(repr=False)
    authority: str
    coordinator: str
    kind: str = ENROL

    def to_token(self) -> str:
        """One word to be copied."""
        return _PREFIX + base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode().rstrip("=")

    @classmethod
    def from_token(cls, token: str) -> "Invitation":
        """The inverse. Raises ConfigError: no invitation.

        >>> invitation = Invitation("localhost:8443", "shop", "s3cret", "ab" * 32, "cd" * 32)
        >>> Invitation.from_token(invitation.to_token()) == invitation, "s3cret" in repr(invitation)
        (True, False)
        """
        try:
            text = token.strip().removeprefix(_PREFIX)
            values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            made = cls(**{name: str(value) for name, value in values.items()})
            bytes.fromhex(made.coordinator)
            if made.kind not in (ENROL, REPLACE_KEYS):
                raise ValueError("of a newer fedrec")
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                "that is no invitation", "copy the whole word that `flower-server invite` printed"
            ) from error
        return made
