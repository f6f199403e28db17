"""What every route of Gorse's asks of a request: whose it is, how many, which categories; and what it answers."""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fedrec.recommend.shelf import Json
from fedrec_client.serving.api.gorse.moments import read_duration
from fedrec_client.serving.service import Service, TenantService

DEFAULT_N = 10
_MOST_N, _MOST_OFFSET = 10_000, 100_000


class ListAsked(BaseModel):
    """The query of a list. As in Gorse, what is empty is as if it were missing."""

    model_config = ConfigDict(extra="ignore")
    n: Annotated[
        int,
        Field(ge=1, le=_MOST_N, description="Number of returned items"),
        BeforeValidator(lambda told: DEFAULT_N if told == "" else told),
    ] = DEFAULT_N
    offset: Annotated[
        int,
        Field(ge=0, le=_MOST_OFFSET, description="Offset of returned items"),
        BeforeValidator(lambda told: 0 if told == "" else told),
    ] = 0
    category: list[str] = Field([], description="Categories, each of which an item must be of")
    user_id: str = Field(default="", alias="user-id", description="Remove read items of a user")

    def categories(self, in_path: str = "") -> tuple[str, ...]:
        """Those that count: the one of a deprecated path, or those of the query."""
        return (in_path,) if in_path else tuple(filter(None, self.category))


class RecommendAsked(ListAsked):
    """The query of a recommendation."""

    write_back_type: str = Field(
        default="", alias="write-back-type", description="Store this feedback for every item; needs the scope write"
    )
    write_back_delay: Annotated[float, BeforeValidator(read_duration)] = Field(
        default=0.0, alias="write-back-delay", description="After which it counts, such as 10m"
    )


class PageAsked(BaseModel):
    """The query of a page of many. A larger `n` than can be had at once gives less, and a cursor."""

    model_config = ConfigDict(extra="ignore")
    n: Annotated[int, Field(ge=1), BeforeValidator(lambda told: DEFAULT_N if told == "" else told)] = DEFAULT_N
    cursor: str = ""
    q: str = ""

    @property
    def size(self) -> int:
        """Rows at most."""
        return min(self.n, _MOST_N)


def tenant_of(service: Service, request: Request) -> TenantService:
    """Whose items and users the caller means. Raises NotReadyError."""
    return service.of(request.state.tenant)


def affected(n: int) -> JSONResponse:
    """Gorse's answer to every change."""
    return JSONResponse({"RowAffected": n})


def page_of(name: str, rows: list[dict[str, Json]], cursor: str) -> JSONResponse:
    """Some rows, and where to go on; "" at the end."""
    return JSONResponse({"Cursor": cursor, name: rows})


def accept_slashes(router: APIRouter) -> APIRouter:
    """Let each path also end in a slash, as Gorse does and its clients use. The router has no prefix."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    known = {route.path for route in routes}
    for route in routes:
        if not route.path.endswith("/") and f"{route.path}/" not in known:
            router.add_api_route(
                f"{route.path}/",
                route.endpoint,
                methods=sorted(route.methods or ()),
                include_in_schema=False,
            )
    return router
