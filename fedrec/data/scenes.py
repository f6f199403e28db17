"""Scenes by the name of their data: MovieLens-100K, the Open Bandit log, and what is made for want of real data."""

import numpy as np

from fedrec.data.bandit_scene import bandit_scene
from fedrec.data.datasets import Say
from fedrec.data.events import EventLog
from fedrec.data.made_music import music_scene
from fedrec.data.made_social import social_scene
from fedrec.data.movielens_people import load_people
from fedrec.data.open_bandit import CAMPAIGNS, read_open_bandit
from fedrec.data.scene import Scene
from fedrec.data.sources import fetch, load_ml100k
from fedrec.errors import ConfigError

MADE_SCENES = {"made-music": music_scene, "made-social": social_scene}
"""Sources whose users are made: `data.users` says how many."""

SCENES = ("ml-100k", "open-bandit", *MADE_SCENES)
_MADE_USERS = 600
_ADULT = 18
_FILMS = (
    "Real: MovieLens-100K, what 943 people rated from 1997 to 1998, with the ages that they gave. They rated and did "
    "not stream: each rating is read as an event, as the table says. A user is one person. Services are made of them: "
    "people are dealt out by age, the youngest to the first."
)


def load_scene(source: str, users: int, say: Say) -> Scene:
    """A data set with its events.

    Args:
        source: one of `SCENES`.
        users: how many are made; 0: some hundreds. Of real ones all are there.
    Raises: ConfigError: the data have no events by kind.
    """
    match source:
        case "ml-100k":
            say("MovieLens-100K, ratings as events")
            return _films()
        case "open-bandit":
            say("the Open Bandit log")
            folder = fetch("open-bandit")
            drawn = {campaign: read_open_bandit(folder, campaign, "bts") for campaign in CAMPAIGNS}
            uniform = {campaign: read_open_bandit(folder, campaign, "random") for campaign in CAMPAIGNS}
            return bandit_scene(drawn, uniform)
        case _ if source in MADE_SCENES:
            say(f"making users: {source}")
            return MADE_SCENES[source](users or _MADE_USERS)
        case _:
            known = ", ".join(SCENES)
            raise ConfigError(f"data.source {source!r} has no events for [scenario]", f"name one of {known}")


def _films() -> Scene:
    folder = fetch("ml-100k")
    catalog, table = load_ml100k(folder)
    kinds = tuple(f"rated-{stars}" for stars in range(1, 6))
    stars = np.rint(table.rating).astype(np.int32) - np.int32(1)
    log = EventLog(table.user_codes, table.item_codes, stars, table.timestamp, table.user_ids, table.item_ids, kinds)
    people = load_people(folder)
    labels = {user: {"age": float(people[user].age), "minor": people[user].age < _ADULT} for user in table.user_ids}
    fields = tuple({} if year is None else {"year": float(year)} for year in catalog.years)
    return Scene(catalog, log, fields, np.zeros(len(catalog)), labels, _FILMS)
