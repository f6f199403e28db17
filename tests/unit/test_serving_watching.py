"""Metrics, access log and spans of the service: what operators need, and never whom a request was about."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from fedrec.errors import ConfigError
from fedrec.logs import JsonLines
from fedrec_client.serving.http.app import make_app
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import EngineFigures, ServingMetrics
from fedrec_client.serving.settings import ServingSettings, TracingSettings
from fedrec_client.serving.tracing import Tracing, make_provider, make_tracing, span

WHO = "somebody"
FIGURES = EngineFigures(users_cached=3, queue_length=0, adapter_round=31, epsilon_remaining=1.5)


def routes() -> list[APIRouter]:
    users, outer, gorse = APIRouter(prefix="/users"), APIRouter(prefix="/v1"), APIRouter(prefix="/api")

    @users.get("/{user}/lists")
    def lists(user: str) -> str:
        with span("rank"), span("score"):
            return "list"

    @gorse.get("/fail/{user}")
    async def fail(user: str) -> None:
        with span("rank"):
            raise RuntimeError(user)

    @gorse.get("/break/{user}")
    async def break_off(user: str) -> StreamingResponse:
        async def parts() -> Any:
            yield b"x"
            raise RuntimeError(user)

        return StreamingResponse(parts())

    outer.include_router(users)
    return [outer, gorse]


def asked(
    urls: Sequence[str], tracing: Tracing | None = None, metrics: ServingMetrics | None = None, **headers: str
) -> ServingMetrics:
    metrics = metrics or ServingMetrics(lambda: FIGURES)
    app = make_app(
        ServingSettings(format=1),
        routes(),
        ring=KeyRing(lambda _: None, lambda: False),
        metrics=metrics,
        is_ready=lambda: True,
        on_stop=lambda: None,
        tracing=tracing,
    )

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            for url in urls:
                with suppress(AssertionError):  # httpx's, of an answer that ends in the middle
                    await client.get(url, headers=headers)

    asyncio.run(ask())
    return metrics


def samples(metrics: ServingMetrics) -> dict[tuple[str, tuple[str, ...]], float]:
    text = metrics.exposition()[0].decode()
    return {
        (sample.name.removeprefix("fedrec_serving_"), tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


ALL = [f"/v1/users/{WHO}/lists?item={WHO}", f"/api/fail/{WHO}", f"/api/{WHO}", f"/{WHO}", f"/api/break/{WHO}"]


def test_requests_are_counted_by_template_and_nobodys_id_is_a_label() -> None:
    metrics = asked(ALL)
    found = samples(metrics)
    assert found["requests_total", ("own", "GET", "/v1/users/{user}/lists", "200")] == 1
    assert found["requests_total", ("gorse", "GET", "/api/fail/{user}", "500")] == 1
    assert found["requests_total", ("gorse", "GET", "none", "404")] == 1
    assert found["request_seconds_count", ("own", "/v1/users/{user}/lists")] == 1
    assert WHO not in metrics.exposition()[0].decode()


def test_what_is_served_and_taken_is_counted() -> None:
    metrics = ServingMetrics(lambda: FIGURES)
    metrics.count_list("own", ["model", "model", "popular"])
    metrics.count_events("own", 3)
    metrics.count_events("metarank", 2)
    metrics.count_rank("xgboost", 0.25)
    metrics.refuse("busy")
    found = samples(metrics)
    assert found["recommendations_total", ("own",)] == 1
    assert found["recommended_items_total", ("model",)] == 2
    assert found["events_total", ("own",)] == 3
    assert found["refused_total", ("busy",)] == 1
    assert found["metarank_feedback_events_total", ()] == 2
    assert found["metarank_rank_requests_total", ("xgboost",)] == 1
    assert found["metarank_rank_latency_seconds_sum", ("xgboost",)] == 0.25


def test_made_up_models_do_not_fill_the_metrics() -> None:
    metrics = ServingMetrics(lambda: FIGURES)
    for i in range(100):
        metrics.count_rank(f"model-{i}", 0.1)
    counted = {key: n for key, n in samples(metrics).items() if key[0] == "metarank_rank_requests_total"}
    assert len(counted) == 21
    assert counted["metarank_rank_requests_total", ("other",)] == 80


def test_the_engine_is_asked_at_each_scrape_and_may_fail() -> None:
    told: list[EngineFigures | None] = [FIGURES, None]
    metrics = ServingMetrics(lambda: told.pop(0))
    found = samples(metrics)
    assert (found["engine_up", ()], found["users_cached", ()], found["queue_length", ()]) == (1, 3, 0)
    assert found["epsilon_remaining", ()] == 1.5
    assert ("index_items", ()) not in found
    assert samples(metrics)["engine_up", ()] == 0
    broken = samples(metrics)
    assert broken["engine_up", ()] == 0
    assert ("users_cached", ()) not in broken


def test_the_access_log_has_templates_and_nobody() -> None:
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonLines())
    log = logging.getLogger("fedrec_client.serving")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        asked(ALL, **{"x-request-id": "abc"})
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
    assert WHO not in lines.getvalue()
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    served = [line for line in told if line["event"] == "served"]
    assert [line["route"] for line in served] == [
        "/v1/users/{user}/lists",
        "/api/fail/{user}",
        "none",
        "none",
        "/api/break/{user}",
    ]
    assert [line["status"] for line in served] == [200, 500, 404, 404, 200]
    assert all((line["method"], line["request"]) == ("GET", "abc") and line["seconds"] > 0 for line in served)
    assert [line["reason"] for line in told if line["event"] == "broken"] == ["RuntimeError", "RuntimeError"]


def traced(urls: Sequence[str], **headers: str) -> list[ReadableSpan]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    asked(urls, Tracing(provider), **headers)
    return list(exporter.get_finished_spans())


def test_a_request_and_its_steps_are_spans() -> None:
    score, rank, request = traced(ALL[:1])
    assert [one.name for one in (score, rank, request)] == ["score", "rank", "GET /v1/users/{user}/lists"]
    assert score.parent is not None
    assert rank.parent is not None
    assert (score.parent.span_id, rank.parent.span_id) == (rank.context.span_id, request.context.span_id)
    assert request.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/users/{user}/lists",
        "http.response.status_code": 200,
        "fedrec.api": "own",
    }


def test_spans_hold_nobody() -> None:
    spans = traced(ALL)
    assert len(spans) == 8
    for one in spans:
        assert WHO not in one.to_json()
        assert not one.events
    failed = [one.name for one in spans if not one.status.is_ok and one.status.status_code.name == "ERROR"]
    assert failed == ["rank", "GET /api/fail/{user}"]


def test_a_request_continues_its_callers_trace() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    spans = traced(ALL[:1], traceparent=f"00-{trace}-b7ad6b7169203331-01")
    assert {f"{one.context.trace_id:032x}" for one in spans} == {trace}


def test_without_a_collector_nothing_of_it_is_loaded() -> None:
    code = "import sys, fedrec_client.serving.http.app, fedrec_client.serving.http.server as s; "
    code += "print('opentelemetry' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_without_a_collector_nothing_is_made() -> None:
    assert span("rank") is span("score")
    off = make_tracing(TracingSettings())
    assert off.request("GET", []) is off.request("POST", [])
    off.stop()


def test_a_collector_is_sent_spans_without_the_machines_name() -> None:
    exporter = InMemorySpanExporter()
    provider = make_provider(exporter)
    with provider.get_tracer("t").start_as_current_span("x"):
        pass
    provider.force_flush()
    (sent,) = exporter.get_finished_spans()
    assert set(sent.resource.attributes) == {"service.name", "service.version"}
    provider.shutdown()


def test_a_named_collector_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"fedrec\[tracing\]"):
        make_tracing(TracingSettings(otlp="http://localhost:4318"))


def test_a_named_collector_is_called_at_its_path() -> None:
    for address in ("http://localhost:4318", "http://localhost:4318/v1/traces"):
        tracing = make_tracing(TracingSettings(otlp=address))
        assert tracing._provider is not None
        processor: Any = tracing._provider._active_span_processor._span_processors[0]
        assert processor._batch_processor._exporter._endpoint == "http://localhost:4318/v1/traces"
        tracing.stop()
