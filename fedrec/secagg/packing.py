"""Integers of few bits as bytes without gaps: value i lies in bits i*bits and following, lowest bit first."""

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ProtocolError
from fedrec.secagg.masks import MAX_BITS, Words

_GROUP = 8  # values of `bits` bits that fill `bits` whole bytes


def packed_bytes(numbers: int, bits: int) -> int:
    """Length of so many packed integers."""
    return (numbers * bits + 7) // 8


def pack(words: Words, bits: int) -> bytes:
    """Pack integers below 2**bits.

    Args:
        words: uint32 `[numbers]`; higher bits are dropped.
        bits: 1 to 32.

    >>> pack(np.array([1, 2, 3], np.uint32), 4).hex()
    '2103'
    """
    _check(bits)
    groups = np.zeros((-(-len(words) // _GROUP), _GROUP), np.uint64)
    groups.reshape(-1)[: len(words)] = words & np.uint32((1 << bits) - 1)
    packed = np.zeros((len(groups), bits), np.uint8)
    for place in range(_GROUP):
        first, shift = divmod(place * bits, 8)
        wide = groups[:, place] << np.uint64(shift)
        for byte in range(-(-(shift + bits) // 8)):
            packed[:, first + byte] |= (wide >> np.uint64(8 * byte)).astype(np.uint8)
    return packed.tobytes()[: packed_bytes(len(words), bits)]


def unpack(content: bytes, numbers: int, bits: int) -> Words:
    """The inverse. Raises ProtocolError: not exactly so many, or a bit behind the last of them is set."""
    _check(bits)
    if len(content) != packed_bytes(numbers, bits):
        raise ProtocolError(f"the masked vector is not {numbers} numbers of {bits} bits")
    n_groups = -(-numbers // _GROUP)
    packed = np.zeros((n_groups, bits), np.uint8)
    packed.reshape(-1)[: len(content)] = np.frombuffer(content, np.uint8)
    groups = np.empty((n_groups, _GROUP), np.uint32)
    for place in range(_GROUP):
        first, shift = divmod(place * bits, 8)
        wide = np.zeros(n_groups, np.uint64)
        for byte in range(-(-(shift + bits) // 8)):
            wide |= packed[:, first + byte].astype(np.uint64) << np.uint64(8 * byte)
        groups[:, place] = ((wide >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.uint32)
    words: NDArray[np.uint32] = groups.reshape(-1)
    if words[numbers:].any():
        raise ProtocolError("the masked vector has bits behind its last number")
    return words[:numbers]


def _check(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits must be 1 to {MAX_BITS}, is {bits}")
