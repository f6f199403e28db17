"""The click and rating heads over the public taste: what everybody agrees on, made alike wherever it is made."""

from dataclasses import asdict, dataclass, field

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import Interactions, Say, generated_from, load_data
from fedrec.errors import ConfigError, ModelError
from fedrec.model.adapter import AdapterState
from fedrec.model.features import ItemFeatures
from fedrec.tasks.click import Click
from fedrec.tasks.head import PART, HeadShape
from fedrec.tasks.item_part import ItemPart
from fedrec.tasks.rating import Rating
from fedrec.tasks.taste import LIKES, RATINGS, PublicTaste, Scale, public_taste
from fedrec.tasks.terms import TaskTerms
from fedrec.terms import FederationTerms, HeadTerms, ItemTerms, TaskName

SCALE: dict[str, Scale] = {"click": "likes", "rating": "ratings"}
# Standard deviation of one answer around the public prediction; from public rows it is .46 and .95, rounded.
SPREAD: dict[str, float] = {"click": 0.45, "rating": 0.95}
# What a prediction of the taste is worth before anything is learnt: as it is, or as log odds around one half.
_START: dict[str, tuple[float, float]] = {"click": (4.0, -2.0), "rating": (1.0, -Rating().middle)}


@dataclass(frozen=True)
class PublicRows:
    """Published ratings, of people whom no partner must protect.

    Attributes:
        catalog: of their items.
    """

    catalog: ItemCatalog = field(repr=False)
    rows: Interactions = field(repr=False)

    @classmethod
    def named(cls, source: str, say: Say = lambda _: None) -> "PublicRows":
        """A known data set, or a folder. Raises: as `load_data`; ConfigError: made users."""
        catalog, rows = load_data(source, say)
        if generated_from(rows):
            raise ConfigError(f"{source}: holds made users", "name ratings that real people published")
        return cls(catalog, rows)

    def taste(self, task: str, catalog: ItemCatalog, features: ItemFeatures) -> PublicTaste:
        """What they say of a catalogue's items, on the scale of a task.

        Args:
            features: of the catalogue's items, with behaviour.
        """
        scale = SCALE[task]
        settings = LIKES if scale == "likes" else RATINGS
        tables = self.rows.tables()
        return public_taste(catalog, features, self.catalog, tables, scale, settings, self.rows.hash)


def taste_terms(
    task: str, taste: PublicTaste, catalog: ItemCatalog, public_data: str, *, is_fresh: bool, items: ItemPart | None
) -> TaskTerms:
    """A head over the taste before training.

    Args:
        public_data: name of the published ratings in the taste.
        is_fresh: the head says the same of every item at first, not what the taste says.
        items: None where nothing is asked about items.
    """
    shape = HeadShape(taste.width, 1)
    weight, bias = np.zeros((1, shape.width), np.float32), np.zeros(1, np.float32)
    if not is_fresh:
        weight[0, 0], bias[0] = _START[task]
    return TaskTerms(
        task=Click() if task == "click" else Rating(),
        shape=shape,
        initial=AdapterState({f"{PART}.outer.weight": weight, f"{PART}.outer.bias": bias}),
        inputs=f"taste/{SCALE[task]}",
        inputs_hash=taste.hash,
        catalog_hash=catalog.hash,
        public_data=public_data,
        items=items,
        n_items=0 if items is None else len(catalog),
    )


def head_terms(terms: TaskTerms, task: TaskName, *, is_fresh: bool) -> HeadTerms:
    """The same as a coordinator signs them."""
    scale = Rating()
    return HeadTerms(
        task=task,
        low=scale.low,
        high=scale.high,
        inputs=terms.inputs,
        inputs_hash=terms.inputs_hash,
        width=terms.shape.width,
        start="nothing" if is_fresh else "public",
        items=None if terms.items is None else ItemTerms(**asdict(terms.items)),
    )


def agreed_head(terms: FederationTerms, taste: PublicTaste, catalog: ItemCatalog) -> TaskTerms:
    """The head of signed terms, made anew here: whoever makes another one of the same words must not train it.

    Raises: ModelError: everything that this machine makes otherwise, in words.
    """
    assert terms.task is not None  # asked of a task's terms alone
    signed, is_fresh = terms.task, terms.task.start == "nothing"
    items = None if signed.items is None else ItemPart(**signed.items.model_dump())
    made = taste_terms(signed.task, taste, catalog, terms.model.config.public_data, is_fresh=is_fresh, items=items)
    told, parts = head_terms(made, signed.task, is_fresh=is_fresh), {k: dict(v) for k, v in made.spec.parts.items()}
    checks = {
        "scale of ratings": (told.low, told.high) == (signed.low, signed.high),
        "recipe of inputs": told.inputs == signed.inputs,
        "inputs (recipe, item features or published ratings)": told.inputs_hash == signed.inputs_hash,
        "shape of the head": told.width == signed.width and parts == {k: dict(v) for k, v in terms.parts.items()},
        "first weights": made.start.hash == terms.initial_hash,
    }
    if others := [what for what, is_same in checks.items() if not is_same]:
        raise ModelError.of_all(
            [f"{what}: this machine makes another one than the terms name" for what in others],
            "fetch the published data and models anew; both sides must run the same fedrec",
            "task",
        )
    return made
