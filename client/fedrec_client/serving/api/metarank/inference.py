"""`POST /inference/…`: texts as vectors, and how alike two are, by the features that items are known by."""

import asyncio
import time
from collections.abc import Sequence

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fedrec.recommend.arms import DEFAULT
from fedrec.recommend.diversity import unit
from fedrec.recommend.live_model import Floats
from fedrec_client.serving.api.metarank.wire import CompareRequest, EncodeRequest, read_request
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.service import Service


def inference_routes(router: APIRouter, service: Service) -> None:
    """Puts them in. One request at a time is encoded, so that lists do not wait for texts."""
    encoding = asyncio.Lock()

    async def encode(texts: Sequence[str]) -> Floats:
        if not texts:
            return np.zeros((0, 1), np.float32)
        async with encoding:
            return await asyncio.to_thread(service.encode, texts)

    @router.post("/inference/encoder/{name}")
    async def embed(name: str, request: Request) -> JSONResponse:
        """Text features of each text: public, and the same for the same adapter's catalogue."""
        _check(name)
        began = time.perf_counter()
        asked = read_request(await request.body(), EncodeRequest)
        vectors = await encode(asked.texts)
        return JSONResponse({"took": _millis(began), "embeddings": vectors.tolist()})

    @router.post("/inference/cross/{name}")
    async def compare(name: str, request: Request) -> JSONResponse:
        """The cosine of query and text. No cross-encoder reads both at once here."""
        _check(name)
        began = time.perf_counter()
        pairs = read_request(await request.body(), CompareRequest).input
        texts = list(dict.fromkeys([text for pair in pairs for text in (pair.query, pair.text)]))
        vectors = dict(zip(texts, unit(await encode(texts)), strict=True))
        scores = [float(vectors[pair.query] @ vectors[pair.text]) for pair in pairs]
        return JSONResponse({"took": _millis(began), "scores": scores})


def _check(name: str) -> None:
    if name != DEFAULT:
        raise NotFoundError("encoder", "there is one, default")


def _millis(began: float) -> int:
    return round(1000 * (time.perf_counter() - began))
