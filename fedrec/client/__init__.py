"""Asks a partner's service for recommendations. It needs httpx and nothing else.

RecommenderError               anything below
├── RequestRefusedError        what was sent cannot be used, or does not fit what is there
├── AccessError                no API key, or one that may not
├── MissingError               what was asked for by name is not there
└── UnavailableError           the service is full, not ready or cannot be reached
"""

from fedrec.client.answers import (
    Explanation,
    Item,
    ItemPage,
    Question,
    Reason,
    Recommendations,
    Recommended,
    Rule,
    Status,
    Taken,
    Trial,
    User,
    Why,
)
from fedrec.client.awaiting import AsyncRecommenderClient
from fedrec.client.calls import EventFields, ListOptions, RankOptions, SimilarOptions
from fedrec.client.errors import (
    AccessError,
    Flaw,
    MissingError,
    RecommenderError,
    RequestRefusedError,
    UnavailableError,
)
from fedrec.client.waiting import RecommenderClient

__all__ = [
    "AccessError",
    "AsyncRecommenderClient",
    "EventFields",
    "Explanation",
    "Flaw",
    "Item",
    "ItemPage",
    "ListOptions",
    "MissingError",
    "Question",
    "RankOptions",
    "Reason",
    "Recommendations",
    "Recommended",
    "RecommenderClient",
    "RecommenderError",
    "RequestRefusedError",
    "Rule",
    "SimilarOptions",
    "Status",
    "Taken",
    "Trial",
    "UnavailableError",
    "User",
    "Why",
]
