"""`serving.toml`: how a partner serves. One commented file is documentation, default and test input."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedrec.files import replace_file, storage_errors
from fedrec.toml import Section, read_toml

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Phrase = Annotated[str, Field(max_length=256, pattern=r"\S")]
SourceName = Literal["model", "session", "similar", "trending", "popular", "latest"]
IndexName = Literal["auto", "usearch", "pgvector"]
FILE = "serving.toml"


class HttpSettings(Section):
    """`[http]`: who may call, and how much."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8088
    certificate: str = ""
    key: str = ""
    behind_proxy: bool = False
    cors_origins: tuple[str, ...] = ()
    body_mb: Annotated[int, Field(ge=1, le=1024)] = 16
    timeout_s: Positive = 10.0
    waiting: Annotated[int, Field(ge=1)] = 256
    requests_per_s: Annotated[float, Field(ge=0)] = 0.0
    auto_insert: bool = True


class StoreSettings(Section):
    """`[store]`: where events lie."""

    database: str = "sqlite"
    keep_shown_days: Annotated[int, Field(ge=1)] = 90


class LiveSettings(Section):
    """`[model]`: what the live model may take."""

    state_mb: Annotated[int, Field(ge=1)] = 512
    window_slack: Annotated[int, Field(ge=1)] = 50
    batch_users: Annotated[int, Field(ge=1)] = 32
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    exact_items: Count = 150_000
    index: IndexName = "auto"
    index_probe: Annotated[int, Field(ge=1)] = 800
    new_item_boost: float = 1.0


class FeedbackSettings(Section):
    """`[feedback]`: what events mean."""

    positive: tuple[str, ...] = ("*",)
    read: tuple[str, ...] = ("read",)
    negative: tuple[str, ...] = ("dislike", "hide")
    repeats: bool = False
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=lambda: {"purchase": 2.0})


class FallbackSettings(Section):
    """`[fallback]`: who fills a list."""

    chain: tuple[SourceName, ...] = ("model", "session", "similar", "trending", "popular", "latest")
    trending_half_life_h: Positive = 72.0


class RankingSettings(Section):
    """`[ranking]`: the order among the best candidates."""

    candidates: Annotated[int, Field(ge=1)] = 200
    model: float = 1.0
    recency: float = 0.0
    popularity: float = 0.0
    learned: bool = False
    diversity: Literal["none", "mmr", "dpp"] = "none"
    relevance: Share = 0.7
    negative: Annotated[float, Field(ge=0)] = 1.0
    calibration: Share = 0.0
    fields: dict[str, float] = Field(default_factory=dict)


class RuleSettings(Section):
    """`[rules]`."""

    file: str = "rules.toml"


class FairnessSettings(Section):
    """`[fairness]`: what groups of items get of the exposure at least."""

    by: Annotated[str, Field(min_length=1)] = "category"
    way: Literal["amortised", "each"] = "amortised"
    rate: Annotated[float, Field(gt=0, le=10)] = 0.05
    shares: dict[str, Share] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if sum(self.shares.values()) > 1 + 1e-9:
            raise ValueError("fairness.shares: they add up to more than 1")
        if self.by == "popularity" and (unknown := set(self.shares) - {"head", "middle", "tail"}):
            raise ValueError(f"fairness.shares: of popularity there are head, middle and tail, not {sorted(unknown)}")
        return self


class SafetySettings(Section):
    """`[safety]`: what holds an item back."""

    file: str = "safety.toml"
    screen: tuple[Literal["words", "themes"], ...] = ()


class ReviewSettings(Section):
    """`[review]`: what waits for a person."""

    rules: bool = False
    four_eyes: bool = False


class LearningSettings(Section):
    """`[learning]`: when rounds are asked for."""

    rounds: bool = False
    every_hours: Annotated[float, Field(ge=0)] = 24.0
    new_events: Count = 10_000
    on_drift: bool = True
    min_hours: Annotated[float, Field(ge=1)] = 6.0
    psi: Positive = 0.2
    window_hours: Positive = 24.0
    window_events: Annotated[int, Field(ge=1)] = 1000
    replay_events: Count = 2000
    replay_tolerance: Share = 0.02
    webhook: str = ""


class SupportSettings(Section):
    """`[support]`: when a request is answered, and when it is handed over."""

    threshold: Annotated[float, Field(ge=-1, le=1)] = 0.34
    question_weight: Share = 0.7


class SentimentSettings(Section):
    """`[sentiment]`: with what texts are judged, and which rise of the negative share alarms."""

    head: str = ""
    base: Annotated[float, Field(gt=0, lt=1)] = 0.3
    raised: Annotated[float, Field(gt=0, lt=1)] = 0.6
    false_per_1000: Annotated[float, Field(gt=0, le=100)] = 0.5
    window_texts: Annotated[int, Field(ge=1, le=100_000)] = 50
    neutral_band: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    topics: dict[Phrase, Annotated[tuple[Phrase, ...], Field(min_length=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.base >= self.raised:
            raise ValueError("sentiment.raised: it is not above sentiment.base")
        if "other" in self.topics:
            raise ValueError("sentiment.topics: other is what none of them is near")
        return self


class TracingSettings(Section):
    """`[tracing]`."""

    otlp: str = ""


class TenantSettings(Section):
    """One of `[[tenants]]`."""

    name: Name


class ArmSettings(Section):
    """One of `[[arms]]`: `ranking` holds the keys of `[ranking]` that it does otherwise."""

    name: Name
    share: Annotated[float, Field(gt=0, le=1)]
    ranking: dict[str, Any] = Field(default_factory=dict)


class ServingSettings(Section):
    """All of `serving.toml`."""

    format: Literal[1]
    http: HttpSettings = HttpSettings()
    store: StoreSettings = StoreSettings()
    model: LiveSettings = LiveSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    fallback: FallbackSettings = FallbackSettings()
    ranking: RankingSettings = RankingSettings()
    rules: RuleSettings = RuleSettings()
    fairness: FairnessSettings = FairnessSettings()
    safety: SafetySettings = SafetySettings()
    review: ReviewSettings = ReviewSettings()
    learning: LearningSettings = LearningSettings()
    support: SupportSettings = SupportSettings()
    sentiment: SentimentSettings = SentimentSettings()
    tracing: TracingSettings = TracingSettings()
    tenants: tuple[TenantSettings, ...] = ()
    arms: tuple[ArmSettings, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        problems = []
        if self.arms and abs(sum(arm.share for arm in self.arms) - 1) > 1e-6:
            problems.append("arms: their shares do not add up to 1")
        for kind, names in (("arms", [a.name for a in self.arms]), ("tenants", [t.name for t in self.tenants])):
            if len(set(names)) < len(names):
                problems.append(f"{kind}: a name stands twice")
        if bool(self.http.certificate) != bool(self.http.key):
            problems.append("http: certificate and key go together")
        for arm in self.arms:
            self.ranking_of(arm.name)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def ranking_of(self, arm: str) -> RankingSettings:
        """`[ranking]` with what an arm does otherwise; of an unknown arm as it stands."""
        other = next((dict(a.ranking) for a in self.arms if a.name == arm), {})
        return RankingSettings.model_validate({**self.ranking.model_dump(), **other})

    @property
    def tenant_names(self) -> tuple[str, ...]:
        """ "default" where none is named."""
        return tuple(tenant.name for tenant in self.tenants) or ("default",)


def default_text() -> str:
    """The commented file."""
    return (files("fedrec_client.serving") / FILE).read_text(encoding="utf-8")


def read_serving(folder: Path) -> ServingSettings:
    """A folder's `serving.toml`; where it has none the default is written. Raises ConfigError, StorageError."""
    path = folder / FILE
    if not path.exists():
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, default_text().encode())
    return read_toml(path, ServingSettings, "every key stands in the commented default")


def default_settings() -> ServingSettings:
    """As the commented file says."""
    return ServingSettings.model_validate(tomllib.loads(default_text()))
