"""Each user's history, oldest first; a seed decides the order of what one user had at the same time."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from fedrec.data.interactions import InteractionTable
from fedrec.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False, repr=False)
class UserSequence:
    """What one user had, oldest first. Private.

    Attributes:
        user: id.
        items: int32 `[n]`, catalogue codes; the same item may come again.
        timestamps: float64 `[n]`, Unix seconds, not decreasing.
    Raises: DataError: shapes that differ, negative codes, times out of order.
    """

    user: str
    items: NDArray[np.int32]
    timestamps: NDArray[np.float64]

    def __post_init__(self) -> None:
        items, times = self.items, self.timestamps
        fits = items.ndim == 1 and items.dtype == np.int32 and items.shape == times.shape
        if not (fits and (times[1:] >= times[:-1]).all() and (items >= 0).all()):
            raise DataError("sequence: not int32 codes with times that do not decrease", "use build_sequences")

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return "UserSequence(<private>)"

    def latest(self, k: int) -> "UserSequence":
        """The k latest, or all if there are fewer. Raises ConfigError if k < 1."""
        if k < 1:
            raise ConfigError(f"latest: k = {k}", "take 1 or more")
        return UserSequence(self.user, self.items[-k:], self.timestamps[-k:])


def build_sequences(table: InteractionTable, seed: int) -> list[UserSequence]:
    """Put every user's full history in order of time.

    Args:
        table: private.
        seed: with the ids of user and item alone, decides between rows of one user at the same time.
    Returns: one sequence a user, in the order of `table.user_ids`; callers cut them with `.latest(k)`.
    Privacy: one user more or fewer changes nobody else's sequence, as a guarantee by user needs it.
    """
    user_keys, item_keys = id_keys(table.user_ids, seed), id_keys(table.item_ids, seed)
    ties = mix_bits(mix_bits(user_keys[table.user_codes]) ^ item_keys[table.item_codes])
    order = np.lexsort((table.item_codes, ties, table.timestamp, table.user_codes))
    bounds = np.cumsum(np.bincount(table.user_codes, minlength=table.n_users))[:-1]
    items, times = np.split(table.item_codes[order], bounds), np.split(table.timestamp[order], bounds)
    return [UserSequence(*of) for of in zip(table.user_ids, items, times, strict=True)]


def id_keys(ids: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """64 bits of each id's salted hash, uint64 `[ids]`: independent of its code, which other users' ids decide."""
    salt = (seed % 2**64).to_bytes(8, "little")
    digests = b"".join(blake2b(text.encode(), digest_size=8, salt=salt).digest() for text in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def mix_bits(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64, a bijection. Reference: Steele et al., OOPSLA 2014."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
