"""Adapter versions by API: which there are, which one serves, serve another."""

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel

from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.service import Service


class AdaptersAnswer(BaseModel):
    """Versions, oldest first, and the one that serves."""

    adapters: list[str]
    serving: str


def routes(service: Service, _: ServingMetrics) -> APIRouter:
    """Under `/v1/adapters`; needs the scope "admin"."""
    router = APIRouter(prefix="/v1", tags=["adapters"])

    @router.get("/adapters")
    async def list_adapters() -> AdaptersAnswer:
        """Versions that can be served, oldest first."""
        names = await asyncio.to_thread(service.versions.names) if service.versions else []
        return AdaptersAnswer(adapters=list(names), serving=service.version)

    @router.post("/adapters/{name}/serve")
    async def serve_adapter(name: str) -> AdaptersAnswer:
        """Serve another version: requests go on meanwhile, from the one before."""
        if service.versions is None:
            raise NotFoundError("adapter", "this service serves one adapter only")
        model = await asyncio.to_thread(service.versions.load, name)
        await service.swap(model)
        return await list_adapters()

    return router
