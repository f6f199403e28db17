"""Our own API as it describes itself, whatever is sent: nothing breaks, and answers have the form they are said to."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.types import ASGIApp, Receive, Scope, Send

from fedrec_client.serving.api.native.router import routes
from fedrec_client.serving.service import Served, Service
from fedrec_client.serving.settings import ServingSettings
from tests.serving.conftest import Place, put_head

# What a text must be so that it is a filter, a cursor, an id or the name of an arm no schema can say.
LEFT_OUT = [positive_data_acceptance]
# Rules are read as those of the file are, where "1" is 1.
OF_RULES = [*LEFT_OUT, negative_data_rejection]
HEADERS = {"host": "localhost"}


@pytest.fixture(scope="module")
def app(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ASGIApp]:
    """An open service in an event loop of its own, since schemathesis begins one for each call."""
    settings = ServingSettings.model_validate({"format": 1, "sentiment": {"head": "head"}})
    place = Place(tmp_path_factory.mktemp("fuzzed"), served, settings)
    assert served.sentences is not None
    put_head(place.folder, served.sentences)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def within(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def opened() -> tuple[Service, ASGIApp]:
        service = Service(place.folder, place.settings)
        await service.open(served)
        return service, place.app(service, routes)

    service, inner = within(opened())

    async def bridged(scope: Scope, receive: Receive, send: Send) -> None:
        """What the caller's loop sends is received before, and what this one sends is handed back after."""
        if scope["type"] == "lifespan":
            return
        body, told = await receive(), []

        async def call() -> None:
            async def given() -> Any:
                return body

            async def kept(message: Any) -> None:
                told.append(message)

            await inner(scope, given, kept)

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), loop))
        for message in told:
            await send(message)

    yield bridged
    within(asyncio.to_thread(service.close))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def described(app: ASGIApp) -> Any:
    """The API by its own description."""
    found = schemathesis.openapi.from_asgi("/v1/openapi.json", app, headers=HEADERS)
    found.config.headers = HEADERS
    found.config.generation.update(codec="ascii", allow_x00=False)  # of other characters most are not printable
    return found


@pytest.mark.parametrize("kind", GenerationMode)
def test_the_api_is_as_it_describes_itself_whatever_is_sent(described: Any, kind: GenerationMode) -> None:
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == 61
    for operation in operations:
        if operation.label == "POST /v1/keys":
            continue  # it would close the service to all that follows
        if kind is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
            continue  # nothing to get wrong

        @given(case=operation.as_strategy(generation_mode=kind))
        @settings(
            max_examples=3 if kind is GenerationMode.NEGATIVE else 5,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        def call(case: schemathesis.Case) -> None:
            case.call_and_validate(excluded_checks=OF_RULES if "/rules" in case.operation.path else LEFT_OUT)

        call()
