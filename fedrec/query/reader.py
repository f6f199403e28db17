"""Reads a request in words: the shared LLM under a LoRA adapter of its own, and what it weighs in an item.

The text's tokens go through the same first layers that read histories; where a title stands, the item's token does.
What is read becomes a weight for every category and year, so an answer can say what was understood.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.model.features import TextReader

Pieces = tuple[str | int, ...]
# A title in the sentence that the sentence encoder reads: its words would drown the others.
_SOMETHING = "it"
_MAX_TOKENS = 64
# Shorter ones are mostly pieces of words.
_LEAST_LETTERS, _FEWEST_WORDS = 4, 1000


@dataclass(frozen=True)
class ReaderShape:
    """Sizes; public.

    Attributes:
        rank: of LoRA.
        hidden: of the head's one hidden layer.
        width: of what comes out, the attribute space's.
        dropout: in the head.
        noise: on the readout in training, so that words near those that were learnt mean much the same.
    """

    rank: int
    hidden: int
    width: int
    dropout: float = 0.2
    noise: float = 0.3


class QueryReader(nn.Module):
    """Text to weights, `[requests, width]`.

    Args:
        llm: tokenizer and first layers with token embedding, frozen; LoRA is put on them.
        sentences: the sentence encoder, frozen; None without one.
        item_texts: the catalogue's, by code: a named item is the mean of its text's word embeddings.
    """

    def __init__(self, llm: TextReader, sentences: TextReader | None, item_texts: Sequence[str], shape: ReaderShape):
        super().__init__()
        self.shape = shape
        self._tokenizer, self._texts = llm.tokenizer, item_texts
        # In tuples, so that they are no submodules: they are frozen, and not part of what is saved.
        self._sentences, self._words = (sentences,), (llm.module.get_input_embeddings(),)  # type: ignore[operator]
        config = LoraConfig(r=shape.rank, lora_alpha=2 * shape.rank, target_modules="all-linear")
        with warnings.catch_warnings():  # PEFT asks transformers by a name that it is about to drop
            warnings.simplefilter("ignore", FutureWarning)
            self.lm: PeftModel = get_peft_model(llm.module, config)
        hidden = _width(llm)
        readout = 2 * hidden + (_width(sentences) if sentences else 0)
        self.centre = nn.Parameter(torch.zeros(readout), requires_grad=False)
        self.line = nn.Linear(readout, shape.width)
        self.deep = nn.Sequential(nn.Linear(readout, shape.hidden), nn.GELU(), nn.Dropout(shape.dropout))
        self.out = nn.Linear(shape.hidden, shape.width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, requests: Sequence[Pieces]) -> Tensor:
        """float32 `[requests, width]`."""
        return self.weigh(self.read(requests))

    def read(self, requests: Sequence[Pieces], histories: Sequence[Sequence[int]] | None = None) -> Tensor:
        """What the encoders make of requests: the LLM's state after the end, its mean, the sentence: `[requests, ...]`.

        Args:
            requests: one at least.
            histories: items that the LLM reads behind each request's words, if any.
        """
        pieces = requests if histories is None else [(*r, *h) for r, h in zip(requests, histories, strict=True)]
        parts = [self._read_llm(pieces)]
        (sentences,) = self._sentences
        if sentences is not None:
            parts.append(_sentence_vectors(sentences, [_spoken(pieces) for pieces in requests]))
        return torch.cat(parts, -1)

    def weigh(self, readout: Tensor) -> Tensor:
        """The head: what was read to `[requests, width]`."""
        inputs = readout - self.centre
        if self.training and self.shape.noise:
            inputs = inputs + self.shape.noise * torch.randn_like(inputs)
        return self.line(inputs) + self.out(self.deep(inputs))  # type: ignore[no-any-return]

    @property
    def block_widths(self) -> tuple[int, ...]:
        """How many numbers of a reading each encoder gave: the LLM's end and mean, the sentence encoder's."""
        (sentences,) = self._sentences
        hidden = int(self.lm.config.hidden_size)
        return (hidden, hidden, *((_width(sentences),) if sentences is not None else ()))

    def common_words(self, most: int) -> list[str]:
        """Words of the tokenizer, the commonest first; of the catalogue's texts where it has hardly any. Public.

        A tokenizer is made from common pieces first, so that a small number is a common one. Where it marks the pieces
        that begin a word, the others are no words.
        """
        pieces = [self._tokenizer.decode([code]) for code in range(len(self._tokenizer))]
        begun = [piece.strip() for piece in pieces if piece.startswith(" ")] or pieces
        words = [word for word in begun if len(word) >= _LEAST_LETTERS and word.isalpha() and word.islower()]
        if len(words) < _FEWEST_WORDS:
            words += [word for text in self._texts for word in text.split()]
        return list(dict.fromkeys(words))[:most]

    def _read_llm(self, requests: Sequence[Pieces]) -> Tensor:
        with torch.no_grad():
            rows = [self._tokens(pieces) for pieces in requests]
        lengths = torch.tensor([len(row) for row in rows])
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        states = self.lm(inputs_embeds=tokens, use_cache=False).last_hidden_state
        states = F.layer_norm(states, states.shape[-1:])
        kept = (torch.arange(tokens.shape[1])[None] < lengths[:, None])[..., None]
        mean = (states * kept).sum(1) / lengths[:, None]
        return torch.cat([states[torch.arange(len(rows)), lengths - 1], mean], -1)

    def _tokens(self, pieces: Pieces) -> Tensor:
        """A request as tokens `[tokens, hidden]`, with one for its end, where all of it has been read."""
        rows = [self._embedded(p) if isinstance(p, str) else self._item_token(p) for p in pieces]
        end = self._words[0](torch.tensor([self._tokenizer.eos_token_id]))
        return torch.cat([torch.cat(rows)[: _MAX_TOKENS - 1], end]) if rows else end

    def _embedded(self, text: str) -> Tensor:
        codes = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._words[0](torch.tensor(codes, dtype=torch.long))  # type: ignore[no-any-return]

    def _item_token(self, item: int) -> Tensor:
        return self._embedded(self._texts[item]).mean(0, keepdim=True)


def _width(reader: TextReader) -> int:
    return int(reader.module.config.hidden_size)  # type: ignore[union-attr,arg-type]  # a PreTrainedModel


def _spoken(pieces: Pieces) -> str:
    return "".join(piece if isinstance(piece, str) else _SOMETHING for piece in pieces)


def _sentence_vectors(reader: TextReader, texts: Sequence[str]) -> Tensor:
    """float32 `[texts, hidden]`, of one length, with a mean square of 1."""
    tokens = reader.tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True, max_length=_MAX_TOKENS)
    kept = tokens["attention_mask"][..., None].float()
    with torch.no_grad():
        states = reader.module(**tokens).last_hidden_state
    mean = (states * kept).sum(1) / kept.sum(1)
    scale: float = mean.shape[-1] ** 0.5
    return F.normalize(mean, dim=-1) * scale


def trained_parameters(reader: QueryReader) -> dict[str, nn.Parameter]:
    """All that training moves, and `centre`: what is saved, by name."""
    return {name: p for name, p in reader.named_parameters() if p.requires_grad or name == "centre"}
