"""All of our own API."""

from fastapi import APIRouter

from fedrec_client.serving.api.native.events import event_routes
from fedrec_client.serving.api.native.explanations import explanation_routes
from fedrec_client.serving.api.native.figures import Epsilon, figure_routes
from fedrec_client.serving.api.native.forms import Desk
from fedrec_client.serving.api.native.items import item_routes
from fedrec_client.serving.api.native.keys import key_routes
from fedrec_client.serving.api.native.lists import list_routes
from fedrec_client.serving.api.native.review import review_routes
from fedrec_client.serving.api.native.rules import rule_routes
from fedrec_client.serving.api.native.sentiment import sentiment_routes
from fedrec_client.serving.api.native.support import support_routes
from fedrec_client.serving.api.native.users import user_routes
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.service import Service


def routes(
    service: Service,
    metrics: ServingMetrics,
    ring: KeyRing | None = None,
    epsilon_remaining: Epsilon = lambda: None,
) -> APIRouter:
    """Everything under `/v1`, the busy ones first.

    Args:
        service: need not be open yet.
        metrics: where lists, events and texts are counted.
        ring: told when a key is made or revoked; without one it takes the ring some seconds to notice.
        epsilon_remaining: of the privacy budget, None where there is no ledger; may block.
    """
    desk = Desk(service)
    parts = [
        list_routes(desk, metrics),
        event_routes(desk, metrics),
        explanation_routes(desk),
        item_routes(desk),
        user_routes(desk),
        rule_routes(desk),
        review_routes(desk),
        support_routes(desk),
        sentiment_routes(desk, metrics),
        figure_routes(desk, epsilon_remaining),
        key_routes(service, ring),
    ]
    router = APIRouter()
    # Flat: each router within a router is searched anew with every request.
    router.routes.extend(route for part in parts for route in part.routes)
    return router
