"""What a partner sends to put new keys in place of its own: the old key vouches for them, the new one shows itself."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedrec.errors import ProtocolError
from fedrec.key_statements import partner_keys
from fedrec.signing import verify

CLOCKS_MAY_DIFFER_S = 60.0
_Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Signature = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/=]{80,100}$")]


class Rotation(BaseModel):
    """The message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    old_key: _Key
    signing_key: _Key
    node_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/=]{100,400}$")]
    time: Annotated[str, Field(max_length=40)]
    old_signature: _Signature
    new_signature: _Signature

    def check(self, current_key: str) -> None:
        """Hold it against the key under which the partner is known.

        The new key alone may say it again once it counts: the answer to the first time may have been lost.

        Raises: ProtocolError: not signed by the keys that it must be signed by, or not now; says no more than that.
        """
        values = {name: getattr(self, name) for name in ("old_key", "signing_key", "node_key", "time")}
        signed = partner_keys(self.name, **values)
        try:
            age = datetime.now(UTC) - datetime.fromisoformat(self.time)
            if abs(age.total_seconds()) > CLOCKS_MAY_DIFFER_S or current_key not in (self.old_key, self.signing_key):
                raise ProtocolError("stale, or of another key")
            if current_key != self.signing_key:
                verify(bytes.fromhex(self.old_key), "partner-keys", signed, self.old_signature)
            verify(bytes.fromhex(self.signing_key), "partner-keys", signed, self.new_signature)
        except (ProtocolError, ValueError, TypeError) as error:
            raise unsigned() from error


def read_rotation(body: bytes) -> Rotation:
    """Raises ProtocolError: no such message."""
    try:
        return Rotation.model_validate_json(body)
    except ValidationError as error:
        raise ProtocolError("not a change of keys; use flower-client rotate") from error


def unsigned() -> ProtocolError:
    """One answer for strangers, signatures that fail, and clocks that differ."""
    return ProtocolError("not signed by the key that counts, or clocks differ by over a minute")
