"""Spans for OpenTelemetry, where a collector is named: requests and named steps, without ids. Otherwise nothing."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

from fedrec import __version__
from fedrec.errors import ConfigError
from fedrec_client.serving.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

Headers = Sequence[tuple[bytes, bytes]]
# Told at the end of a request: api, route template, status.
Tell = Callable[[str, str, int], None]

_tracer: ContextVar["Tracer | None"] = ContextVar("tracer", default=None)
_OFF: AbstractContextManager[None] = nullcontext()
_UNTOLD: AbstractContextManager[Tell] = nullcontext(lambda _api, _route, _status: None)


def span(name: str) -> AbstractContextManager[None]:
    """A step of the request that is under way, and nothing where none is traced.

    Args:
        name: a word of the code, such as "rank"; never a value.

    >>> with span("rank"):
    ...     pass
    """
    tracer = _tracer.get()
    return _OFF if tracer is None else _step(tracer, name)


class Tracing:
    """Traces requests.

    Args:
        provider: where spans go; None traces nothing.
    """

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("fedrec.serving", __version__) if provider else None

    def request(self, method: str, headers: Headers) -> AbstractContextManager[Tell]:
        """The span of a request, below the caller's if `traceparent` names one."""
        return _UNTOLD if self._tracer is None else _request(self._tracer, method, headers)

    def stop(self) -> None:
        """Send what waits; may block for some seconds."""
        if self._provider is not None:
            self._provider.shutdown()


def make_tracing(settings: TracingSettings) -> Tracing:
    """As the settings say. Raises ConfigError: a collector is named and the extra is not installed."""
    if not settings.otlp:
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError("tracing.otlp needs OpenTelemetry", "pip install 'fedrec[tracing]'") from error
    address = settings.otlp.rstrip("/")
    exporter = OTLPSpanExporter(address if address.endswith("/v1/traces") else f"{address}/v1/traces")
    return Tracing(make_provider(exporter))


def make_provider(exporter: "SpanExporter") -> "TracerProvider":
    """Sends spans in the background, under this service's name alone: nothing of the machine or the environment."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource({"service.name": "fedrec-serving", "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


@contextmanager
def _request(tracer: "Tracer", method: str, headers: Headers) -> Iterator[Tell]:
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name == b"traceparent"}
    above = TraceContextTextMapPropagator().extract(carrier)
    # No exception is recorded: its words may quote anything.
    made = tracer.start_as_current_span(
        method, above, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
    )
    token = _tracer.set(tracer)
    try:
        with made as opened:

            def tell(api: str, route: str, status: int) -> None:
                opened.update_name(f"{method} {route}")
                opened.set_attributes({"http.request.method": method, "http.route": route, "fedrec.api": api})
                opened.set_attribute("http.response.status_code", status)
                if status >= 500 or not status:
                    opened.set_status(StatusCode.ERROR)

            yield tell
    finally:
        _tracer.reset(token)


@contextmanager
def _step(tracer: "Tracer", name: str) -> Iterator[None]:
    from opentelemetry.trace import StatusCode

    made = tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False)
    with made as opened:
        try:
            yield
        except BaseException as error:
            opened.set_attribute("error.type", type(error).__name__)
            opened.set_status(StatusCode.ERROR)
            raise
