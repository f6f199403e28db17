"""Whether rows say in ratings what a task asks."""

import numpy as np

from fedrec.data.interactions import InteractionTable
from fedrec.errors import DataError


def refuse_unlabelled(table: InteractionTable, low: float, high: float) -> None:
    """Raises DataError: rows that say no rating, or one that is not on the scale; how many is said to nobody."""
    if np.isnan(table.rating).any():
        raise DataError(
            "the rows have no ratings, which the task is about",
            "flower-client import FILE --rating COLUMN; rows imported without stay so: begin a new folder then",
        )
    if ((table.rating < low) | (table.rating > high)).any():
        raise DataError(
            f"ratings are not on the terms' scale, {low:g} to {high:g}", "bring the column to that scale, import anew"
        )
