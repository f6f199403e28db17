"""Gorse's users, items and feedback as JSON, and how they are kept.

An item of Gorse's is an `Item` of ours so that it comes back as it was sent, and the model reads what it says:

    ItemId      id
    Comment     title, which people and the language model read
    Categories  categories
    IsHidden    is_hidden
    Timestamp   timestamp; 0 where none was given, which comes back as Go's zero time
    Labels      fields, which rules, filters and final ranking read: an object's keys are fields of these names; null
                is no field; any other value, an empty object, and an object that has only the key "labels", are the
                field "labels". So every value has one form, and every form means one value.

Texts among the labels join title and categories in `text`, which the model then reads in their place. What another API
or the federation's catalogue wrote into `text` stays there when Gorse's changes part of an item.

What does not come back byte for byte: numbers of more than 17 digits, and zeros at the end of decimals; moments are
told in UTC to the microsecond.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_pascal

from fedrec.data.catalog import item_text
from fedrec.recommend.shelf import Item, Json
from fedrec_client.serving.api.gorse.moments import read_moment, tell_moment
from fedrec_client.serving.records import Event, User

# Of texts among an item's labels that the model reads: how long one may be, and how many.
_LONGEST_LABEL, _MOST_LABELS = 200, 32

Text = Annotated[str, BeforeValidator(lambda told: "" if told is None else told)]
Texts = Annotated[list[str], BeforeValidator(lambda told: [] if told is None else told)]
Moment = Annotated[float, BeforeValidator(read_moment)]


class _Sent(BaseModel):
    """As in Go, what is missing or null is empty, and names that are not known are passed over."""

    model_config = ConfigDict(alias_generator=to_pascal, extra="ignore")


class UserSent(_Sent):
    """A user. `Subscribe` is of Gorse before 0.5."""

    user_id: str
    labels: Any = None
    comment: Text = ""
    subscribe: Texts = Field([])


class UserPatch(_Sent):
    """What shall be changed of a user; null stays as it is."""

    labels: Any = None
    comment: str | None = None
    subscribe: list[str] | None = None


class ItemSent(_Sent):
    """An item."""

    item_id: str
    is_hidden: Annotated[bool, BeforeValidator(bool)] = False
    categories: Texts = Field([])
    timestamp: Moment = 0.0
    labels: Any = None
    comment: Text = ""


class ItemPatch(_Sent):
    """What shall be changed of an item; null stays as it is."""

    is_hidden: bool | None = None
    categories: list[str] | None = None
    timestamp: Annotated[float | None, BeforeValidator(lambda told: None if told is None else read_moment(told))] = None
    labels: Any = None
    comment: str | None = None


class FeedbackSent(_Sent):
    """What somebody did with an item; in a session nobody need be named."""

    feedback_type: Text = ""
    user_id: Text = ""
    item_id: Text = ""
    value: Annotated[float, BeforeValidator(lambda told: 0.0 if told is None else told)] = 0.0
    timestamp: Moment = 0.0
    labels: Any = None
    comment: Text = ""


def user_of(sent: UserSent) -> User:
    """As it is kept."""
    return User(sent.user_id, sent.labels, sent.comment, tuple(sent.subscribe))


def tell_user(user: User) -> dict[str, Json]:
    """As Gorse tells it; with `Subscribe` where somebody set it."""
    told: dict[str, Json] = {"UserId": user.id, "Labels": user.labels, "Comment": user.comment}
    return told | {"Subscribe": list(user.subscribe)} if user.subscribe else told


def item_of(sent: ItemSent) -> Item:
    """As it is kept; see the module."""
    categories = tuple(sent.categories)
    fields = _as_fields(sent.labels)
    text = _text(sent.item_id, sent.comment, categories, sent.labels)
    return Item(sent.item_id, sent.comment, text, categories, sent.timestamp, sent.is_hidden, fields)


def tell_item(item: Item) -> dict[str, Json]:
    """As Gorse tells it."""
    return {
        "ItemId": item.id,
        "IsHidden": item.is_hidden,
        "Categories": list(item.categories),
        "Timestamp": tell_moment(item.timestamp),
        "Labels": labels_of(item),
        "Comment": item.title,
    }


def changes_of(item: Item, patch: ItemPatch) -> dict[str, Any]:
    """What a patch changes of an item, by the names of `Item`; nothing if nothing."""
    changes: dict[str, Any] = {}
    if patch.is_hidden is not None:
        changes["is_hidden"] = patch.is_hidden
    if patch.categories is not None:
        changes["categories"] = tuple(patch.categories)
    if patch.timestamp is not None:
        changes["timestamp"] = patch.timestamp
    if patch.labels is not None:
        changes["fields"] = _as_fields(patch.labels)
    if patch.comment is not None:
        changes["title"] = patch.comment
    before = labels_of(item)
    if item.text == _text(item.id, item.title, item.categories, before):
        labels = before if patch.labels is None else patch.labels
        text = _text(item.id, changes.get("title", item.title), changes.get("categories", item.categories), labels)
        changes |= {"text": text} if text != item.text else {}
    return changes


def event_of(sent: FeedbackSent, session: str = "") -> Event:
    """As it is kept. Raises DataError: a name is missing or cannot be one, a number is not finite."""
    return Event(
        type=sent.feedback_type,
        item=sent.item_id,
        user=sent.user_id,
        session=session,
        value=sent.value,
        timestamp=sent.timestamp,
        labels=sent.labels,
        comment=sent.comment,
    )


def tell_feedback(event: Event) -> dict[str, Json]:
    """As Gorse tells it."""
    is_whole = event.value.is_integer() and abs(event.value) < 1e15
    return {
        "FeedbackType": event.type,
        "UserId": event.user,
        "ItemId": event.item,
        "Value": int(event.value) if is_whole else event.value,
        "Timestamp": tell_moment(event.timestamp),
        "Updated": tell_moment(event.updated),
        "Labels": event.labels,
        "Comment": event.comment,
    }


def labels_of(item: Item) -> Json:
    """What Gorse calls the labels of an item."""
    if not item.fields:
        return None
    return item.fields["labels"] if set(item.fields) == {"labels"} else dict(item.fields)


def _as_fields(labels: Json) -> Mapping[str, Json]:
    if labels is None:
        return {}
    if isinstance(labels, dict) and labels and set(labels) != {"labels"}:
        return labels
    return {"labels": labels}


def _text(item: str, title: str, categories: tuple[str, ...], labels: Json) -> str:
    """What the model reads; "" leaves it to title and categories."""
    words = list(islice(dict.fromkeys(_texts_in(labels)), _MOST_LABELS))
    return item_text(title or item, list(dict.fromkeys([*categories, *words]))) if words else ""


def _texts_in(labels: Json) -> Iterator[str]:
    """Words for people, in their order: no addresses, no numbers, nothing long."""
    if isinstance(labels, str):
        text = labels.strip()
        if len(text) <= _LONGEST_LABEL and "://" not in text and any(map(str.isalpha, text)):
            yield text
    elif isinstance(labels, dict | list):
        for one in labels.values() if isinstance(labels, dict) else labels:
            yield from _texts_in(one)
