"""A tiny random Llama, a made catalogue and made users: enough to run every path in seconds."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch

from fedrec.data.catalog import ItemCatalog
from fedrec.model.backbone import Backbone, load_backbone
from fedrec.model.features import ItemFeatures, item_features
from fedrec.privacy.ledger import PrivacyLedger

WORDS = ["quiet", "loud", "space", "love", "war", "comedy", "drama", "music", "river", "night"]
N_ITEMS = 40


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
