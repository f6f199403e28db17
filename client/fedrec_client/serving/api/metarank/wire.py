"""What Metarank's clients send, read with as little ado as it does: any content type, what is unknown left out."""

import json
import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from fedrec.errors import DataError
from fedrec.recommend.shelf import Json

# Beyond these a request is refused: every one of them is ranked, or read by the LLM.
MOST_CANDIDATES, MOST_TEXTS = 10_000, 256
_MOST_NUMBER = 1e15
_MOST_S = 1e11  # the year 5138: a moment after it was no millisecond


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("is not printable text")
    return text


def _or_empty(value: object) -> object:
    return "" if value is None else value


def _seconds(value: object) -> float:
    """Of milliseconds as a number or a text, or a moment in ISO 8601; without a zone it is UTC.

    >>> _seconds("1599391467000"), _seconds(1599391467000), _seconds("2020-09-06T11:24:27Z")
    (1599391467.0, 1599391467.0, 1599391467.0)
    """
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value / 1000 if abs(value) <= 1000 * _MOST_S else math.nan
    elif isinstance(value, str):
        seconds = _seconds(int(value)) if value.isascii() and value.isdigit() and len(value) < 19 else _moment(value)
    if not 0 <= seconds <= _MOST_S:
        raise ValueError("is neither milliseconds since 1970 nor a moment in ISO 8601")
    return seconds


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _field_value(value: Json) -> Json:
    values = value if isinstance(value, list) else [value]
    is_number = [isinstance(one, int | float) and not isinstance(one, bool) for one in values]
    if isinstance(value, list):
        is_fine = all(is_number) or all(isinstance(one, str) for one in values)
    else:
        is_fine = is_number[0] or isinstance(value, bool | str)
    if not is_fine or any(
        number and not abs(one) <= _MOST_NUMBER for one, number in zip(values, is_number, strict=True)
    ):
        raise ValueError("is no boolean, text, number, list of texts or list of numbers")
    return value


Id = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
OptionalId = Annotated[str, Field(max_length=256), AfterValidator(_printable), BeforeValidator(_or_empty)]
Moment = Annotated[float, BeforeValidator(_seconds)]
Words = Annotated[str, Field(max_length=20_000, pattern=r"\S")]


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class FieldSent(_Sent):
    """One of `fields`."""

    name: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
    value: Annotated[Any, AfterValidator(_field_value)]


class _Happening(_Sent):
    """What all events have.

    Attributes:
        timestamp: Unix seconds; 0: now.
    """

    id: OptionalId = ""
    timestamp: Moment = 0.0
    fields: tuple[FieldSent, ...] = Field(default=(), strict=False)

    def named(self) -> dict[str, Json]:
        """Fields by name; of a name that stands twice the last."""
        return {field.name: field.value for field in self.fields}


class ItemEvent(_Happening):
    """How an item is."""

    event: Literal["item", "metadata"]
    item: Id


class UserEvent(_Happening):
    """How a person is."""

    event: Literal["user"]
    user: Id


class ItemSent(_Sent):
    """A place of a list; its relevancy, label and fields are left out."""

    id: Id


class RankRequest(_Happening):
    """A list that is to be ordered."""

    user: OptionalId = ""
    session: OptionalId = ""
    items: tuple[ItemSent, ...] = Field(min_length=1, max_length=MOST_CANDIDATES, strict=False)

    def ids(self) -> tuple[str, ...]:
        """Of the items, each once."""
        return tuple(dict.fromkeys(item.id for item in self.items))


class RankingEvent(RankRequest):
    """A list that somebody was shown."""

    event: Literal["ranking"]


class InteractionEvent(_Happening):
    """What somebody did with an item."""

    event: Literal["interaction"]
    item: Id
    type: Id
    ranking: OptionalId = ""
    user: OptionalId = ""
    session: OptionalId = ""


class RecommendRequest(_Sent):
    """Somebody's items, or items like some."""

    count: Annotated[int, Field(ge=1, le=1000)] = 10
    user: OptionalId = ""
    items: tuple[Id, ...] = Field(default=(), max_length=1000, strict=False)


class EncodeRequest(_Sent):
    """Texts to be made vectors."""

    texts: tuple[Words, ...] = Field(max_length=MOST_TEXTS, strict=False)


class PairSent(_Sent):
    """What is to be compared."""

    query: Words
    text: Words


class CompareRequest(_Sent):
    """Pairs to be compared."""

    input: tuple[PairSent, ...] = Field(max_length=MOST_TEXTS // 2, strict=False)


AnyEvent = Annotated[ItemEvent | UserEvent | RankingEvent | InteractionEvent, Field(discriminator="event")]
_EVENTS: TypeAdapter[list[AnyEvent]] = TypeAdapter(list[AnyEvent])
_Model = TypeVar("_Model", bound=_Sent)


def read_events(body: bytes) -> list[AnyEvent]:
    """An event, an array of them, or a stream of either, with or without newlines.

    Raises: DataError: no JSON. RequestValidationError: an event is not as described.
    """
    values: list[Json] = []
    for value in _documents(body):
        values.extend(value if isinstance(value, list) else [value])
    try:
        return _EVENTS.validate_python(values)
    except ValidationError as error:
        raise _refusal(error) from None


def read_request(body: bytes, model: type[_Model]) -> _Model:
    """A body that is one object. Raises as `read_events`."""
    documents = _documents(body)
    try:
        return model.model_validate(documents[0] if len(documents) == 1 else None)
    except ValidationError as error:
        raise _refusal(error) from None


def _documents(body: bytes) -> list[Json]:
    found, place, decoder = [], 0, json.JSONDecoder()
    try:
        text = body.decode("utf-8-sig").strip()
        while place < len(text):
            value, place = decoder.raw_decode(text, place)
            found.append(value)
            while place < len(text) and text[place] in " \t\r\n":
                place += 1
    except (ValueError, RecursionError):
        raise DataError(
            "the body is no JSON", "send an object, an array, or one object a line; nothing was stored"
        ) from None
    return found


def _refusal(error: ValidationError) -> RequestValidationError:
    return RequestValidationError(error.errors(include_url=False, include_context=False, include_input=False))
