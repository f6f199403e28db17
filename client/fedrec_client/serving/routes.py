"""All APIs and pages of the service, the busy ones first: routers are searched in this order."""

from dataclasses import replace

from fastapi import APIRouter

from fedrec_client.serving.api import adapters, gorse, metarank
from fedrec_client.serving.api.native import router as native
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.pages.routes import routes as pages
from fedrec_client.serving.service import Service


def all_routes(service: Service, metrics: ServingMetrics, ring: KeyRing, outside: Outside) -> list[APIRouter]:
    """For `make_app`.

    Args:
        outside: what those who train say of adapter and budget.
    """

    def epsilon_left() -> float | None:
        budget = outside.budget()
        return None if budget is None else budget.get("epsilon_left")

    outside = replace(outside, on_keys_changed=ring.forget)
    return [
        native.routes(service, metrics, ring, epsilon_left),
        gorse.routes(service, metrics),
        metarank.routes(service, metrics),
        adapters.routes(service, metrics),
        pages(service, metrics, outside),
    ]
