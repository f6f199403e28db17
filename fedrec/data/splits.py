"""Each user's history cut into training, validation and test, by one of the protocols of the field.

Under B and split721 a user's cut depends on that user alone, under A on the user's id and the seed as well. The cuts
of D and global-time depend on everybody's rows: they are for evaluation only, and no adapter that was trained privately
on them is handed on, since one user more could change what others train on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.config import ProtocolName
from fedrec.data.sequences import UserSequence, id_keys, mix_bits
from fedrec.errors import ConfigError, DataError

# Protocols whose cuts depend on everybody's rows: one user more can move another's item into training or out of it.
CUT_BY_ALL: tuple[ProtocolName, ...] = ("D", "global-time")

_TRAIN, _VALIDATION, _TEST = 0, 1, 2


@dataclass(frozen=True, eq=False, repr=False)
class EvaluationSplit:
    """One user's items by what they are for, each part oldest first, or in random order under A and D. Private.

    Attributes:
        user: id.
        train, validation, test: int32 catalogue codes, each may be empty.
        before_test: training and validation items together, in that order; None where all validation came after.
    Raises: DataError: a part that is no row of whole numbers, or `before_test` of other items.
    """

    user: str
    train: NDArray[np.int32]
    validation: NDArray[np.int32]
    test: NDArray[np.int32]
    before_test: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            part = getattr(self, name)
            if part.ndim != 1 or part.dtype != np.int32:
                raise DataError(f"split: {name} is not int32 [n]", "cut a UserSequence")
        both, known = np.concatenate([self.train, self.validation]), self.before_test
        if known is not None and (known.dtype != np.int32 or not np.array_equal(np.sort(known), np.sort(both))):
            raise DataError("split: before_test is not training and validation, int32", "cut a UserSequence")

    def __repr__(self) -> str:
        return "EvaluationSplit(<private>)"

    def history(self, which: Literal["validation", "test"]) -> NDArray[np.int32]:
        """What is known when a part is asked for: training for validation, with validation for the test; oldest first.

        Raises: ConfigError: any other part.
        """
        match which:
            case "validation":
                return self.train
            case "test":
                known = self.before_test
                return np.concatenate([self.train, self.validation]) if known is None else known
            case _:
                raise ConfigError(f"no history before {which!r}", "name validation or test")


def split_by(protocol: ProtocolName, sequences: Sequence[UserSequence], seed: int) -> list[EvaluationSplit]:
    """Cut all users by a protocol; one split a user, in the order of `sequences`.

    Args:
        seed: of what A and D draw; the others draw nothing.
    Raises: ConfigError: unknown protocol.
    """
    match protocol:
        case "A":
            return random_8_1_1(sequences, seed)
        case "B":
            return leave_one_out(sequences)
        case "D":
            return stratified_by_item(sequences, seed)
        case "split721":
            return split_7_2_1(sequences)
        case "global-time":
            return global_time(sequences)
    raise ConfigError(f"unknown protocol {protocol!r}", "name A, B, D, split721 or global-time")


def leave_one_out(sequences: Sequence[UserSequence]) -> list[EvaluationSplit]:
    """Protocol B: the latest item is the test, the one before it the validation, in the order of `sequences`.

    Users with fewer than three items go wholly to training.
    """
    return [_cut(sequence, *((1, 1) if len(sequence) >= 3 else (0, 0))) for sequence in sequences]


def split_7_2_1(sequences: Sequence[UserSequence]) -> list[EvaluationSplit]:
    """Protocol split721: 70% training, 20% validation, 10% test, per user by time, rounded towards training.

    Of three items or more, one at least is for validation and one for the test; fewer go wholly to training.
    """
    lengths = [len(sequence) for sequence in sequences]
    sizes = [(max(1, n * 2 // 10), max(1, n // 10)) if n >= 3 else (0, 0) for n in lengths]
    return [_cut(sequence, *size) for sequence, size in zip(sequences, sizes, strict=True)]


def _cut(sequence: UserSequence, n_validation: int, n_test: int) -> EvaluationSplit:
    end = len(sequence) - n_test
    start = end - n_validation
    items = sequence.items
    return EvaluationSplit(sequence.user, items[:start], items[start:end], items[end:])


def random_8_1_1(sequences: Sequence[UserSequence], seed: int) -> list[EvaluationSplit]:
    """Protocol A: of each user's items a random tenth is the test and another the validation.

    Both are rounded down, but of three items or more one at least is for each; fewer go wholly to training. An item
    that a user had several times stays in one part. What is asked for comes from all times, so each part is in
    random order (RecBole's `RO_RS`), for models that read an order too: the next item is any other item.

    Privacy: a user's draw depends on the user's id, own items and the seed alone.
    Reference: RecBole, `split: {RS: [.8, .1, .1]}, group_by: user`, arXiv:2011.01731.
    """
    keys = id_keys([sequence.user for sequence in sequences], seed)
    return [_draw_tenths(sequence, int(key)) for sequence, key in zip(sequences, keys, strict=True)]


def _draw_tenths(sequence: UserSequence, key: int) -> EvaluationSplit:
    distinct, of = np.unique(sequence.items, return_inverse=True)
    n_each = max(1, len(distinct) // 10) if len(distinct) >= 3 else 0
    parts = np.full(len(distinct), _TRAIN)
    drawn = np.random.default_rng(key).permutation(len(distinct))[: 2 * n_each]
    parts[drawn[:n_each]], parts[drawn[n_each:]] = _TEST, _VALIDATION
    return _by_parts(sequence, parts[of], _no_order(len(sequence), key))


def stratified_by_item(sequences: Sequence[UserSequence], seed: int) -> list[EvaluationSplit]:
    """Protocol D: of each item's users a random quarter is asked for it in the test; a tenth of the rest validates.

    Shares are rounded to the nearest whole user, so an item of one or two users is training only. The published
    protocol has no validation part; here it is cut from the training part in the same way, and models are not trained
    on it afterwards, so our figures under D are those of 67.5% of the data. Whoever has no training item is nobody's
    training user. Parts are in random order, as under A.

    Privacy: which of an item's users are drawn depends on the item's other users: for evaluation only. The order in
    which they are drawn comes from each user's id, the item's code and the seed.
    Reference: recommenders, `python_stratified_split(ratio=.75, filter_by="item")`, doi:10.1145/3298689.3346967.
    """
    lengths = [len(sequence) for sequence in sequences]
    users = np.repeat(np.arange(len(sequences)), lengths)
    items = np.concatenate([np.zeros(0, np.int32), *(sequence.items for sequence in sequences)])
    n_items = int(items.max(initial=0)) + 1
    pairs, of = np.unique(users * n_items + items, return_inverse=True)
    pair_users, pair_items = np.divmod(pairs, n_items)
    keys = id_keys([sequence.user for sequence in sequences], seed)
    draws = mix_bits(keys[pair_users] ^ mix_bits(pair_items.astype(np.uint64)))
    parts = _parts_within(pair_items, draws)[of]
    orders = [_no_order(length, int(key)) for length, key in zip(lengths, keys, strict=True)]
    return [_by_parts(*one) for one in zip(sequences, np.split(parts, np.cumsum(lengths)[:-1]), orders, strict=True)]


def _parts_within(items: NDArray[np.integer], draws: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A part for each of an item's users, who stand in the order of their draws: training, validation, test."""
    order = np.lexsort((draws, items))
    counts = np.bincount(items)
    rank = np.arange(len(items)) - (np.cumsum(counts) - counts)[items[order]]
    known = np.rint(0.75 * counts)
    trained = known - np.rint(0.1 * known)
    parts = np.empty(len(items), np.int64)
    parts[order] = (rank >= trained[items[order]]).astype(np.int64) + (rank >= known[items[order]])
    return parts


def global_time(sequences: Sequence[UserSequence]) -> list[EvaluationSplit]:
    """Protocol global-time: two moments, the same for all, at 80% and 90% of all rows by time.

    What was before or at the first is training, before or at the second validation, after it the test: nothing is
    learnt from what lies in the future of any question. Rows of one moment stay together, so shares are near 80:10:10
    only. Users who came after the first moment have no training items; they are asked all the same, with what is
    known of them, be it nothing (the report counts them as cold).

    Privacy: the moments depend on everybody's rows: for evaluation only.
    Reference: Meng et al. 2020, arXiv:2007.13237, "temporal global split".
    """
    times = np.concatenate([np.zeros(0), *(sequence.timestamps for sequence in sequences)])
    if not len(times):
        return []
    moments = np.quantile(times, [0.8, 0.9], method="inverted_cdf")
    return [_by_parts(sequence, np.searchsorted(moments, sequence.timestamps)) for sequence in sequences]


def _no_order(n_rows: int, key: int) -> NDArray[np.int64]:
    """A random order of a user's rows: where the items asked for are drawn from all times, time tells nothing."""
    return np.random.default_rng([key, 1]).permutation(n_rows)


def _by_parts(
    sequence: UserSequence, parts: NDArray[np.int64], order: NDArray[np.int64] | None = None
) -> EvaluationSplit:
    """Deal a user's rows, which are in order of time, to the parts, int `[rows]`; in that order or in another."""
    items = sequence.items
    if order is not None:
        items, parts = items[order], parts[order]
    train, validation, test = (items[parts == part] for part in (_TRAIN, _VALIDATION, _TEST))
    return EvaluationSplit(sequence.user, train, validation, test, before_test=items[parts != _TEST])
