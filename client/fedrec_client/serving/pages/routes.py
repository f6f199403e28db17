"""All pages as one router."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from fedrec.errors import FedrecError
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.problems import problem_of
from fedrec_client.serving.pages.figures import Figures
from fedrec_client.serving.pages.operate_routes import add_operate
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.pages.pulse import Pulse
from fedrec_client.serving.pages.rendering import Rendering
from fedrec_client.serving.pages.shop import Shop
from fedrec_client.serving.pages.shop_routes import add_shop
from fedrec_client.serving.service import Service


def routes(service: Service, metrics: ServingMetrics, outside: Outside | None = None) -> APIRouter:
    """The pages, and what they load at `/static`; their scopes stand in `http/scopes.py`.

    Args:
        metrics: which tell the operator's page of requests and events from now on.
        outside: what those who train say; nothing where it is None.
    """
    outside, rendering, pulse = outside or Outside(), Rendering(), Pulse()
    metrics.tell(pulse)
    router = APIRouter(include_in_schema=False, route_class=_routes_that_tell(rendering))
    add_shop(router, Shop(service, metrics), rendering, outside)
    add_operate(router, service, Figures(service, pulse, outside), rendering, outside)

    @router.get("/static/{name}")
    async def load(name: str) -> Response:
        return rendering.static(name)

    return router


def _routes_that_tell(rendering: Rendering) -> type[APIRoute]:
    """Routes that show a person a page of what went wrong; scripts are told as every caller is."""

    class PageRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Awaitable[Any]]:  # type: ignore[override]
            handle = super().get_route_handler()

            async def told(request: Request) -> Any:
                try:
                    return await handle(request)
                except FedrecError as error:
                    is_page = "text/html" in request.headers.get("accept", "") and "hx-request" not in request.headers
                    if not is_page:
                        raise
                    problem = problem_of(error)
                    return rendering.page("wrong", {"problem": problem}, problem.status)

            return told

    return PageRoute
