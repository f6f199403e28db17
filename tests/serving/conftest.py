"""A partner's whole service on a tiny model: real store, real engine, real app; made anew for each test."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
import torch
from starlette.types import ASGIApp

from fedrec.data.catalog import ItemCatalog
from fedrec.model.adapter import AdapterState
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures, TextEncoder, item_features
from fedrec.model.recommender import AdapterShape, build_model, read_state, write_state
from fedrec.model.sentences import SentenceEncoder
from fedrec.recommend.live_model import LiveModel
from fedrec.sentiment.head import HeadInputs, head_files
from fedrec.tasks.head import HeadShape, TaskHead, head_state
from fedrec_client.serving.http.app import make_app
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.service import Served, Service, TenantService
from fedrec_client.serving.settings import ServingSettings

_T = TypeVar("_T")
SHAPE = AdapterShape(
    rank=2, item_dim=3, summary_dim=4, context_dim=6, score_dim=5, popularity_floor=0.5, head_start=1.0
)


def live_model(folder: Path, features: ItemFeatures, version: str = "round-0001", seed: int = 1) -> LiveModel:
    """A made adapter; another seed gives other tensors."""
    model = build_model(load_backbone(folder, 2, torch.device("cpu"), torch.float32), features, SHAPE, 0)
    rng = np.random.default_rng(seed)
    state = read_state(model).tensors
    noise = {k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in state.items()}
    write_state(model, AdapterState(noise))
    return LiveModel(model, version, 20, 1.0)


@dataclass
class Place:
    """A service that is not open yet, and how to ask it: everything within one event loop.

    Attributes:
        routes: makes the routers of the app under test from the service and its metrics.
    """

    folder: Path
    served: Served
    settings: ServingSettings

    def run(self, work: Callable[[Service], Awaitable[_T]]) -> _T:
        """Open the service, do something with it, close it; what was stored is there the next time."""

        async def main() -> _T:
            service = Service(self.folder, self.settings)
            try:
                await service.open(self.served)
                return await work(service)
            finally:
                await asyncio.to_thread(service.close)

        return asyncio.run(main())

    def with_tenant(self, work: Callable[[TenantService], Awaitable[_T]]) -> _T:
        """The same for the tenant "default"."""
        return self.run(lambda service: work(service.of("default")))

    def app(self, service: Service, *routes: Callable[[Service, ServingMetrics], Any]) -> ASGIApp:
        """The whole app, guard and all, with some of its routers."""
        metrics = ServingMetrics(lambda: None)
        keys = service.store.keys
        ring = KeyRing(keys.find, lambda: bool(keys.every()))
        routers = [make(service, metrics) for make in routes]
        return make_app(
            self.settings, routers, ring=ring, metrics=metrics, is_ready=service.is_ready, on_stop=lambda: None
        )

    def call(
        self,
        routes: Callable[[Service, ServingMetrics], Any],
        work: Callable[[httpx.AsyncClient, Service], Awaitable[_T]],
    ) -> _T:
        """Open the service and call its app as a client does."""

        async def inside(service: Service) -> _T:
            transport = httpx.ASGITransport(self.app(service, routes))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await work(client, service)

        return self.run(inside)


@pytest.fixture(scope="session")
def served(tiny_llama: Path, catalog: ItemCatalog, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """An adapter over the made catalogue of 40 items, and the encoder of their texts."""
    cache = tmp_path_factory.mktemp("serving-cache")
    features = item_features(catalog, tiny_llama, None, layer=2, dim=8, cache=cache)
    encoder = TextEncoder(catalog, tiny_llama, None, layer=2, dim=8, cache=cache)
    return Served(catalog, live_model(tiny_llama, features), encoder.encode, sentences=SentenceEncoder(tiny_llama))


@pytest.fixture
def make_place(served: Served, tmp_path: Path) -> Callable[..., Place]:
    """Makes one with settings of its own, in the form of serving.toml's tables."""
    return lambda **tables: Place(tmp_path, served, ServingSettings.model_validate({"format": 1, **tables}))


@pytest.fixture
def place(make_place: Callable[..., Place]) -> Place:
    """With the default settings."""
    return make_place()


def put_head(folder: Path, encoder: SentenceEncoder, bias: float = 0.0) -> None:
    """A made head over the tiny encoder into `folder/head`; with a bias all that comes is negative."""
    inputs = HeadInputs(encoder=encoder.name, width=encoder.encode(["space"]).shape[1], scale=1.0, last_letters=240)
    head = TaskHead(HeadShape(inputs.width, 2))
    with torch.no_grad():
        head.outer.bias[1] = bias
    (folder / "head").mkdir(exist_ok=True)
    for name, content in head_files(inputs, head_state(head)).items():
        (folder / "head" / name).write_bytes(content)
