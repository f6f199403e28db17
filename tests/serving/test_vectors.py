"""A text is read once, whatever restarts come between, and again where another encoder reads it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fedrec.recommend.live_model import Floats
from fedrec.recommend.shelf import Item
from fedrec_client.serving.service import Served, TenantService
from fedrec_client.serving.store.store import ServingStore
from fedrec_client.serving.store.vector_book import remembering
from tests.serving.conftest import Place


@pytest.mark.parametrize("many", [1, 5000])
def test_each_text_is_read_once_by_each_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    monkeypatch.setattr("fedrec_client.serving.store.vector_book._MANY", many)
    store = ServingStore.open(f"sqlite:///{tmp_path / 's.sqlite'}")
    read: list[str] = []

    def encode(texts: Sequence[str]) -> Floats:
        read.extend(texts)
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    encoder = remembering(store.of("a").vectors, "one", encode, at_once=2)
    assert encoder(["x", "yy", "x", "zzz"]).tolist() == [[1, 1], [2, 1], [1, 1], [3, 1]]
    assert encoder(["zzz", "x"]).tolist() == [[3, 1], [1, 1]]
    assert read == ["x", "yy", "zzz"]
    remembering(store.of("a").vectors, "two", encode)(["x"])
    remembering(store.of("b").vectors, "one", encode)(["x"])
    assert read == ["x", "yy", "zzz", "x", "x"]
    store.close()


def test_a_restart_reads_no_text_again(place: Place, served: Served) -> None:
    async def add(one: TenantService) -> list[float]:
        await one.intake.put_items([Item("new", "Song of War", categories=("War",))])
        return one.tenant.engine.model.texts[-1].tolist()

    async def look(one: TenantService) -> list[float]:
        return one.tenant.engine.model.texts[-1].tolist()

    first = place.with_tenant(add)

    def broken(_: Sequence[str]) -> Floats:
        raise AssertionError("read again")

    again = Place(place.folder, Served(served.catalog, served.model, broken, served.encoder), place.settings)
    assert again.with_tenant(look) == first
