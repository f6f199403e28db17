"""The whole service: store, tenants, and the adapter that all are served from; transport is in `http/` and `api/`."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedrec.data.catalog import ItemCatalog
from fedrec.files import make_folders, replace_file, storage_errors
from fedrec.model.sentences import SentenceEncoder
from fedrec.query.query_model import QueryModel
from fedrec.recommend.live_model import Floats, LiveModel
from fedrec.safety.screen import Screen
from fedrec.safety.wordlist import read_safety
from fedrec.signing import read_secret
from fedrec_client.serving.errors import NotFoundError, NotReadyError
from fedrec_client.serving.graphs import Graphs
from fedrec_client.serving.intake import Intake
from fedrec_client.serving.learning.alerts import Alerts
from fedrec_client.serving.learning_to_rank import LearningToRank
from fedrec_client.serving.lists import Lists
from fedrec_client.serving.people import Person
from fedrec_client.serving.policy import Policy
from fedrec_client.serving.records import Query
from fedrec_client.serving.reviewing import Reviewing, refuse_themes_without_encoder
from fedrec_client.serving.sentiment import SentimentWatch, open_sentiment
from fedrec_client.serving.settings import ServingSettings
from fedrec_client.serving.store.store import ServingStore, TenantStore, store_url
from fedrec_client.serving.store.vector_book import remembering
from fedrec_client.serving.store.writer import Writer
from fedrec_client.serving.support import Support, support_of
from fedrec_client.serving.tenant import Tenant, open_tenant
from fedrec_client.serving.versions import Versions

_log = logging.getLogger(__name__)
_CURSOR_KEY = "cursor.key"


@dataclass(frozen=True)
class Served:
    """What is served from.

    Attributes:
        catalog: the federation's, public.
        model: an adapter version over it.
        encode: text features of items that came later.
        encoder: identity of what encodes, recipe and catalogue included.
        queries: reads requests in words; None: nobody taught it.
        sentences: the sentence encoder alone, for support, sentiment and harmful themes; None: there is none.
    """

    catalog: ItemCatalog = field(repr=False)
    model: LiveModel = field(repr=False)
    encode: Callable[[Sequence[str]], Floats] = field(repr=False)
    encoder: str = ""
    queries: QueryModel | None = field(default=None, repr=False)
    sentences: SentenceEncoder | None = field(default=None, repr=False)


@dataclass
class TenantService:
    """All that APIs and pages ask of one tenant."""

    tenant: Tenant
    policy: Policy = field(repr=False)
    lists: Lists = field(repr=False)
    intake: Intake = field(repr=False)
    learning_to_rank: LearningToRank = field(repr=False)
    reviewing: Reviewing = field(repr=False)
    support: Support = field(repr=False)
    sentiment: SentimentWatch = field(repr=False)


class Service:
    """Opened within the event loop that it is used in.

    Args:
        folder: of `serving.toml`; store, keys and indices lie there. Its owner alone should read it.
    Raises: ConfigError: the index that is asked for cannot be had, or the webhook is no address for alerts. As
        `ServingStore.open`.
    Attributes:
        alerts: to log and webhook, from all that watches beside this service.
        versions: adapters that can be served in place of this one; None: there are no others.
    """

    def __init__(self, folder: Path, settings: ServingSettings) -> None:
        self.folder, self.settings = folder, settings
        self.alerts = Alerts(settings.learning.webhook)
        self.store = ServingStore.open(store_url(folder, settings.store.database))
        try:
            self._graphs = Graphs.choose(settings.model.index, self.store, folder / "indices")
        except BaseException:
            self.store.close()
            raise
        self._writer: Writer = self.store.writer()
        self._tenants: dict[str, TenantService] = {}
        self._version, self._since = "none", 0.0
        self.versions: Versions | None = None
        self._swapping = asyncio.Lock()
        self._encode: Callable[[Sequence[str]], Floats] | None = None

    @property
    def version(self) -> str:
        """Of the adapter that is served; "none" before the first."""
        return self._version

    @property
    def since(self) -> float:
        """Unix seconds from which on this process serves that version; 0 before the first."""
        return self._since

    def encode(self, texts: Sequence[str]) -> Floats:
        """Text features, `[texts, feature_dim]`; slow, for a thread. Raises NotReadyError; ModelError: no token."""
        if self._encode is None:
            raise NotReadyError("the service is still reading items and events", "try again in a moment")
        return self._encode(texts)

    def is_ready(self) -> bool:
        """Whether every tenant is there: none is served before, since what a deletion tells is set for all at once."""
        return self._encode is not None

    def of(self, tenant: str) -> TenantService:
        """Raises NotReadyError: still reading; NotFoundError: no such tenant."""
        found = self._tenants.get(tenant) if self.is_ready() else None
        if found is None:
            if tenant in self.settings.tenant_names:
                raise NotReadyError("the service is still reading items and events", "try again in a moment")
            raise NotFoundError("tenant", "name one of [[tenants]]")
        return found

    def tenants(self) -> list[TenantService]:
        """Those that are there."""
        return list(self._tenants.values())

    async def open(self, served: Served, say: Callable[[str], None] = lambda _: None) -> None:
        """Read all tenants. Raises as the store and the rules do."""
        key = await asyncio.to_thread(_cursor_key, self.folder)
        for name in self.settings.tenant_names:
            books = self.store.of(name)
            tenant = await open_tenant(
                name,
                self.settings,
                books,
                self._writer,
                served.catalog,
                served.model,
                remembering(books.vectors, served.encoder, served.encode),
                self._graphs,
                say,
            )
            policy = Policy(self._rules_path(name), books, tenant.shelf)
            reviewing = Reviewing(books, tenant.shelf, policy, self._screen(served, books, name), self.settings.review)
            if held := await reviewing.start():
                say(f"{name}: {held} items are held back until a person decides: /operate/review")
            lists = Lists(tenant, policy, key, served.queries)
            learning = LearningToRank(tenant, lists.ranking)
            await learning.restore()
            await _warm(lists, tenant)
            support = support_of(tenant, served.sentences)
            told = self.settings.sentiment
            sentiment = await asyncio.to_thread(open_sentiment, self.folder, name, told, served.sentences, self.alerts)
            self._tenants[name] = TenantService(
                tenant, policy, lists, Intake(tenant, reviewing), learning, reviewing, support, sentiment
            )
        self._encode = served.encode
        self._version, self._since = served.model.version, time.time()

    def _screen(self, served: Served, books: TenantStore, tenant: str) -> Screen:
        """Raises ConfigError: the safety file is faulty, or asks for what the model has not."""
        wanted, sentences = self.settings.safety.screen, served.sentences
        refuse_themes_without_encoder(wanted, has_sentences=sentences is not None)
        safety = read_safety(self._path_of(self.settings.safety.file, tenant))
        encode = None if sentences is None else remembering(books.vectors, sentences.name, sentences.encode)
        return Screen(safety, by_words="words" in wanted, by_themes="themes" in wanted, sentences=encode)

    def _rules_path(self, tenant: str) -> Path:
        """`rules.toml`; of a tenant that is named `rules-NAME.toml`."""
        return self._path_of(self.settings.rules.file, tenant)

    def _path_of(self, file: str, tenant: str) -> Path:
        path = self.folder / file
        return path if tenant == "default" else path.with_name(f"{path.stem}-{tenant}{path.suffix}")

    async def swap(self, model: LiveModel) -> None:
        """Serve another adapter of the same catalogue; no request fails meanwhile."""
        async with self._swapping:
            for one in self.tenants():
                tenant = one.tenant
                await tenant.engine.swap(model.branch(), tenant.people.everybody, tenant.changing_items)
                tenant.index.want(tenant.engine.model)
                await asyncio.to_thread(tenant.store.readings.forget_all_but, model.reading)
            self._version, self._since = model.version, time.time()
        await asyncio.to_thread(_give_back)
        _log.info("serving from %s", model.version, extra={"event": "adapter_served"})

    def close(self) -> None:
        """Write what waits, and let go of everything, whatever one of them raises; the last named goes first."""
        with contextlib.ExitStack() as closing:
            closing.callback(self.store.close)
            closing.callback(self._writer.close)
            for one in self.tenants():
                closing.callback(one.tenant.close)
            closing.callback(self._graphs.close)


async def _warm(lists: Lists, tenant: Tenant) -> None:
    """What the first ones to ask would wait for: columns over all items, and the LLM's first pass.

    What fails here fails whoever asks, with its reason; a start must not, or nobody could mend a rule by API.
    """
    try:
        await lists.recommend(Query(n=1, is_recorded=False))
        if len(tenant.shelf):
            somebody = Person((tenant.name, "")).with_session([(0, "positive", 1.0)])
            await tenant.engine.user_vector(somebody, is_kept=False)
    except Exception as error:  # noqa: BLE001  # see above
        _log.warning("not warmed up: %s", type(error).__name__, extra={"event": "not_warmed"})


def _cursor_key(folder: Path) -> bytes:
    """Made once."""
    path = folder / _CURSOR_KEY
    with storage_errors(folder):
        make_folders(folder)
        if not path.exists():
            replace_file(path, os.urandom(32))
            path.chmod(0o600)
    return read_secret(path, 32)


def _give_back() -> None:
    """Models hold themselves in circles, and are large; what is free within the process goes back to the machine."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # of another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
