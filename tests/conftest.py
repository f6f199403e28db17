"""A tiny random Llama, a made catalogue, made users, and sums: enough to run every path in seconds."""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.model.backbone import Backbone, load_backbone
from fedrec.model.features import ItemFeatures, item_features
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.secagg.coordinator import CoordinatorSum
from fedrec.secagg.messages import SumTerms, Survivors
from fedrec.secagg.packing import unpack
from fedrec.secagg.partner import PartnerSum
from fedrec.signing import SigningKey
from fedrec.wire import RoundPlan
from tests.postgres import Cluster, cluster, with_pgvector

WORDS = ["quiet", "loud", "space", "love", "war", "comedy", "drama", "music", "river", "night"]
N_ITEMS = 40


@pytest.fixture(scope="session")
def pgvector_cluster() -> Iterator[Cluster]:
    """PostgreSQL with pgvector."""
    with cluster(with_pgvector()) as running:
        yield running


@pytest.fixture
def pgvector(pgvector_cluster: Cluster) -> Iterator[str]:
    """The address of an empty database, whose server has pgvector."""
    with pgvector_cluster.database(f"of_{uuid.uuid4().hex[:12]}") as address:
        yield address


@pytest.fixture(scope="session")
def catalog() -> ItemCatalog:
    """40 items in four genres; items of a genre share words."""
    genres = ["Comedy", "Drama", "War", "Music"]
    titles = [f"{WORDS[i % 10].title()} {i} ({1960 + i})" for i in range(N_ITEMS)]
    return ItemCatalog(
        ids=tuple(f"i{i}" for i in range(N_ITEMS)),
        titles=tuple(titles),
        texts=tuple(f"{title}. {genres[i % 4]}, {WORDS[i % 4]} {WORDS[4 + i % 4]}." for i, title in enumerate(titles)),
        categories=tuple((genres[i % 4],) for i in range(N_ITEMS)),
        years=tuple(1960 + i for i in range(N_ITEMS)),
    )


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 3 layers and width 32 with a word tokenizer, as a Hugging Face folder."""
    return make_model("llama", tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def make_tiny() -> Callable[[str, Path], Path]:
    """Makes a tiny LM of a type (llama, qwen2, gpt2; bert, which is not causal) in a folder."""
    return make_model


def make_model(kind: str, folder: Path) -> Path:
    """A tiny random LM."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        AutoModelForCausalLM,
        BertConfig,
        GPT2Config,
        LlamaConfig,
        PreTrainedTokenizerFast,
        Qwen2Config,
    )

    vocabulary = {word: i for i, word in enumerate(["<unk>", "</s>", *WORDS, "Comedy", "Drama", "War", "Music"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    sizes = {"vocab_size": len(vocabulary), "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
    attention = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 32}
    match kind:
        case "llama":
            config = LlamaConfig(intermediate_size=48, num_key_value_heads=1, **attention, **sizes)
        case "qwen2":
            config = Qwen2Config(intermediate_size=48, num_key_value_heads=1, **attention, **sizes)
        case "bert":
            config = BertConfig(intermediate_size=48, is_decoder=False, **attention, **sizes)
        case _:
            config = GPT2Config(n_layer=3, n_embd=32, n_head=2, **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def backbone(tiny_llama: Path) -> Backbone:
    """Two of its layers, frozen. Tests that put LoRA into it load their own."""
    return load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def features(catalog: ItemCatalog, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> ItemFeatures:
    """Item vectors of the made catalogue."""
    return item_features(catalog, tiny_llama, None, layer=2, dim=8, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def histories() -> list[np.ndarray]:
    """60 made users who like one genre each, of 2 to 14 items."""
    rng = np.random.default_rng(7)
    users = []
    for user in range(60):
        liked = np.arange(user % 4, N_ITEMS, 4)
        users.append(rng.permutation(liked)[: rng.integers(2, 10)].astype(np.int32))
    return users


@pytest.fixture(scope="session")
def make_ledger() -> Callable[..., PrivacyLedger]:
    """Makes the ledger of partner "shop" and data set "sales" at a path."""

    def make(path: Path, epsilon: float = 10.0, delta: float = 1e-5) -> PrivacyLedger:
        return PrivacyLedger.create(path, partner="shop", dataset="sales", budget_epsilon=epsilon, budget_delta=delta)

    return make


class Stream:
    """Repeatable entropy: SHA-256 over a seed and a counter of 8 bytes, block after block."""

    def __init__(self, seed: str) -> None:
        self._seed, self._counter, self._left = seed.encode(), 0, b""

    def __call__(self, n_bytes: int) -> bytes:
        while len(self._left) < n_bytes:
            self._left += hashlib.sha256(self._seed + self._counter.to_bytes(8, "big")).digest()
            self._counter += 1
        taken, self._left = self._left[:n_bytes], self._left[n_bytes:]
        return taken


class Summing:
    """Both sides of one sum. `sent[step][partner]` and `told[step]` keep them.

    Args:
        n, numbers, bits, quorum, grain, dishonest: of the terms.
        plan: changed of the round's.
        seed: of all entropy.
    """

    STEPS = ("advertise", "share", "mask", "confirm", "reveal")

    def __init__(
        self,
        n: int = 4,
        *,
        numbers: int = 5,
        bits: int = 20,
        quorum: int = 1,
        grain: float = 0.5,
        dishonest: int = 0,
        seed: str = "s",
        **plan: Any,
    ) -> None:
        self.names = tuple(f"p{place:03}" for place in range(n))
        self.seed = seed
        values: dict[str, Any] = {"run": "films/1", "round": 1, "attempt": 1, "part": "head", "mode": "secagg"}
        values |= {"local_epochs": 1, "local_steps": 1, "learning_rate": 1.0, "deadline_s": 60.0, "seed": 1}
        values |= {"parent_hash": "0" * 64, "privacy_plan_hash": "1" * 64, "quorum": quorum}
        self.plan = RoundPlan(**{**values, **plan})
        self.terms = SumTerms(self.plan, self.names, numbers, bits, grain, dishonest)
        self.keys = {name: SigningKey(hashlib.sha256(f"identity {name}".encode()).digest()) for name in self.names}
        self.public = {name: key.public for name, key in self.keys.items()}
        self.partners = {name: self.partner(name) for name in self.names}
        self.coordinator = CoordinatorSum(self.terms, self.public)
        self.sent: dict[str, dict[str, Any]] = {step: {} for step in self.STEPS}
        self.told: dict[str, Any] = {}
        rng = np.random.default_rng(n)
        half = 1 << (bits - 1)
        self.vectors = {name: rng.integers(-half // n, half // n, numbers) for name in self.names}

    def partner(self, name: str, **changed: Any) -> PartnerSum:
        """One of them, anew."""
        more = {"terms": self.terms, "peers": self.public, "identity": self.keys[name], **changed}
        return PartnerSum(name, entropy=more.pop("entropy", Stream(f"{self.seed} {name}")), **more)

    def ask(self, step: str, name: str, told: Any = None) -> Any:
        """One partner's answer to a step; what it is told is what everybody is, or something else."""
        partner = self.partners[name]
        told = told if told is not None or step == "advertise" else self.for_one(step, name)
        told = self.through(told)
        match step:
            case "advertise":
                answer: Any = partner.keys()
            case "share":
                answer = partner.shares(told)
            case "mask":
                partner.check_inbox(told)
                return partner.mask(self.vectors[name])
            case "confirm":
                answer = partner.confirm(told)
            case _:
                answer = partner.reveal(told)
        return self.through(answer)

    def through(self, message: Any) -> Any:
        """Over the wire."""
        return None if message is None else type(message).from_bytes(message.to_bytes())

    def for_one(self, step: str, name: str) -> Any:
        """What an honest coordinator tells."""
        match step:
            case "mask":
                return self.coordinator.inbox(name)
            case "confirm":
                return self.coordinator.survivors_for(name)
            case _:
                return self.told[step]

    def survivors(self, name: str, names: Iterable[str]) -> Survivors:
        """Any survivors, as a coordinator would tell one of them that has everybody's signatures of step 3."""
        told, signed = tuple(names), self.coordinator._masked
        return Survivors(survivors=told, signatures={n: signed[n] for n in told if n in signed and n != name})

    def words(self, name: str) -> NDArray[np.uint32]:
        """Of a masked vector, as it was sent."""
        return unpack(self.sent["mask"][name][64:], self.terms.numbers, self.terms.bits)

    def take(self, step: str, name: str, answer: Any) -> None:
        """To the coordinator."""
        self.sent[step][name] = answer
        take = ("take_keys", "take_shares", "take_masked", "take_confirmation", "take_revealed")
        getattr(self.coordinator, take[self.STEPS.index(step)])(name, answer)

    def close(self, step: str) -> None:
        """The step ends; what the next one tells is known."""
        place = self.STEPS.index(step)
        closes = ("close_keys", "close_shares", "close_masked", "close_confirmations")
        if place < len(closes):
            self.told[self.STEPS[place + 1]] = getattr(self.coordinator, closes[place])()

    def step(self, step: str, names: Iterable[str] | None = None) -> None:
        """Honestly, with all of the names."""
        for name in self.names if names is None else names:
            self.take(step, name, self.ask(step, name))
        self.close(step)

    def until(self, last: str) -> "Summing":
        """All steps before one, honestly, with everybody."""
        for step in self.STEPS[: self.STEPS.index(last)]:
            self.step(step)
        return self

    def run(self, lost: Mapping[str, str] | None = None) -> NDArray[np.int64]:
        """All steps, without those that are lost at theirs; the total."""
        left = list(self.names)
        for step in self.STEPS:
            left = [name for name in left if (lost or {}).get(name) != step]
            self.step(step, left)
        return self.coordinator.total()

    def plain(self, names: Iterable[str]) -> NDArray[np.int64]:
        """What the sum must be."""
        return sum((self.vectors[name] for name in names), np.zeros(self.terms.numbers, np.int64))


@pytest.fixture(scope="session")
def make_sum() -> type[Summing]:
    """Makes both sides of a sum."""
    return Summing


@pytest.fixture(scope="session")
def make_stream() -> type[Stream]:
    """Makes repeatable entropy."""
    return Stream
