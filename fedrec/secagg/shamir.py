"""Shamir's secret sharing of 32-byte secrets over a prime field.

Reference: Shamir 1979, doi:10.1145/359168.359176.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from fedrec.errors import ProtocolError

# The largest prime below 2**256: nearly every 32 bytes are an element, and every element fits into 32 bytes.
PRIME = 2**256 - 189
SECRET_BYTES = 32
Entropy = Callable[[int], bytes]
"""So many unpredictable bytes: `os.urandom`, and something repeatable in test vectors alone."""


def draw(entropy: Entropy = os.urandom) -> bytes:
    """A uniform field element, 32 bytes, big-endian. Secret."""
    while int.from_bytes(secret := entropy(SECRET_BYTES), "big") >= PRIME:
        pass
    return secret


def split(secret: bytes, holders: Sequence[int], threshold: int, entropy: Entropy = os.urandom) -> dict[int, bytes]:
    """Shares of a secret, any `threshold` of which give it back and fewer of which tell nothing.

    Args:
        secret: 32 bytes, as `draw` makes them.
        holders: each one's point, >= 1, public; its share is the polynomial's value there.
        threshold: 1 to the number of holders.
    Raises: ValueError: a point twice or out of range, or such a threshold, or no field element.

    >>> shares = split(bytes(31) + b"\\x07", [1, 2, 5], threshold=2)
    >>> combine({1: shares[1], 5: shares[5]}) == bytes(31) + b"\\x07"
    True
    """
    constant = int.from_bytes(secret, "big")
    points_are_good = len(set(holders)) == len(holders) and all(1 <= point < PRIME for point in holders)
    if not points_are_good or not 1 <= threshold <= len(holders):
        raise ValueError(f"threshold {threshold} of {len(holders)} holders with points from 1, each once")
    if len(secret) != SECRET_BYTES or constant >= PRIME:
        raise ValueError("the secret is no field element of 32 bytes")
    coefficients = [int.from_bytes(draw(entropy), "big") for _ in range(threshold - 1)]
    return {point: _value(point, coefficients, constant).to_bytes(SECRET_BYTES, "big") for point in holders}


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret behind shares by point; of fewer than its threshold, or of wrong ones, some other element.

    Raises: ProtocolError: no share, or one that is no field element.
    """
    values = {point: int.from_bytes(share, "big") for point, share in sorted(shares.items())}
    if not values or any(len(shares[p]) != SECRET_BYTES or value >= PRIME for p, value in values.items()):
        raise ProtocolError("shares of a secret are missing, or are no field elements")
    weights = _weights_at_zero(tuple(values))
    total = sum(weight * value for weight, value in zip(weights, values.values(), strict=True))
    return (total % PRIME).to_bytes(SECRET_BYTES, "big")


def _value(point: int, coefficients: Sequence[int], constant: int) -> int:
    total = 0
    for coefficient in coefficients:
        total = (total + coefficient) * point % PRIME
    return (total + constant) % PRIME


@lru_cache(maxsize=64)
def _weights_at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's, public; the same partners usually reveal for everybody."""
    weights = []
    for point in points:
        above, below = 1, 1
        for other in points:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
