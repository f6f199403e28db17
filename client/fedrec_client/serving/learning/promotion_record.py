"""Which adapter serves, which served before, and which were refused: on the disk, with the adapters themselves.

`promotion.json` and `adapters/HASH.safetensors` in the service's folder. The node keeps the newest version alone; a
service that goes back, or stays with the one before, needs that one's tensors after a restart, too.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fedrec.errors import RunError
from fedrec.files import damaged, json_bytes, make_folders, read_file, read_json, replace_file, storage_errors

FORMAT = 1
_MOST_REFUSED = 50
RECORD, ADAPTERS = "promotion.json", "adapters"


@dataclass(frozen=True)
class Candidate:
    """An adapter that could serve. Public to partners.

    Attributes:
        version: "round-0031", say.
        adapter_hash: of its tensors, by which it is known.
        content: reads the tensors' file.
    """

    version: str
    adapter_hash: str
    content: Callable[[], bytes] = field(repr=False)


@dataclass(frozen=True)
class ServingSince:
    """An adapter that serves, or did.

    Attributes:
        since: Unix seconds at which it took over.
        asked, failed: recommendations of the one before, since its process began, when this one took over.
    """

    version: str
    adapter_hash: str
    since: float
    asked: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Refusal:
    """An adapter that does not serve unless somebody insists.

    Attributes:
        reason: "replay", "click-through", "errors", "by hand".
        figures: that it was refused for; sums over people, which stay with the partner.
    """

    version: str
    adapter_hash: str
    reason: str
    at: float
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PromotionRecord:
    """All of `promotion.json`.

    Attributes:
        serving, before: None where there is none; `before` is gone back to.
        refused: oldest first.
        figures: the verdicts by tenant for which `serving` took over.
    """

    serving: ServingSince | None = None
    before: ServingSince | None = None
    refused: tuple[Refusal, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)

    def refusal(self, adapter_hash: str) -> Refusal | None:
        """Of an adapter."""
        return next((one for one in self.refused if one.adapter_hash == adapter_hash), None)

    def with_refusal(self, refusal: Refusal) -> "PromotionRecord":
        """One more; the oldest go."""
        others = [one for one in self.refused if one.adapter_hash != refusal.adapter_hash]
        return replace(self, refused=(*others, refusal)[-_MOST_REFUSED:])

    def without_refusal(self, adapter_hash: str) -> "PromotionRecord":
        """One less."""
        return replace(self, refused=tuple(one for one in self.refused if one.adapter_hash != adapter_hash))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class PromotionBook:
    """The record and the adapters that it names. Every method is for a thread.

    Args:
        folder: the service's.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._adapters = folder / RECORD, folder / ADAPTERS

    def read(self) -> PromotionRecord:
        """Empty before the first. Raises RunError: damaged."""
        if not self._path.exists():
            return PromotionRecord()
        values, _ = read_json(self._path, FORMAT)
        try:
            serving, before = (values[name] and ServingSince(**values[name]) for name in ("serving", "before"))
            refused = tuple(Refusal(**one) for one in values["refused"])
            return PromotionRecord(serving, before, refused, dict(values["figures"]))
        except (KeyError, TypeError) as error:
            raise damaged(self._path) from error

    def write(self, record: PromotionRecord) -> None:
        """Whole or not at all; adapters that it names no more go. Raises StorageError."""
        with storage_errors(self._path.parent):
            replace_file(self._path, json_bytes({"format": FORMAT, **record.to_dict()}))
            named = {one.adapter_hash for one in (record.serving, record.before) if one is not None}
            for path in self._adapters.glob("*.safetensors"):
                if path.stem not in named:
                    path.unlink(missing_ok=True)

    def keep(self, candidate: Candidate) -> None:
        """Keep its tensors, before it serves. Raises StorageError, and as `content` does."""
        path = self._adapters / f"{candidate.adapter_hash}.safetensors"
        if not path.exists():
            with storage_errors(self._adapters):
                make_folders(self._adapters)
                replace_file(path, candidate.content())

    def kept(self, one: ServingSince) -> Candidate | None:
        """An adapter that the record names; None if its tensors are gone."""
        path = self._adapters / f"{one.adapter_hash}.safetensors"
        if not path.is_file():
            return None
        return Candidate(one.version, one.adapter_hash, lambda: read_file(path))

    def at_start(self, newest: Candidate | None) -> Candidate | None:
        """Which adapter a service begins with: the one that served; else the newest. Raises RunError: damaged."""
        record = self.read()
        if record.serving is not None and (kept := self.kept(record.serving)) is not None:
            return kept
        return newest


def missing(what: str) -> RunError:
    """The error for an adapter that cannot be gone to."""
    return RunError(f"there is no {what} adapter here", "`flower-client status` says which one serves")
