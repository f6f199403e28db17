"""Gorse's REST API for applications under `/api`: somebody who uses Gorse changes an address and stays."""

from fastapi import APIRouter

from fedrec_client.serving.api.gorse.asking import accept_slashes
from fedrec_client.serving.api.gorse.dashboard import dashboard_routes
from fedrec_client.serving.api.gorse.feedback import feedback_routes
from fedrec_client.serving.api.gorse.items import item_routes
from fedrec_client.serving.api.gorse.recommending import list_routes
from fedrec_client.serving.api.gorse.users import user_routes
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.service import Service


def routes(service: Service, metrics: ServingMetrics) -> APIRouter:
    """All of it but its health, which the app itself tells; the busy paths first."""
    router = APIRouter(tags=["gorse"])
    list_routes(router, service, metrics)
    feedback_routes(router, service, metrics)
    item_routes(router, service)
    user_routes(router, service)
    dashboard_routes(router, service)
    return accept_slashes(router)
