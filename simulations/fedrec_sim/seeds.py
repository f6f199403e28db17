"""Noise keys that a seed gives: for simulations that must repeat, and out of reach of a partner's node."""

import hashlib


def seeded_root(seed: int) -> bytes:
    """A noise root that everybody can compute, 32 bytes: nothing is private under it.

    It lies here, where neither the core nor the partner's node may import from (a test), so that no configuration of
    a node can ask for it. A statement about an adapter that was made with it must carry `noise_source="seeded"`.

    >>> seeded_root(1) == seeded_root(1) != seeded_root(2)
    True
    """
    return hashlib.sha256(f"fedrec seeded root, no secret: {seed}".encode()).digest()
