"""The signature of a node's call, as Flower's SuperLink checks it; for calls that the gateway answers by itself."""

import base64
from collections.abc import Mapping
from datetime import datetime

from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from fedrec_server.limits import CallError


def check_node(headers: Mapping[str, str]) -> None:
    """Raises CallError: the owner of the key that the headers name did not sign their time, or did long ago."""
    try:
        key = bytes_to_public_key(base64.b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True))
        signature = base64.b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
        at = headers[TIMESTAMP_HEADER]
        age_s = (now() - datetime.fromisoformat(at)).total_seconds()
        is_fresh = -SYSTEM_TIME_TOLERANCE < age_s < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
        if is_fresh and verify_signature(key, at.encode("ascii"), signature):
            return
    except (KeyError, ValueError, TypeError) as error:
        raise CallError(401, "no partner's signature") from error
    raise CallError(401, "no partner's signature")
