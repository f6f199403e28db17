"""The frozen language model: its first layers read item tokens. Any Hugging Face causal LM by name or folder."""

import fcntl
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from fedrec.errors import ModelError, StorageError
from fedrec.files import storage_errors

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
DtypeName = Literal["auto", "float32", "bfloat16"]
# Weight files by preference; a GGUF file is converted once to safetensors.
_WEIGHT_PATTERNS = ("*.safetensors", "*.gguf")


@dataclass(frozen=True)
class Backbone:
    """The first layers of a causal LM, frozen, without its token embedding.

    Attributes:
        module: reads `inputs_embeds` `[users, positions, hidden]`, gives `last_hidden_state` of the same shape.
        hidden_size: width of a token.
        name, hash: what the adapter belongs to; public.
    """

    module: nn.Module
    hidden_size: int
    n_layers: int
    name: str
    hash: str


def pick_device(wanted: DeviceName) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises ModelError for a device that this machine lacks.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, here in there.items() if here))
    if not there[wanted]:
        raise ModelError(f"device {wanted!r} is not on this machine", "set model.device to auto or cpu")
    return torch.device(wanted)


def pick_dtype(wanted: DtypeName, device: torch.device) -> torch.dtype:
    """The dtype of the frozen weights; `auto` measures, as bf16 is far faster on some CPUs, far slower on others."""
    if wanted != "auto":
        return torch.float32 if wanted == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "mps":
        return torch.float32
    slow, fast = (_matmul_seconds(dtype) for dtype in (torch.float32, torch.bfloat16))
    return torch.bfloat16 if fast < 0.7 * slow else torch.float32


def _matmul_seconds(dtype: torch.dtype) -> float:
    left, right = torch.ones(256, 576, dtype=dtype), torch.ones(576, 576, dtype=dtype)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return min(times)


def load_backbone(folder: Path, n_layers: int, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Load the first `n_layers` of the causal LM in `folder`, frozen.

    Raises: ModelError: no model there, not a causal LM, or fewer layers than asked for.
    """
    config = _read_config(folder)
    depth = int(config.num_hidden_layers)
    if not 1 <= n_layers <= depth:
        raise ModelError(f"model.layers = {n_layers}, but {folder.name} has {depth} layers", f"take 1 to {depth}")
    config.num_hidden_layers = n_layers
    _turn_off_dropout(config)
    module = _load_module(folder, config, dtype)
    module.requires_grad_(False)
    _drop_token_embedding(module)
    _refuse_unless_causal(module, folder, int(config.hidden_size), dtype)
    return Backbone(module.to(device), int(config.hidden_size), n_layers, folder.name, folder_hash(folder))


def _turn_off_dropout(config: Any) -> None:
    """The adapter has its own dropout. The frozen model's would make a repeated private round another answer."""
    for name, value in config.to_dict().items():
        if isinstance(value, float) and ("dropout" in name or name.endswith(("pdrop", "layerdrop"))):
            setattr(config, name, 0.0)


def _refuse_unless_causal(module: nn.Module, folder: Path, hidden_size: int, dtype: torch.dtype) -> None:
    """By trial: a change of the last token must not reach the first. Encoders would read what they are to guess."""
    tokens = torch.randn(1, 3, hidden_size, generator=torch.Generator().manual_seed(0)).to(dtype)
    changed = torch.cat([tokens[:, :2], -10 * tokens[:, 2:]], dim=1)
    try:
        with torch.no_grad():
            first, other = (module(inputs_embeds=read).last_hidden_state[:, 0].float() for read in (tokens, changed))
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
        why = type(error).__name__
        raise ModelError(f"{folder}: does not read item tokens ({why})", "name the folder of a causal LM") from error
    if float((first - other).abs().max()) > 1e-4 * float(first.abs().max()):
        raise ModelError(f"{folder}: not a causal LM: it reads what comes later", "see `fedrec model list`")


def load_reader(folder: Path, n_layers: int) -> tuple[Any, nn.Module]:
    """Tokenizer and first layers with token embedding, fp32 on the CPU: what reads the catalogue's texts."""
    from transformers import AutoTokenizer

    config = _read_config(folder)
    config.num_hidden_layers = min(n_layers, int(config.num_hidden_layers))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: its tokenizer cannot be loaded ({type(error).__name__})") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, _load_module(folder, config, torch.float32).requires_grad_(False)


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json", "name a Hugging Face model folder or run `fedrec model fetch`")
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"{folder}: not a model that transformers knows ({type(error).__name__})") from error
    if not hasattr(config, "num_hidden_layers") or not hasattr(config, "hidden_size"):
        raise ModelError(f"{folder}: model type {config.model_type!r} has no layers to read item tokens with")
    return config


def _load_module(folder: Path, config: Any, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModel

    try:
        with _quiet_transformers():
            module: nn.Module = AutoModel.from_pretrained(folder, config=config, dtype=dtype)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder}: weights cannot be loaded ({type(error).__name__})") from error
    return module.eval()


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Leaving out the upper layers is the point here, and transformers would print each of them as a surprise."""
    from transformers.utils import logging

    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


def _drop_token_embedding(module: nn.Module) -> None:
    """Item tokens come from the adapter; the vocabulary (a third of a small model) would only take memory."""
    # In the others' dtype: it is the first parameter, which is asked for the model's.
    stub = nn.Embedding(1, 1, dtype=module.dtype)
    module.set_input_embeddings(stub)  # type: ignore[operator]  # a PreTrainedModel method
    module.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of configuration and weights: the model's identity."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def convert_gguf(gguf: Path, target: Path) -> Path:
    """Convert a GGUF file once to a bf16 safetensors folder, atomically. Reuses `target` if it is there.

    The model is built anew from configuration and state, because a model loaded from GGUF refuses to be saved.
    """
    if (target / "config.json").is_file():  # a cache that is only read needs no lock
        return target
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        held = target.with_name(f".{target.name}.lock").open("w")
    # One process at a time; the others wait and take what it has made.
    with held as lock, _quiet_transformers():
        fcntl.flock(lock, fcntl.LOCK_EX)
        return target if (target / "config.json").is_file() else _convert(gguf, target)


def _convert(gguf: Path, target: Path) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    clean = {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    plain = AutoModelForCausalLM.from_config(type(loaded.config)(**clean))
    plain.load_state_dict(loaded.state_dict())
    with storage_errors(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder:
        made = Path(folder) / "model"
        try:
            plain.to(torch.bfloat16).save_pretrained(made)
        except SafetensorError as error:
            raise StorageError(f"{target}: cannot be written ({error})", "free space, or set FEDREC_CACHE") from error
        tokenizer.save_pretrained(made)
        _normalise_config(made / "config.json")
        shutil.move(made, target)
    return target


def _normalise_config(path: Path) -> None:
    """Drop what the conversion left behind that names this machine or the quantised file."""
    config = json.loads(path.read_text())
    for key in ("_name_or_path", "quantization_config"):
        config.pop(key, None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
