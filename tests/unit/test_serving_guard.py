"""Who gets through to the routes of the service, how often, how much, and what they are told otherwise."""

from base64 import b64encode

import pytest

from fedrec_client.serving.http.scopes import granted, scope_needed
from tests.unit.guarded_service import PLACE, Book, key, service, without_keys


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": "r"}, {"authorization": "Bearer r"}, {"authorization": "Basic " + b64encode(b":r").decode()}],
)
def test_a_key_opens_and_says_whose_data_it_is(headers: dict[str, str]) -> None:
    answer = service().get(headers=headers)
    assert answer.status_code == 200
    assert answer.json() == {"tenant": "shop-de", "key": "reader", "scopes": ["read"]}


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": "no"}, {"authorization": "Bearer "}, {"authorization": "Basic %"}]
)
def test_without_a_good_key_nobody_gets_in_where_keys_exist(headers: dict[str, str]) -> None:
    answer = service().get(headers=headers)
    assert answer.status_code == 401
    assert answer.json()["type"] == "urn:fedrec:error:unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_browser_is_asked_for_a_key_as_password() -> None:
    assert service().get("/", headers={"accept": "text/html"}).headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    ("secret", "method", "url", "status"),
    [
        ("r", "GET", "/v1/recommend/u", 200),
        ("r", "POST", "/v1/recommend/u", 200),
        ("r", "POST", "/v1/events", 403),
        ("w", "POST", "/v1/events", 200),
        ("w", "GET", "/v1/recommend/u", 403),
        ("w", "DELETE", "/v1/users/u", 403),
        ("a", "DELETE", "/v1/users/u", 200),
        ("a", "POST", "/v1/events", 200),
        ("r", "GET", "/v1/none", 403),
        ("a", "GET", "/v1/none", 404),
    ],
)
def test_a_key_may_do_what_its_scopes_say(secret: str, method: str, url: str, status: int) -> None:
    assert service().get(url, method=method, headers=key(secret)).status_code == status


@pytest.mark.parametrize(
    ("call", "need"),
    [
        ("GET /health", "open"),
        ("GET /api/health/ready", "open"),
        ("POST /health", "admin"),
        ("GET /metrics", "read"),
        ("HEAD /api/recommend/u", "read"),
        ("POST /api/session/recommend", "read"),
        ("GET /api/item/i/neighbors/", "read"),
        ("GET /api/item/i/feedback/", "admin"),
        ("GET /api/item-to-item/neighbors/i", "read"),
        ("PUT /api/feedback", "write"),
        ("GET /api/feedback", "admin"),
        ("DELETE /api/feedback/t/u/i", "write"),
        ("PATCH /api/user/u", "write"),
        ("GET /api/user/u", "admin"),
        ("DELETE /api/user/u", "admin"),
        ("GET /api/users", "admin"),
        ("GET /api/dashboard/stats", "admin"),
        ("POST /v1/users", "write"),
        ("POST /v1/users/u/export", "admin"),
        ("GET /v1/users/u/export/all", "admin"),
        ("POST /v1/rules", "admin"),
        ("POST /v1/keys", "admin"),
        ("GET /", "admin"),
        ("GET /v1/recommendable", "admin"),
        ("GET /v1/recommend/../keys", "read"),
        ("GET //v1/keys", "admin"),
        ("GET /v1/docs\n", "admin"),
        ("POST /feedback", "write"),
        ("POST /rank/xgboost", "read"),
        ("POST /train/xgboost", "admin"),
        ("OPTIONS /v1/recommend/u", "admin"),
    ],
)
def test_the_table_of_scopes(call: str, need: str) -> None:
    method, _, path = call.partition(" ")
    assert scope_needed(method, path) == need


def test_scopes_that_are_not_known_grant_nothing() -> None:
    assert granted(frozenset({"root"})) == frozenset()
    assert granted(frozenset({"write", "read"})) == {"read", "write"}
    assert granted(frozenset({"admin"})) == {"read", "write", "admin"}


def test_without_keys_the_loopback_is_open() -> None:
    answer = without_keys().get()
    assert answer.json() == {"tenant": "default", "key": "", "scopes": ["admin", "read", "write"]}
    # Gorse's clients always send a key, though it may be anything.
    assert without_keys().get(headers=key("whatever")).status_code == 200


def test_without_keys_nothing_else_is() -> None:
    assert without_keys(host="0.0.0.0").get().status_code == 401
    assert without_keys(behind_proxy=True).get().status_code == 401, "a proxy may pass on no header that tells it"
    several = {"tenants": [{"name": "a"}, {"name": "b"}]}
    assert service(Book({}), several).get().status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "[", "10.0.0.1"])
def test_without_keys_a_name_that_leads_here_is_refused(host: str) -> None:
    assert without_keys().get(headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8088", "[::1]:8088"])
def test_without_keys_this_machines_own_names_are_taken(host: str) -> None:
    assert without_keys().get(headers={"host": host}).status_code == 200


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_without_keys_what_a_proxy_passes_on_is_refused(name: str) -> None:
    assert without_keys().get(headers={name: "10.0.0.1"}).status_code == 401
    assert service().get(headers=key("r", **{name: "10.0.0.1"})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": PLACE}, 200),
        ({"origin": "https://shop.example"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, 200),
    ],
)
def test_pages_of_other_sites_cannot_use_what_a_browser_adds_by_itself(headers: dict[str, str], status: int) -> None:
    allowed = ("https://shop.example",)
    assert without_keys(cors_origins=allowed).get(headers=headers).status_code == status
    basic = {"authorization": "Basic " + b64encode(b"me:r").decode()}
    assert service(cors_origins=allowed).get(headers=basic | headers).status_code == status
    # A header that a page must set by its own program says that it means it.
    assert service(cors_origins=allowed).get(headers=key("r", **headers)).status_code == 200


def test_a_link_may_lead_to_a_page() -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert without_keys().get("/", headers=link).status_code == 404
    assert without_keys().get("/", headers=link, method="POST").status_code == 403


def test_only_named_origins_may_read_from_a_browser() -> None:
    served = service(cors_origins=("https://shop.example",))
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    own, other = {"origin": "https://shop.example"}, {"origin": "https://evil.example"}
    before = served.get("/v1/recommend/u", method="OPTIONS", headers=own | asked)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == "https://shop.example"
    assert served.get(method="OPTIONS", headers=other | asked).status_code == 400
    assert served.get(headers=key("r", **own)).headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in served.get(headers=key("r", **other)).headers
    refused = served.get(headers=own)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://shop.example")
    assert "access-control-allow-origin" not in service().get(headers=key("r", **own)).headers
