"""What drift is measured on: histograms of events and of lists over public bins, and streams of 0..1.

Bins are types, hours, categories, classes of popularity and sources: no bin is an item or a person.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.recommend.live_model import LiveModel
from fedrec_client.serving.learning.drift import Drift, Stream, histogram_drift
from fedrec_client.serving.records import Event, Shown
from fedrec_client.serving.tenant import Tenant

Counts = dict[str, dict[str, float]]
INPUTS = ("events by type", "events by hour", "events by category", "events by popularity")
SERVED = ("lists by source", "lists by category", "lists by popularity")
HITS, CONFIDENCE, UNKNOWN = "share of next items that were on the list", "confidence", "share of unknown items"
# Upper bounds of classes of popularity, as shares of the items, the most popular first.
_CLASSES = ((0.01, "top 1%"), (0.1, "top 10%"), (0.5, "top 50%"), (1.0, "the tail"))

_PLAIN = ("began", "n_events", "people", "reference_people", "reference", "current")


class Bins:
    """The bins of a tenant's items by the model of now."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._classes: tuple[LiveModel | None, NDArray[np.int64]] = (None, np.zeros(0, np.int64))

    def of_event(self, event: Event) -> dict[str, list[str]]:
        """By measure."""
        hour = f"{int(event.timestamp // 3600) % 24:02d}"
        items = self._of_items("events", [event.item])
        return {"events by type": [event.type], "events by hour": [hour], **items}

    def of_list(self, shown: Shown) -> dict[str, list[str]]:
        """By measure."""
        return {"lists by source": list(shown.sources), **self._of_items("lists", shown.items)}

    def is_unknown(self, event: Event) -> bool:
        """Whether the adapter has never met the item in training."""
        code = self._tenant.shelf.find(event.item)
        return code is None or code >= self._tenant.engine.model.n_catalog

    def _of_items(self, what: str, items: Iterable[str]) -> dict[str, list[str]]:
        shelf, classes = self._tenant.shelf, self._popularity()
        codes = [code for item in items if (code := shelf.find(item)) is not None]
        categories = [name for code in codes for name in shelf.item(code).categories or ("none",)]
        popularity = [_CLASSES[classes[code]][1] if code < len(classes) else "new" for code in codes]
        return {f"{what} by category": categories, f"{what} by popularity": popularity}

    def _popularity(self) -> NDArray[np.int64]:
        model = self._tenant.engine.model
        if self._classes[0] is not model:
            prior = model.prior[: model.n_catalog]
            share = (np.argsort(np.argsort(-prior, kind="stable")) + 0.5) / max(1, len(prior))
            bounds = np.array([bound for bound, _ in _CLASSES])
            self._classes = model, np.searchsorted(bounds, share).astype(np.int64)
        return self._classes[1]


@dataclass(repr=False)
class Measures:
    """Histograms of a reference window and of the one that is filling, and the streams. Private counts.

    Attributes:
        began: Unix seconds at which the current window began.
        n_events: in it.
        people: who made "events" and was shown "lists", how many; after a restart some count twice.
    """

    began: float
    n_events: int = 0
    people: dict[str, int] = field(default_factory=dict)
    reference_people: dict[str, int] = field(default_factory=dict)
    reference: Counts = field(default_factory=dict)
    current: Counts = field(default_factory=dict)
    streams: dict[str, Stream] = field(
        default_factory=lambda: {name: Stream(name, name == HITS) for name in (HITS, CONFIDENCE, UNKNOWN)}
    )

    _met: dict[str, set[str]] = field(default_factory=dict)

    def count(self, bins: Mapping[str, Iterable[str]], person: str) -> None:
        """Add one for each name. Who did it is held in memory until the window closes, and written nowhere."""
        kind = _kind(next(iter(bins)))
        met = self._met.setdefault(kind, set())
        if person not in met:
            met.add(person)
            self.people[kind] = self.people.get(kind, 0) + 1
        for measure, names in bins.items():
            counts = self.current.setdefault(measure, {})
            for name in names:
                counts[name] = counts.get(name, 0.0) + 1.0

    def forget(self, person: str) -> None:
        """Drop from memory who it was; counts stay."""
        for met in self._met.values():
            met.discard(person)

    def close_window(self, bound: float, now: float) -> list[Drift]:
        """Compare the window with the reference, and begin a new one. A window that drifted is the next reference."""
        found = []
        for measure, counts in self.current.items():
            now_people = self.people.get(_kind(measure), 0)
            people = (self.reference_people.get(measure, 0), now_people)
            drift = histogram_drift(measure, self.reference.get(measure, {}), counts, bound, self.began, now, people)
            if drift is not None:
                found.append(drift)
            if drift is not None or measure not in self.reference:
                self.reference[measure], self.reference_people[measure] = counts, now_people
        self.people, self._met = {}, {}
        self.current, self.began, self.n_events = {}, now, 0
        return found

    def forget_lists(self) -> None:
        """Another adapter makes other lists, as it should: nothing of them is compared with what was before."""
        for measure in SERVED:
            self.reference.pop(measure, None)
            self.current.pop(measure, None)
        self.people.pop("lists", None)
        self._met.pop("lists", None)
        for name in (HITS, CONFIDENCE):
            self.streams[name].restore([])

    def to_dict(self) -> dict[str, Any]:
        """For the disk."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        streams = {name: [[round(at, 3), round(x, 6)] for at, x in s.values()] for name, s in self.streams.items()}
        return {**plain, "streams": streams}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Measures":
        """From the disk. Raises KeyError, TypeError, ValueError: not what was written."""
        found = cls(**{name: values[name] for name in _PLAIN})
        for name, stream in found.streams.items():
            stream.restore([(float(at), float(x)) for at, x in values["streams"].get(name, [])])
        return found


def _kind(measure: str) -> str:
    return measure.split()[0]
