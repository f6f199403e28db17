"""Which items of two catalogues are the same, by title and year: catalogues number their items as they like."""

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog

_ARTICLES = "the|a|an|la|le|les|il|el|das|der|die"


def same_items(ours: ItemCatalog, theirs: ItemCatalog) -> NDArray[np.int64]:
    """The code here of each item there, int64 `[items there]`; -1 where there is none.

    Titles are compared without accents, punctuation, remarks in brackets and the place of an article; of equal titles
    the year must agree to within one, since catalogues differ on when a film came out.

    >>> ours = ItemCatalog(("7",), ("Postino, Il (1994)",), ("-",), ((),), (1994,))
    >>> theirs = ItemCatalog(("a", "b"), ("Il Postino (1995)", "Il Postino (2010)"), ("-", "-"), ((), ()), (1995, 2010))
    >>> same_items(ours, theirs).tolist()
    [0, -1]
    """
    known: dict[tuple[str, int | None], int] = {}
    for code, (title, year) in enumerate(zip(ours.titles, ours.years, strict=True)):
        known.setdefault((_plain(title), year), code)
    found = []
    for title, year in zip(theirs.titles, theirs.years, strict=True):
        years = [None] if year is None else [year, year - 1, year + 1]
        found.append(next((known[_plain(title), y] for y in years if (_plain(title), y) in known), -1))
    return np.array(found, np.int64)


def _plain(title: str) -> str:
    letters = "".join(c for c in unicodedata.normalize("NFKD", title.casefold()) if not unicodedata.combining(c))
    words = re.sub(r"\s*\(.*?\)", "", letters).strip()
    words = re.sub(rf"^(.*), ({_ARTICLES})$", r"\2 \1", words)
    # A title that is nothing but a remark, or signs, stays as it is: all of those would be the same otherwise.
    return re.sub(r"[\W_]+", " ", words).strip() or letters
