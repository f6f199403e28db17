"""Metarank's API at the root: somebody who uses Metarank changes an address and stays."""

from fastapi import APIRouter

from fedrec_client.serving.api.metarank.feedback import feedback_routes
from fedrec_client.serving.api.metarank.inference import inference_routes
from fedrec_client.serving.api.metarank.ranking import list_routes
from fedrec_client.serving.api.metarank.training import training_routes
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.service import Service


def routes(service: Service, metrics: ServingMetrics) -> APIRouter:
    """All of it but its health and metrics, which the app itself tells; the busy paths first."""
    router = APIRouter(tags=["metarank"])
    list_routes(router, service, metrics)
    feedback_routes(router, service, metrics)
    inference_routes(router, service)
    training_routes(router, service)
    return router
