"""Promotion: a worse adapter never serves by itself, a bad one goes, and a restart changes none of it."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedrec.errors import ModelError, RunError
from fedrec.model.features import ItemFeatures
from fedrec.recommend.live_model import LiveModel
from fedrec_client.serving.learning import promotion as under_test
from fedrec_client.serving.learning.alerts import Alerts
from fedrec_client.serving.learning.promotion import Promotion, Sources
from fedrec_client.serving.learning.promotion_record import Candidate, PromotionBook
from fedrec_client.serving.learning.replay import Verdict
from fedrec_client.serving.records import Event, Shown
from fedrec_client.serving.service import Served, Service
from tests.serving.conftest import Place, live_model

START = 1_700_000_000.0


def candidate_of(number: int) -> Candidate:
    return Candidate(f"round-{number:04d}", f"{number:064x}", lambda: f"tensors {number}".encode())


@dataclass
class World:
    """What a node holds, and a clock."""

    served: Served
    other: LiveModel
    newest: Candidate | None = field(default_factory=lambda: candidate_of(1))
    now: float = START
    asked: tuple[int, int] = (0, 0)

    def make(self, candidate: Candidate) -> LiveModel:
        number = int(candidate.version.removeprefix("round-"))
        assert candidate.content() == f"tensors {number}".encode()
        model = (self.served.model if number == 1 else self.other).branch()
        model.version = candidate.version
        return model

    def promotion(self, service: Service) -> Promotion:
        sources = Sources(lambda: self.newest, self.make, asked=lambda: self.asked)
        return Promotion(service, sources, Alerts("", clock=lambda: self.now), clock=lambda: self.now)


@pytest.fixture
def world(served: Served, tiny_llama: Path, features: ItemFeatures) -> World:
    return World(served, live_model(tiny_llama, features, "round-0002", seed=2))


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Puts a verdict in place of the replay; gives the versions that were replayed."""

    def put(outcome: str) -> list[str]:
        replayed: list[str] = []

        def replay(tenant: object, old: LiveModel, new: LiveModel, after: int, stop: object) -> Verdict:
            replayed.append(new.version)
            return Verdict(old.version, new.version, outcome, 10, 5, ndcg_old=0.2, ndcg_new=0.1)  # type: ignore[arg-type]

        monkeypatch.setattr(under_test, "replay", replay)
        return replayed

    return put


def test_one_that_is_no_worse_serves_after_a_real_replay_and_a_restart_begins_with_it(
    place: Place, world: World, served: Served
) -> None:
    async def first(service: Service) -> None:
        one, promotion = service.of("default"), world.promotion(service)
        await promotion.began(candidate_of(1))
        assert await promotion.look() == "nothing newer"
        items = served.catalog.ids
        await one.intake.add_events(
            [Event("like", items[c], user=f"u{u}", timestamp=100.0 + c) for u in range(4) for c in range(u, u + 5)]
        )
        world.newest = Candidate("round-0003", f"{3:064x}", lambda: b"tensors 3")
        world.other = served.model
        assert await promotion.look() == "served"
        assert service.version == "round-0003"
        assert promotion.record.figures["default"]["events"] == 16
        assert promotion.record.figures["default"]["outcome"] == "no worse"
        assert await promotion.look() == "nothing newer"

    async def second(service: Service) -> None:
        found = PromotionBook(place.folder).at_start(candidate_of(9))
        assert found is not None
        assert (found.version, found.content()) == ("round-0003", b"tensors 3")
        promotion = world.promotion(service)
        await promotion.began(found)
        assert promotion.record.before is not None  # it can still go back

    place.run(first)
    place.run(second)


def test_a_worse_one_is_refused_for_good_unless_somebody_insists(
    place: Place, world: World, says: Callable[[str], list[str]]
) -> None:
    replayed = says("worse")

    async def first(service: Service) -> None:
        promotion = world.promotion(service)
        await promotion.began(candidate_of(1))
        world.newest = candidate_of(2)
        assert await promotion.look() == "kept"
        assert await promotion.look() == "nothing newer"
        assert service.version == "round-0001"

    async def second(service: Service) -> None:
        promotion = world.promotion(service)
        assert await promotion.look() == "nothing newer"
        assert replayed == ["round-0002"]
        (refusal,) = promotion.record.refused
        assert (refusal.reason, refusal.figures["default"]["ndcg_new"]) == ("replay", 0.1)
        assert await promotion.promote() == "served"
        assert service.version == "round-0002"
        assert not promotion.record.refused

    place.run(first)
    place.run(second)


@pytest.mark.parametrize("was_lost", [False, True])
def test_the_first_adapter_serves_without_a_replay(
    place: Place, world: World, says: Callable[[str], list[str]], was_lost: bool
) -> None:
    """Nothing is compared with the untrained one; also where the tensors of one that served are gone."""
    replayed = says("worse")

    async def work(service: Service) -> None:
        promotion = world.promotion(service)
        if was_lost:
            await promotion.began(candidate_of(2))
        await promotion.began(None)
        world.newest = None
        assert await promotion.look() == "nothing newer"
        world.newest = candidate_of(2)
        assert await promotion.look() == "served"
        assert (service.version, replayed) == ("round-0002", [])
        world.newest = candidate_of(3)
        assert await promotion.look() == "kept"

    place.run(work)


@pytest.mark.parametrize("outcome", ["helps", "no worse", "unclear"])
def test_only_worse_is_refused(place: Place, world: World, says: Callable[[str], list[str]], outcome: str) -> None:
    says(outcome)

    async def work(service: Service) -> None:
        promotion = world.promotion(service)
        await promotion.began(candidate_of(1))
        world.newest = candidate_of(2)
        assert await promotion.look() == "served"

    place.run(work)


async def show(service: Service, adapter: str, at: float, n: int, clicked: int, items: tuple[str, ...]) -> None:
    one = service.of("default")
    lists = [Shown(f"{adapter}-{k}", f"u{k}", "", at + k, "default", adapter, items) for k in range(n)]
    one.tenant.store.shown.add(lists)
    await one.intake.add_events(
        [Event("like", items[0], user=x.user, timestamp=x.at + 1, ranking=x.id) for x in lists[:clicked]]
    )


@pytest.mark.parametrize(("clicked", "expected"), [(95, "nothing newer"), (40, "rolled back"), (300, "nothing newer")])
def test_fewer_clicks_send_it_back_and_it_stays_away(
    place: Place, world: World, served: Served, says: Callable[[str], list[str]], clicked: int, expected: str
) -> None:
    says("helps")

    async def first(service: Service) -> None:
        promotion = world.promotion(service)
        await promotion.began(candidate_of(1))
        items = served.catalog.ids[:3]
        await show(service, "round-0001", START + 10, 400, 100, items)
        world.now, world.newest = START + 1000, candidate_of(2)
        assert await promotion.look() == "served"
        await show(service, "round-0002", START + 2000, 400, clicked, items)
        world.now = START + 10_000
        assert await promotion.look() == expected
        assert service.version == ("round-0001" if expected == "rolled back" else "round-0002")

    async def second(service: Service) -> None:
        promotion = world.promotion(service)
        world.now = START + 20_000
        assert await promotion.look() == "nothing newer"
        if expected == "rolled back":
            assert PromotionBook(place.folder).at_start(candidate_of(2)).version == "round-0001"  # type: ignore[union-attr]
            assert [one.reason for one in promotion.record.refused] == ["click-through"]

    place.run(first)
    place.run(second)


@pytest.mark.parametrize(("failed", "expected"), [(19, "nothing newer"), (60, "rolled back")])
def test_errors_send_it_back(
    place: Place, world: World, says: Callable[[str], list[str]], failed: int, expected: str
) -> None:
    says("helps")

    async def work(service: Service) -> None:
        promotion = world.promotion(service)
        await promotion.began(candidate_of(1))
        world.asked, world.newest = (1000, 2), candidate_of(2)
        assert await promotion.look() == "served"
        world.asked = (1500, 2 + failed)
        assert await promotion.look() == expected
        assert await promotion.look() == "nothing newer"

    place.run(work)


def test_by_hand_one_goes_back_once(place: Place, world: World, says: Callable[[str], list[str]]) -> None:
    says("helps")

    async def work(service: Service) -> None:
        promotion = world.promotion(service)
        await promotion.began(candidate_of(1))
        with pytest.raises(RunError, match="no earlier adapter"):
            await promotion.roll_back()
        world.newest = candidate_of(2)
        await promotion.look()
        assert await promotion.roll_back() == "rolled back"
        assert service.version == "round-0001"
        kept = {path.stem for path in (place.folder / "adapters").iterdir()}
        assert kept == {f"{1:064x}"}
        with pytest.raises(RunError):
            await promotion.roll_back()

    place.run(work)


def test_a_damaged_record_is_an_error_in_words(place: Place, world: World) -> None:
    (place.folder / "promotion.json").write_text(json.dumps({"format": 1, "serving": {"x": 1}}))
    with pytest.raises(RunError, match="damaged"):
        PromotionBook(place.folder).read()


def test_nobody_promotes_twice_at_once(place: Place, world: World, says: Callable[[str], list[str]]) -> None:
    replayed = says("helps")

    async def work(service: Service) -> None:
        promotion = world.promotion(service)
        await promotion.began(candidate_of(1))
        world.newest = candidate_of(2)
        assert sorted(await asyncio.gather(promotion.look(), promotion.look())) == ["nothing newer", "served"]
        assert replayed == ["round-0002"]

    place.run(work)


def test_one_that_cannot_be_loaded_is_left_alone_for_an_hour(place: Place, world: World) -> None:
    tries: list[float] = []

    def make(_: Candidate) -> LiveModel:
        tries.append(world.now)
        raise ModelError("does not fit")

    async def work(service: Service) -> None:
        sources = Sources(lambda: world.newest, make)
        promotion = Promotion(service, sources, Alerts(""), clock=lambda: world.now)
        await promotion.began(candidate_of(1))
        world.newest = candidate_of(2)
        with pytest.raises(ModelError):
            await promotion.look()
        assert await promotion.look() == "nothing newer"
        world.now += 3601
        with pytest.raises(ModelError):
            await promotion.look()
        assert len(tries) == 2
        assert service.version == "round-0001"

    place.run(work)


def test_without_the_earlier_adapter_there_is_no_way_back_but_one_forward(
    place: Place, world: World, says: Callable[[str], list[str]]
) -> None:
    says("helps")

    async def work(service: Service) -> None:
        promotion = world.promotion(service)
        await promotion.began(candidate_of(1))
        world.newest = candidate_of(2)
        assert await promotion.look() == "served"
        (place.folder / "adapters" / f"{1:064x}.safetensors").unlink()
        world.asked = (1000, 900)
        world.newest = candidate_of(3)
        assert await promotion.look() == "served"

    place.run(work)
