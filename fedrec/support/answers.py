"""A partner's answers, and requests that are to find them: what they are, and how files of them are read."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedrec.errors import DataError
from fedrec.files import storage_errors

MOST_TEXT = 20_000
_MOST_PROBLEMS = 20
_T = TypeVar("_T")
Sentence = Annotated[str, Field(min_length=1, max_length=MOST_TEXT, pattern=r"\S")]


@dataclass(frozen=True, repr=False)
class Answer:
    """A question that a partner has answered for everybody. The partner's own; as public as its help pages.

    Attributes:
        question: as the help page words it.
        text: the answer.
    """

    id: str
    question: str
    text: str


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PairRow(_Row):
    """A line of a file of answers; `partner` names whose desk it is."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    question: Sentence
    answer: Sentence
    partner: str = ""

    def to_answer(self) -> Answer:
        """Without the partner."""
        return Answer(self.id, self.question, self.answer)


class RequestRow(_Row):
    """A line of a file of requests with the answer that each should find.

    Attributes:
        answer: id; None where the partner has none.
        kind: how the request was made: other words for a question; near the partner's trade, or far from it.
        split: thresholds are chosen on `validation` alone.
    """

    partner: str
    request: Sentence
    answer: str | None
    kind: Literal["paraphrase", "near", "far"]
    language: str
    split: Literal["validation", "test"]


def read_pairs(path: Path) -> list[PairRow]:
    """Lines of JSON, each a `PairRow`. Raises DataError: every bad line with its number; an id that stands twice."""
    rows = list(_lines(path, PairRow.model_validate))
    twice = sorted({row.id for row in rows if sum(other.id == row.id for other in rows) > 1}) if rows else []
    if twice or not rows:
        problem = f"{len(twice)} ids stand twice, {twice[0]!r} first" if twice else "no line"
        raise DataError(f"{path.name}: {problem}", "give each answer an id of its own, one JSON object a line")
    return rows


def read_requests(path: Path) -> list[RequestRow]:
    """Lines of JSON, each a `RequestRow`. Raises DataError: every bad line with its number."""
    return list(_lines(path, RequestRow.model_validate))


def _lines(path: Path, parse: Callable[[object], _T]) -> Iterator[_T]:
    with storage_errors(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    found, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(parse(json.loads(line)))
        except (ValidationError, ValueError) as error:
            problems.append(f"line {number}: {_why(error)}")
    if problems:
        more = [f"and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
        remedy = 'write one JSON object a line: {"id": "…", "question": "…", "answer": "…"}'
        raise DataError.of_all([*problems[:_MOST_PROBLEMS], *more], remedy, path.name)
    yield from found


def _why(error: Exception) -> str:
    """Without the values, which may be private."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'line'}: {one['msg']}" for one in error.errors())
    return "no JSON"
