"""What tests of our own API have alike: paths of odd ids, and answers in short."""

from urllib.parse import quote

import httpx

# What hands people over, or is for the partner's own people.


def path_of(*segments: str) -> str:
    """Dots too, which clients take for steps."""
    return "/v1/" + "/".join(quote(one, safe="").replace(".", "%2E") for one in segments)


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["items"]]


async def like(client: httpx.AsyncClient, user: str, *items: str) -> dict[str, int]:
    events = [{"type": "like", "user": user, "item": item, "timestamp": 1000 + at} for at, item in enumerate(items)]
    answer = await client.post("/v1/events", json=events)
    assert answer.status_code == 200, answer.text
    told: dict[str, int] = answer.json()
    return told


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].removeprefix("urn:fedrec:error:")
