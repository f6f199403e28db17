"""Adapter versions by API: which there are, which one serves, serve another."""

import asyncio
import logging

from fastapi import APIRouter, Response
from pydantic import BaseModel

from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.service import Service

_log = logging.getLogger(__name__)
# How long an answer waits for a change, which reads ahead for everybody in memory.
_WAIT_S = 5.0


class AdaptersAnswer(BaseModel):
    """Versions, oldest first; the one that serves, and the one that is about to, "" if none is."""

    adapters: list[str]
    serving: str
    coming: str = ""


def routes(service: Service, _: ServingMetrics) -> APIRouter:
    """Under `/v1/adapters`; needs the scope "admin"."""
    router = APIRouter(prefix="/v1", tags=["Adapters"])
    under_way: dict[str, asyncio.Task[None]] = {}

    async def told() -> AdaptersAnswer:
        names = await asyncio.to_thread(service.versions.names) if service.versions else []
        return AdaptersAnswer(adapters=list(names), serving=service.version, coming=next(iter(under_way), ""))

    async def change(name: str) -> None:
        assert service.versions is not None
        await service.swap(await asyncio.to_thread(service.versions.load, name))

    def ended(name: str, done: "asyncio.Task[None]") -> None:
        under_way.pop(name, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            _log.error("no other adapter: %s", type(error).__name__, extra={"event": "no_swap"})

    @router.get("/adapters", summary="Adapter versions")
    async def list_adapters() -> AdaptersAnswer:
        """Versions that can be served, oldest first."""
        return await told()

    @router.post("/adapters/{name}/serve", summary="Serve another adapter")
    async def serve_adapter(name: str, response: Response) -> AdaptersAnswer:
        """Requests go on meanwhile, from the one before; 202 if that is so still when this is answered."""
        if service.versions is None or name not in await asyncio.to_thread(service.versions.names):
            raise NotFoundError("adapter", "GET /v1/adapters names them")
        if name not in under_way:
            task = under_way[name] = asyncio.create_task(change(name))
            task.add_done_callback(lambda done: ended(name, done))
        task = under_way[name]
        await asyncio.wait([task], timeout=_WAIT_S)
        if task.done():
            task.result()
        else:
            response.status_code = 202
        return await told()

    return router
