"""The Open Bandit log: which item was shown where, with which probability, and whether it was clicked.

Two policies ran side by side in a shop for fashion, on three campaigns: one drew items uniformly, the other by
Bernoulli Thompson sampling. What either would have earned can therefore be estimated from the other's rows and be
compared with what it did earn. The authors' sample has 10,000 rows of each; they published the click rates of all 26.7
million.

Public data: rows have no user ids, only coarse hashed features, and the authors made them public.
Reference: Saito et al. 2020, arXiv:2008.07146.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedrec.data.columns import Problems, id_text, numbers, problems_of, read_batches
from fedrec.data.interactions import unix_seconds
from fedrec.errors import ConfigError, DataError

Campaign = Literal["all", "men", "women"]
LoggingPolicy = Literal["random", "bts"]
CAMPAIGNS: tuple[Campaign, ...] = get_args(Campaign)
POLICIES: tuple[LoggingPolicy, ...] = get_args(LoggingPolicy)
N_POSITIONS = 3
_USER_FEATURES = tuple(f"user_feature_{number}" for number in range(4))
_ITEM_WORDS = tuple(f"item_feature_{number}" for number in range(1, 4))
_REMEDY = "mend or remove these; nothing was read"

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Published:
    """A click rate that the authors give for their whole log; two digits, so it is exact to .00005 at best."""

    rows: int
    click_rate: float

    @property
    def margin(self) -> float:
        """Half of a 95% interval by the normal approximation, and half a unit of the last printed digit."""
        return 1.96 * float(np.sqrt(self.click_rate * (1 - self.click_rate) / self.rows)) + 0.00005


PUBLISHED: Mapping[tuple[Campaign, LoggingPolicy], Published] = MappingProxyType(
    {
        ("all", "random"): Published(1_374_327, 0.0035),
        ("all", "bts"): Published(12_168_084, 0.0050),
        ("men", "random"): Published(452_949, 0.0051),
        ("men", "bts"): Published(4_077_727, 0.0067),
        ("women", "random"): Published(864_585, 0.0048),
        ("women", "bts"): Published(7_765_497, 0.0064),
    }
)
"""On-policy click rates of the whole log: Saito et al. 2020, table 1."""


@dataclass(frozen=True, eq=False)
class BanditLog:
    """Logged decisions with their probabilities; rows of the same number belong together.

    Attributes:
        actions: int32 `[rows]`, the item shown, from 0.
        positions: int32 `[rows]`, where it was shown, from 0.
        rewards: float64 `[rows]`, within [0, 1]; 1 is a click.
        propensities: float64 `[rows]`, in (0, 1]: probability with which this item was shown there.
        timestamps: float64 `[rows]`, Unix seconds.
        users: `[rows, features]`, hashed words about who looked; no identity.
        affinities: float32 `[rows, items]`, the user's earlier clicks on each item.
        item_numbers: float64 `[items]`.
        item_words: int32 `[items, features]`, opaque categories, coded by first appearance: their hashes differ from
            file to file, their order does not.
        n_positions: how many places there are.
    Raises: DataError: columns that do not fit each other, or rows that cannot be; every reason with its rows.
    """

    actions: Ints = field(repr=False)
    positions: Ints = field(repr=False)
    rewards: Floats = field(repr=False)
    propensities: Floats = field(repr=False)
    timestamps: Floats = field(repr=False)
    users: NDArray[np.str_] = field(repr=False)
    affinities: NDArray[np.float32] = field(repr=False)
    item_numbers: Floats = field(repr=False)
    item_words: Ints = field(repr=False)
    n_positions: int = N_POSITIONS

    def __post_init__(self) -> None:
        n, k = len(self.actions), len(self.item_numbers)
        columns = (self.positions, self.rewards, self.propensities, self.timestamps)
        fitting = all(column.shape == (n,) for column in columns) and self.users.shape[:1] == (n,)
        if not n or not fitting or self.affinities.shape != (n, k) or self.item_words.shape[:1] != (k,):
            raise DataError("bandit log: columns of unequal length, or no rows", "give each row a value in each column")
        problems = Problems("row")
        _refuse_rows(vars(self), np.arange(1, n + 1), problems)
        problems.refuse("bandit log", "mend or remove these rows")

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def n_actions(self) -> int:
        """Items that could be shown."""
        return len(self.item_numbers)

    def shares(self) -> Floats:
        """How often each item was shown in each position, `[items, positions]`; each position's shares add up to 1.

        That is the logging policy, as drawn and averaged over the log's time. Its value is the mean value of all that
        it was meanwhile, as far as an item is clicked alike all the time. Raises DataError: a position without rows.
        """
        counts = np.zeros((self.n_actions, self.n_positions))
        np.add.at(counts, (self.actions, self.positions), 1.0)
        if not counts.sum(axis=0).all():
            raise DataError("bandit log: a position without rows", "take more rows, or fewer positions")
        return np.asarray(counts / counts.sum(axis=0))

    def rows(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> "BanditLog":
        """Some rows as a log of their own."""
        per_row = ("actions", "positions", "rewards", "propensities", "timestamps", "users", "affinities")
        return BanditLog(
            **{name: getattr(self, name)[chosen] for name in per_row},
            item_numbers=self.item_numbers,
            item_words=self.item_words,
            n_positions=self.n_positions,
        )


def _refuse_rows(columns: Mapping[str, Any], lines: NDArray[np.int64], problems: Problems) -> None:
    """Add what no decision can be. NaN fails every comparison, so that it is refused with the rest."""
    n_actions, n_positions = len(columns["item_numbers"]), columns["n_positions"]
    actions, positions = columns["actions"], columns["positions"]
    rewards, propensities = columns["rewards"], columns["propensities"]
    allowed = {
        f"the item is none of 0 to {n_actions - 1}": (actions >= 0) & (actions < n_actions),
        f"the position is none of the {n_positions}": (positions >= 0) & (positions < n_positions),
        "the reward is not within 0 and 1": (rewards >= 0) & (rewards <= 1),
        "the propensity is not above 0 and at most 1": (propensities > 0) & (propensities <= 1),
        "the time is no time": np.isfinite(columns["timestamps"]),
        "an affinity is not a number": np.isfinite(columns["affinities"]).all(axis=1),
    }
    for reason, mask in allowed.items():
        problems.add(reason, lines[~mask])


def read_open_bandit(folder: Path, campaign: Campaign, policy: LoggingPolicy) -> BanditLog:
    """One campaign's rows under one policy, in the order of the file.

    Args:
        folder: what `fetch("open-bandit")` gave.
    Raises:
        ConfigError: no such campaign or policy.
        DataError: a file that is missing or lacks columns, or rows that cannot be; every reason with its lines.
    """
    if campaign not in CAMPAIGNS or policy not in POLICIES:
        wanted = f"campaigns {', '.join(CAMPAIGNS)}; policies {', '.join(POLICIES)}"
        raise ConfigError(f"no {campaign!r} under {policy!r} in the Open Bandit log", wanted)
    place = folder / policy / campaign
    item_numbers, item_words = _read_items(place / "item_context.csv")
    return _read_rows(place / f"{campaign}.csv", item_numbers, item_words)


def _read_items(path: Path) -> tuple[Floats, Ints]:
    names = ("item_id", "item_feature_0", *_ITEM_WORDS)
    problems, lines, cells = _read_columns(path, names)
    ids, values = numbers(cells["item_id"]), numbers(cells["item_feature_0"])
    problems.add("items are not numbered 0, 1, 2, ... in order", lines[ids != np.arange(len(ids))])
    problems.add("'item_feature_0' is not a number", lines[~np.isfinite(values)])
    problems.refuse(str(path), _REMEDY)
    words = [_by_first_appearance([id_text(cell) for cell in cells[name]]) for name in _ITEM_WORDS]
    return values, np.stack(words, axis=1)


def _read_rows(path: Path, item_numbers: Floats, item_words: Ints) -> BanditLog:
    affinities = [f"user-item_affinity_{item}" for item in range(len(item_numbers))]
    scalars = ("item_id", "position", "click", "propensity_score")
    problems, lines, cells = _read_columns(path, (*scalars, "timestamp", *_USER_FEATURES, *affinities))
    items, places, rewards, propensities = (numbers(cells[name]) for name in scalars)
    columns: dict[str, Any] = {
        "actions": _whole(items),
        "positions": _whole(places) - np.int32(1),
        "rewards": rewards,
        "propensities": propensities,
        "timestamps": numbers(cells["timestamp"], unix_seconds),
        "users": np.array([[id_text(cell) for cell in cells[name]] for name in _USER_FEATURES]).T,
        "affinities": np.stack([numbers(cells[name]) for name in affinities], axis=1).astype(np.float32),
        "item_numbers": item_numbers,
        "item_words": item_words,
        "n_positions": N_POSITIONS,
    }
    _refuse_rows(columns, lines, problems)  # before the log is made, so that reasons name the file's own lines
    problems.refuse(str(path), _REMEDY)
    return BanditLog(**columns)


def _read_columns(path: Path, names: Sequence[str]) -> tuple[Problems, NDArray[np.int64], dict[str, list[object]]]:
    """Columns of a file by name, their lines, and what was wrong with other lines. Raises DataError: nothing there."""
    problems, lines = problems_of(path), list[int]()
    cells: dict[str, list[object]] = {name: [] for name in names}
    for batch in read_batches(path, names, problems):
        lines += batch.lines
        for name in names:
            cells[name] += batch.cells[name]
    if not lines:
        problems.refuse(str(path), _REMEDY)
        raise DataError(f"{path}: no rows", "fetch it anew: `fedrec data fetch open-bandit`")
    return problems, np.array(lines, np.int64), cells


def _whole(values: Floats) -> Ints:
    """Whole numbers as codes; anything else as one below all codes, which is refused."""
    is_whole = (values == np.rint(values)) & (abs(values) < 1e6)
    return np.where(is_whole, values, np.iinfo(np.int16).min).astype(np.int32)


def _by_first_appearance(words: Sequence[str]) -> Ints:
    codes: dict[str, int] = {}
    return np.array([codes.setdefault(word, len(codes)) for word in words], np.int32)
