"""All that answers a request in words over one catalogue: titles, the trained reader, and what was understood."""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedrec.data.catalog import ItemCatalog
from fedrec.errors import ModelError
from fedrec.files import storage_errors
from fedrec.model.backbone import folder_hash
from fedrec.model.features import TextReader
from fedrec.query.attributes import AttributeSpace, Floats
from fedrec.query.correction import Correction, RequestInputs
from fedrec.query.learning import LearningPlan, teach
from fedrec.query.made import QueryMaker, training_vocabulary
from fedrec.query.negation import says_something, split_refusals
from fedrec.query.reader import Pieces, QueryReader, ReaderShape, trained_parameters
from fedrec.query.titles import Mention, TitleFinder, split_at_mentions
from fedrec.query.understood import Understood
from fedrec.query.years import says_an_age, years_in

FORMAT = 1
# Changes when training changes, so that an old reader is never taken for a new one.
_RECIPE = "made-requests/1"
_ALL_LAYERS = 10_000
_RANK, _HIDDEN = 8, 512
# A category counts as understood from this weight on; a trained one that is meant has about 3 to 6.
_UNDERSTOOD = 1.0
# Of a request's strongest category: weaker ones go along with it, and are not told as understood.
_SHARE_OF_STRONGEST_WISH = 0.4
# Of a refusal's strongest category: weaker ones were hardly meant.
_SHARE_OF_STRONGEST = 0.6
# Of the difference between the best and the worst year, where a span is understood at all.
_LEAST_SPAN, _INSIDE = 2.0, 0.5
# Share of the catalogue's years beyond which a span that no number names says nothing.
_MOST_YEARS = 0.75
# What a year within the span is better than one outside, in nats.
_DECIDED = 6.0
# Nats for an item that is asked for by its title: before all others.
_NAMED = 20.0
_LIKENESS = re.compile(
    r"\b(?:like|liked|loved|love|enjoyed|similar|comparable|vein|style|lines|reminds?|favou?rite|meets|as|than|same)\b"
    r"|像|类似|差不多|喜欢|一样"
)
_KEPT_READINGS = 4096
# Of public requests that are read together.
PUBLIC_BATCH = 64
# Of a request's nats beside those of a history: chosen on validation, see docs/requests.md.
QUERY_WEIGHT = 0.75
Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class QuerySource:
    """What a reader of requests is made from; public, and its identity."""

    catalog: ItemCatalog
    llm_folder: Path
    encoder_folder: Path | None
    layers: int

    @property
    def key(self) -> str:
        """SHA-256, hex."""
        encoder = folder_hash(self.encoder_folder) if self.encoder_folder else "none"
        parts = [_RECIPE, self.catalog.hash, folder_hash(self.llm_folder), encoder, str(self.layers)]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()


class QueryModel:
    """Reads requests, and scores items by them. May be used from several threads.

    Args:
        titles: of the catalogue, by code.
    """

    def __init__(self, reader: QueryReader, space: AttributeSpace, titles: Sequence[str], key: str) -> None:
        self.space, self.key = space, key
        self.reader, self._finder, self._lock = reader.eval(), TitleFinder.of(titles), Lock()
        self._reading = lru_cache(_KEPT_READINGS)(self._read)
        self._correction: Correction | None = None

    def corrected_by(self, correction: Correction | None) -> "QueryModel":
        """This model with what partners learnt on top; readings are shared with it.

        Raises: ModelError: learnt for another reader.
        """
        if correction is not None and correction.reader_hash != self.reader_hash:
            raise ModelError(
                "the correction was learnt for another reader of requests", "learn it anew with `fedrec query learn`"
            )
        other = copy(self)
        other._correction = correction
        return other

    @cached_property
    def reader_hash(self) -> str:
        """SHA-256 over what the reader was made from and all its trained numbers, hex."""
        digest = hashlib.sha256(self.key.encode())
        for name, tensor in sorted(trained_parameters(self.reader).items()):
            digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def remainder_of(self, text: str) -> Pieces:
        """What is left of a request for the model to read, without refusals, titles as items; empty: nothing."""
        text = " ".join(text.split())
        pieces = split_at_mentions(text, self._finder.find(text))
        wanted, refused = _without_refusals(pieces)
        return wanted if refused else pieces

    def readings(
        self, requests: Sequence[Pieces], progress: Progress = lambda *_: None, batch: int = 1
    ) -> tuple[Floats, Floats]:
        """What the public reader makes of requests: its readings `[requests, ...]` and weights `[requests, width]`.

        Args:
            progress: called with (different requests read, different requests in all).
            batch: how many are read together. 1 for people's own: whoever else is in a batch moves last bits, which no
                clipping bounds. More for public ones, and for figures.
        """
        places = {pieces: place for place, pieces in enumerate(dict.fromkeys(requests))}
        readings = np.zeros((len(places), sum(self.reader.block_widths)), np.float32)
        weights = np.zeros((len(places), self.space.width), np.float32)
        by_length = sorted(places, key=lambda pieces: sum(len(p) if isinstance(p, str) else 1 for p in pieces))
        for start in range(0, len(by_length), batch):
            some = by_length[start : start + batch]
            rows = [places[pieces] for pieces in some]
            readings[rows], weights[rows] = self._read_together(some)
            progress(start + len(some), len(places))
        asked = [places[pieces] for pieces in requests]
        return readings[asked], weights[asked]

    def inputs(self, directions: int, words: int) -> RequestInputs:
        """What a correction of this reader reads: the directions in which the commonest public words differ most."""
        readings, _ = self.readings([(word,) for word in self.reader.common_words(words)], batch=PUBLIC_BATCH)
        widths = self.reader.block_widths
        kept = min(directions, *readings.shape)
        return RequestInputs.of(self.reader_hash, len(self.space.categories), readings, widths, kept)

    def understand(self, text: str) -> Understood:
        """What a request asks for. Equal texts cost one reading.

        Privacy: the text stays in memory, with the last few thousand others; nothing of it is written anywhere.
        """
        text = " ".join(text.split())
        mentions = self._finder.find(text)
        weights, unwanted = self._weighed(split_at_mentions(text, mentions))
        wanted = self.space.raised(weights, _UNDERSTOOD, _SHARE_OF_STRONGEST_WISH)
        around = " ".join(p for p in split_at_mentions(text, mentions) if isinstance(p, str))  # titles hold years too
        span, said = years_in(around), _without_refusals(split_at_mentions(text, mentions))[0]
        if span is None and says_an_age(" ".join(piece for piece in said if isinstance(piece, str))):
            first, last = understood_years(self.space, weights)
        else:  # not the reader's own: it finds years that nobody asked for
            first, last = span or (None, None)
            weights, n_categories = weights.copy(), len(self.space.categories)
            weights[n_categories:] = _DECIDED * self.space.meaning(first, last, weights[:n_categories])[n_categories:]
        like, named = _apart(text, mentions)
        return Understood(weights, wanted, unwanted, first, last, like, named)

    def _weighed(self, pieces: Pieces) -> tuple[Floats, tuple[str, ...]]:
        """Weights of what is wanted, less the categories of what is ruled out; and these, in order."""
        said, refused = _without_refusals(pieces)
        if not refused:
            return self._weights(pieces), ()
        weights = self._weights(said).copy() if said else np.zeros(self.space.width, np.float32)
        n_categories, ruled_out_names = len(self.space.categories), list[str]()
        for words in refused:
            # By the public reader: what people took says what they wished for, and what goes along with it.
            of_refused = self._reading((words,))[1][:n_categories]
            meant = of_refused >= max(_UNDERSTOOD, _SHARE_OF_STRONGEST * float(of_refused.max()))
            weights[:n_categories][meant] = np.minimum(weights[:n_categories][meant], 0.0) - of_refused[meant]
            ruled_out_names += [self.space.categories[place] for place in np.flatnonzero(meant)]
        return weights, tuple(dict.fromkeys(ruled_out_names))

    def scores(self, understood: Understood, items: Floats) -> NDArray[np.float64]:
        """Log of how likely each item is an answer, `[items]`, up to a constant; -inf for those asked to be like.

        Args:
            items: `[items, width]` in `space`; the catalogue's first.
        """
        scores = (items @ understood.weights).astype(np.float64)
        scores -= np.logaddexp.reduce(scores)
        scores[list(understood.named)] += _NAMED
        scores[list(understood.like)] = -np.inf
        return scores

    def _weights(self, pieces: Pieces) -> Floats:
        reading, weights = self._reading(pieces)
        if self._correction is None:
            return weights
        corrected: Floats = self._correction.corrected(reading[None], weights[None])[0]
        return corrected

    def _read(self, pieces: Pieces) -> tuple[Floats, Floats]:
        readings, weights = self._read_together([pieces])
        return readings[0], weights[0]

    def _read_together(self, requests: Sequence[Pieces]) -> tuple[Floats, Floats]:
        with self._lock, torch.no_grad():
            readings = self.reader.read(requests)
            weights: Floats = self.reader.weigh(readings).numpy()
        return readings.numpy(), weights


def _without_refusals(pieces: Pieces) -> tuple[Pieces, list[str]]:
    """What is wanted, as far as it says something, and the words of what is ruled out."""
    wanted, refused = list[str | int](), list[str]()
    for piece in pieces:
        rest, ruled_out = split_refusals(piece) if isinstance(piece, str) else (piece, ())
        wanted += [rest] if rest != "" else []
        refused += ruled_out
    return tuple(piece for piece in wanted if isinstance(piece, int) or says_something(piece)), refused


def understood_years(space: AttributeSpace, weights: Floats) -> tuple[int | None, int | None]:
    """The span of years that weights `[width]` favour; (None, None) where they favour none."""
    start = len(space.categories)
    by_year = np.cumsum(weights[start : start + len(space.thresholds)])
    if not len(by_year) or by_year.max() - by_year.min() < _LEAST_SPAN:
        return None, None
    inside = np.flatnonzero(by_year >= by_year.max() - _INSIDE * (by_year.max() - by_year.min()))
    best = int(by_year.argmax())
    first = last = best
    while first - 1 in inside:
        first -= 1
    while last + 1 in inside:
        last += 1
    years = space.thresholds
    if last - first + 1 > _MOST_YEARS * len(years):  # hardly what somebody asks for
        return None, None
    return (None if first == 0 else years[first], None if last == len(years) - 1 else years[last + 1] - 1)


def _apart(text: str, mentions: Sequence[Mention]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Titles that others should be like, and titles that are wanted themselves."""
    items = tuple(mention.item for mention in mentions)
    around = "".join(piece for piece in split_at_mentions(text, mentions) if isinstance(piece, str))
    is_whole = not re.sub(r"[\W_]+", "", around)
    return (items, ()) if not is_whole and _LIKENESS.search(around.casefold()) else ((), items)


def make_query_model(source: QuerySource, plan: LearningPlan, progress: Progress) -> QueryModel:
    """Train a reader on requests made from the catalogue; some minutes.

    Raises: ModelError: the catalogue has neither categories nor years, about which requests could be made.
    """
    space = AttributeSpace.of(source.catalog)
    if not space.categories:
        raise ModelError("the catalogue has no categories to ask for in words", "give its items categories")
    reader = _fresh_reader(source, space, plan.seed)
    maker = QueryMaker(source.catalog, training_vocabulary())
    teach(reader, maker, space, space.of_catalog(source.catalog), plan, progress)
    return QueryModel(reader, space, source.catalog.titles, source.key)


def _fresh_reader(source: QuerySource, space: AttributeSpace, seed: int) -> QueryReader:
    llm = TextReader.load(source.llm_folder, source.layers)
    sentences = TextReader.load(source.encoder_folder, _ALL_LAYERS) if source.encoder_folder else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return QueryReader(llm, sentences, source.catalog.texts, ReaderShape(_RANK, _HIDDEN, space.width))


def query_folder(cache: Path, key: str) -> Path:
    """Where a trained reader is kept."""
    return cache / "queries" / key[:32]


def save_query_model(model: QueryModel, cache: Path) -> Path:
    """Keep a trained reader, whole or not at all; one that is there is replaced. LoRA as PEFT saves it."""
    folder = query_folder(cache, model.key)
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".query-") as room:
            made = Path(room) / "query"
            made.mkdir()
            tensors = {name: p.detach().contiguous() for name, p in trained_parameters(model.reader).items()}
            save_file(tensors, made / "reader.safetensors")
            facts = {"format": FORMAT, "key": model.key, "space": asdict(model.space)}
            (made / "query.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    return folder


def load_query_model(source: QuerySource, cache: Path) -> QueryModel | None:
    """The reader that was trained for this catalogue and these models; None if none was, or it is damaged."""
    key = source.key
    folder = query_folder(cache, key)
    if not (folder / "query.json").is_file():
        return None
    try:
        facts: dict[str, Any] = json.loads((folder / "query.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "reader.safetensors")
    except (OSError, ValueError, SafetensorError):
        return None
    if facts.get("format") != FORMAT or facts.get("key") != key:
        return None
    space = AttributeSpace(
        tuple(facts["space"]["categories"]),
        tuple(facts["space"]["thresholds"]),
        tuple(facts["space"]["year_means"]),
    )
    reader = _fresh_reader(source, space, 0)
    parameters = trained_parameters(reader)
    if {name: p.shape for name, p in parameters.items()} != {name: t.shape for name, t in tensors.items()}:
        return None
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
    return QueryModel(reader, space, source.catalog.titles, key)
