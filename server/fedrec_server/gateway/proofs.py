"""Whether a call comes from whom it names, and for the first time."""

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.supercore.date import now

# Of one partner's calls that change something; an honest one leaves once.
_MOST_REMEMBERED = 64


def read_node_key(text: str) -> ec.EllipticCurvePublicKey | None:
    """The P-384 key in base64 of PEM, as Flower's headers have it; None if it is none."""
    try:
        key = load_pem_public_key(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1) else None


def is_nodes_signature(node_key: str, timestamp: str, signature: str) -> bool:
    """Whether the owner of a node's key made Flower's signature over the time; how old it may be, Flower knows."""
    key = read_node_key(node_key)
    if key is None:
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), timestamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def is_fresh(timestamp: str) -> bool:
    """Whether Flower would take a signature over this time today."""
    try:
        age_s = (now() - datetime.fromisoformat(timestamp)).total_seconds()
    except (ValueError, TypeError):
        return False
    return -SYSTEM_TIME_TOLERANCE < age_s < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


@dataclass
class UsedRequests:
    """Signed requests that changed something, remembered for as long as their signatures are good.

    What was signed is remembered, not the signature, which can be written in more than one way.

    Attributes:
        good_s: after the time in it a request is refused anyway.
    """

    good_s: float
    _used: dict[str, dict[str, datetime]] = field(default_factory=dict, repr=False)

    def take(self, partner: str, request: str, at: datetime) -> Literal["first", "again", "too many"]:
        """Note a request of a partner, whose signature holds."""
        moment = datetime.now(UTC)
        known = {one: time for one, time in self._used.get(partner, {}).items() if self._is_good(time, moment)}
        self._used[partner] = known
        if request in known:
            return "again"
        if len(known) >= _MOST_REMEMBERED:
            return "too many"
        known[request] = at
        return "first"

    def _is_good(self, at: datetime, moment: datetime) -> bool:
        return (moment - at).total_seconds() <= self.good_s
