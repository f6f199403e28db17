"""The LLM's reading of histories, kept between requests: a new item costs one token, not a history.

A person's keys and values are kept as long as memory allows and the history only grows; then the last token's state is
as good as if all had been read anew. The rest is read whole, several people at a time.

Reference: Pope et al. 2022, "Efficiently Scaling Transformer Inference", arXiv:2211.05102, section 2 (key-value cache).
"""

import inspect
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.recommend.live_model import Floats, LiveModel

_GROW_BY = 32
_MAX_TOKENS = 3200
# So many new items are read after what is kept; of more, the history is read anew.
_MOST_NEW = 16
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Wanted:
    """A history to be read. Private.

    Attributes:
        key: of the person; None: is not kept.
        codes: int64 `[positions]`, oldest first, one at least.
    """

    key: Hashable
    codes: Codes = field(repr=False)


@dataclass
class _State:
    """Keys and values of a history, `[layers, 2, heads, space, width]`, and what they are of."""

    codes: Codes
    cache: Tensor

    @property
    def n_bytes(self) -> int:
        return self.cache.numel() * self.cache.element_size()


class HistoryReader:
    """Reads histories with one model. Used by one thread.

    Args:
        model: whose backbone may be any that takes a key-value cache.
        most_bytes: for keys and values of all people; who was asked for longest ago goes first.
        batch_users: in one pass.
    """

    def __init__(self, model: LiveModel, most_bytes: int, batch_users: int = 32) -> None:
        self._model, self._most_bytes, self._batch_users = model, most_bytes, batch_users
        self._states: OrderedDict[Hashable, _State] = OrderedDict()
        self._bytes = 0
        # Releases of transformers differ in what they call it.
        takes = inspect.signature(model.tokens.backbone.forward).parameters
        self._cache_word = "cache" if "cache" in takes else "past_key_values"
        self._prompt: Tensor | None = None
        self.n_extended = self.n_read = 0

    @property
    def n_kept(self) -> int:
        """People whose keys and values are kept."""
        return len(self._states)

    @property
    def n_bytes(self) -> int:
        """That they take."""
        return self._bytes

    def rebind(self, model: LiveModel) -> None:
        """Go on with another model whose `reading` is the same: what is kept stays good."""
        if model.reading != self._model.reading:
            raise ValueError("the models read differently")
        self._model = model

    def forget(self, key: Hashable) -> None:
        """Drop what is kept of a person."""
        if (state := self._states.pop(key, None)) is not None:
            self._bytes -= state.n_bytes

    @torch.no_grad()
    def read(self, wanted: Sequence[Wanted]) -> Floats:
        """The model's context after each history: `[wanted, context_dim]`."""
        contexts = np.zeros((len(wanted), self._model.context_dim), np.float32)
        longer: list[int] = []
        anew: list[int] = []
        for place, one in enumerate(wanted):
            match self._more(one):
                case 1:
                    longer.append(place)
                case more if 1 < more <= _MOST_NEW:
                    self._lengthen(one, contexts, place)
                case _:
                    anew.append(place)
        for places in _chunks(longer, self._batch_users):
            self._extend([wanted[p] for p in places], contexts, places)
        for places in _whole_histories(wanted, anew, self._batch_users):
            self._read_whole([wanted[p] for p in places], contexts, places)
        self._make_room()
        return contexts

    def keeps(self, key: Hashable) -> bool:
        """Whether keys and values of a person are kept; from any thread, as of a moment ago."""
        return key in self._states

    def grows(self, one: Wanted) -> bool:
        """Whether only a few items came after what is kept."""
        return 0 < self._more(one) <= _MOST_NEW

    def _more(self, one: Wanted) -> int:
        """How many items came after what is kept; 0 if it is of another history, or there is nothing."""
        state = self._states.get(one.key)
        if state is None or len(state.codes) > len(one.codes):
            return 0
        n = len(state.codes)
        return len(one.codes) - n if np.array_equal(state.codes, one.codes[:n]) else 0

    def _lengthen(self, one: Wanted, contexts: Floats, place: int) -> None:
        """Several tokens, of one person."""
        state = self._states[one.key]
        n = len(state.codes)
        positions = torch.arange(n, len(one.codes), device=state.cache.device)[None]
        tokens = self._model.item_tokens(one.codes[None, n:])
        hidden, layers = self._pass(tokens, state.cache[:, :, None, :, :n], positions, None)
        contexts[place] = self._model.tokens.context_of(hidden[0, -1]).float().cpu().numpy()
        self._append(one, state, torch.stack([kv[:, 0, :, n:] for kv in layers]))
        self.n_extended += 1

    def _extend(self, some: Sequence[Wanted], contexts: Floats, places: Sequence[int]) -> None:
        """One token each. Shorter caches are padded on the left; positions are told, so that padding moves nothing."""
        states = [self._states[one.key] for one in some]
        lengths = [len(state.codes) for state in states]
        longest = max(lengths)
        first = states[0].cache
        n_layers, _, heads, _, width = first.shape
        if len(some) == 1:
            past = first[:, :, None, :, :longest]
        else:
            past = first.new_zeros(n_layers, 2, len(some), heads, longest, width)
            for row, (state, n) in enumerate(zip(states, lengths, strict=True)):
                past[:, :, row, :, longest - n :] = state.cache[:, :, :, :n]
        mask = None
        if min(lengths) < longest:
            mask = torch.ones(len(some), longest + 1, dtype=torch.long, device=first.device)
            for row, n in enumerate(lengths):
                mask[row, : longest - n] = 0
        positions = torch.tensor(lengths, device=first.device)[:, None]
        tokens = self._model.item_tokens(np.array([one.codes[-1:] for one in some]))
        hidden, layers = self._pass(tokens, past, positions, mask)
        column = torch.stack([kv[..., -1:, :] for kv in layers])
        contexts[list(places)] = self._model.tokens.context_of(hidden[:, -1]).float().cpu().numpy()
        for row, (one, state) in enumerate(zip(some, states, strict=True)):
            self._append(one, state, column[:, :, row])
        self.n_extended += len(some)

    def _append(self, one: Wanted, state: _State, columns: Tensor) -> None:
        """Keys and values of the items that came, `[layers, 2, heads, new, width]`."""
        n, end, space = len(state.codes), len(one.codes), state.cache.shape[3]
        self._bytes -= state.n_bytes
        if end > space:
            layers, two, heads, _, width = state.cache.shape
            room = state.cache.new_zeros(layers, two, heads, max(_GROW_BY, end - space), width)
            state.cache = torch.cat([state.cache, room], 3)
        state.cache[:, :, :, n:end] = columns
        state.codes = one.codes.copy()
        self._bytes += state.n_bytes
        self._states.move_to_end(one.key)

    def _read_whole(self, some: Sequence[Wanted], contexts: Floats, places: Sequence[int]) -> None:
        """Padded on the right, which nothing before it sees in a causal model."""
        lengths = np.array([len(one.codes) for one in some])
        rows = np.zeros((len(some), int(lengths.max())), np.int64)
        for row, one in zip(rows, some, strict=True):
            row[: len(one.codes)] = one.codes
        hidden, layers = self._pass(self._model.item_tokens(rows), None, None, None)
        last = hidden[torch.arange(len(some)), torch.from_numpy(lengths - 1)]
        contexts[list(places)] = self._model.tokens.context_of(last).float().cpu().numpy()
        for user, one in enumerate(some):
            if one.key is not None:
                self._keep(one, [kv[:, user, :, : len(one.codes)] for kv in layers])
        self.n_read += len(some)

    def _keep(self, one: Wanted, layers: Sequence[Tensor]) -> None:
        self.forget(one.key)
        _, heads, n, width = layers[0].shape
        space = -(-(n + 1) // _GROW_BY) * _GROW_BY
        cache = layers[0].new_zeros(len(layers), 2, heads, space, width)
        for kept, kv in zip(cache, layers, strict=True):
            kept[:, :, :n] = kv
        state = self._states[one.key] = _State(one.codes.copy(), cache)
        self._bytes += state.n_bytes

    def _pass(
        self, tokens: Tensor, past: Tensor | None, positions: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The backbone's states, and each layer's keys and values, `[2, users, heads, positions, width]`.

        Trained prompt vectors come before everybody's history: what is kept and counted is of the histories alone.
        """
        prompt = self._keys_of_prompt()
        n, users = 0 if prompt is None else prompt.shape[4], len(tokens)
        if prompt is not None:
            before = prompt.expand(-1, -1, users, -1, -1, -1)
            past = before if past is None else torch.cat([before, past], 4)
            mask = None if mask is None else torch.cat([mask.new_ones(users, n), mask], 1)
            positions = None if positions is None else positions + n
        hidden, layers = self._forward(tokens, past, positions, mask)
        return hidden, [kv[..., n:, :] for kv in layers]

    def _keys_of_prompt(self) -> Tensor | None:
        """Keys and values of the prompt, `[layers, 2, 1, heads, rank, width]`, the same for everybody; None without."""
        tokens = self._model.tokens
        if self._prompt is None and (vectors := tokens.prompt_tokens(1)) is not None:
            vectors = vectors.to(next(tokens.backbone.parameters()).dtype)
            self._prompt = torch.stack(self._forward(vectors, None, None, None)[1])
        return self._prompt

    def _forward(
        self, tokens: Tensor, past: Tensor | None, positions: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache()
        if past is not None:
            for layer, (keys, values) in enumerate(past):
                cache.update(keys, values, layer)
        more = {self._cache_word: cache} | ({} if positions is None else {"position_ids": positions})
        out = self._model.tokens.backbone(inputs_embeds=tokens, use_cache=True, attention_mask=mask, **more)
        return out.last_hidden_state.float(), [torch.stack([kv.keys, kv.values]) for kv in cache.layers]

    def _make_room(self) -> None:
        while self._bytes > self._most_bytes and self._states:
            self.forget(next(iter(self._states)))


def _chunks(places: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(places), most):
        yield places[start : start + most]


def _whole_histories(wanted: Sequence[Wanted], places: Sequence[int], most: int) -> Iterator[list[int]]:
    """Of like length together, so that little is padded."""
    group: list[int] = []
    for place in sorted(places, key=lambda p: len(wanted[p].codes)):
        if group and (len(group) == most or (len(group) + 1) * len(wanted[place].codes) > _MAX_TOKENS):
            yield group
            group = []
        group.append(place)
    if group:
        yield group
