"""SASRec with full cross-entropy: the sequential recommender that ours must beat in the same run.

Kang and McAuley 2018, arXiv:1808.09781. The loss is the softmax over the whole catalogue instead of one sampled
negative, which lets it reach or beat BERT4Rec: Klenitskiy and Vasilev 2023, arXiv:2309.07602.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.errors import DataError
from fedrec.evaluation.protocol import Items, Scores

IGNORED = -100
BETAS = (0.9, 0.98)  # of Adam, as published


class Settings(Protocol):
    """Sizes and rates; `SASRecConfig` is one."""

    @property
    def max_history(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def batch_users(self) -> int: ...


class Dropout(nn.Module):
    """Zero a share of the numbers, in steps of 1/256, with bytes of a generator of its own.

    Four times faster on a CPU than torch's, which took a fifth of a step, and the global generator is left alone.
    """

    def __init__(self, share: float, random: np.random.Generator) -> None:
        super().__init__()
        self._dropped, self._random = round(256 * share), random

    def forward(self, states: Tensor) -> Tensor:
        """The same in evaluation; in training the rest is scaled up, so that the mean stays."""
        if not self.training or self._dropped == 0:
            return states
        words = self._random.integers(0, 2**64, -(-states.numel() // 8), dtype=np.uint64)
        drawn = torch.from_numpy(words.view(np.uint8)[: states.numel()]).view(states.shape)
        kept = torch.ge(drawn, self._dropped)
        scaled: Tensor = states * (kept * (256 / (256 - self._dropped)))
        return scaled


class Block(nn.Module):
    """Self-attention over earlier items, then a two-layer network at each position; norms come first."""

    def __init__(self, hidden: int, heads: int, dropout: Dropout) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm, self.network_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query_key_value, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.network = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), dropout, nn.Linear(hidden, hidden))

    def forward(self, states: Tensor, hidden_from: Tensor) -> Tensor:
        """Args: states `[users, positions, hidden]`; hidden_from bool `[users, 1, query, key]`, true: not seen."""
        users, positions, hidden = states.shape
        parts = self.query_key_value(self.attention_norm(states))
        query, key, value = parts.view(users, positions, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(2, 3) * (hidden // self.heads) ** -0.5  # [users, heads, query, key]
        weights = self.dropout(scores.masked_fill(hidden_from, float("-inf")).softmax(dim=3))
        seen = (weights @ value).transpose(1, 2).reshape(users, positions, hidden)
        states = states + self.dropout(self.out(seen))
        return torch.add(states, self.dropout(self.network(self.network_norm(states))))


class Network(nn.Module):
    """Item and position vectors, blocks, and scores by the same item vectors."""

    def __init__(self, n_items: int, settings: Settings, random: np.random.Generator) -> None:
        super().__init__()
        hidden = settings.hidden
        self.items = nn.Embedding(n_items + 1, hidden, padding_idx=n_items)
        self.positions = nn.Embedding(settings.max_history, hidden)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=hidden**-0.5 / 4)
        self.dropout = Dropout(settings.dropout, random)
        self.blocks = nn.ModuleList(Block(hidden, settings.heads, self.dropout) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, items: Tensor) -> Tensor:
        """States `[users, positions, hidden]` of left-padded int64 item codes `[users, positions]`."""
        length = items.shape[1]
        padding = torch.eq(items, self.items.num_embeddings - 1)
        steps = torch.arange(length)
        later = steps[None, :] > steps[:, None]
        # A padded position sees itself, so that its softmax is one of something.
        hidden_from = (later | padding[:, None, :]) & (steps[None, :] != steps[:, None])
        # The last position is the latest item's, however long the history.
        states = self.items(items) * self.items.embedding_dim**0.5 + self.positions.weight[-length:]
        states = self.dropout(states).masked_fill(padding[:, :, None], 0.0)
        for block in self.blocks:
            states = block(states, hidden_from[:, None])
        normed: Tensor = self.norm(states)
        return normed

    def scores(self, states: Tensor) -> Tensor:
        """Scores of every item, `[..., items]`."""
        return states @ self.items.weight[:-1].T


class SASRec:
    """The recommender and its training, an epoch at a time.

    Args:
        histories: int32 training items of each user, oldest first; private.
        n_items: size of the catalogue.
        settings: sizes and rates, public.
        seed: of weights, order and dropout; torch's global generator is left as it was.
    Raises: DataError: an item code outside the catalogue.
    """

    def __init__(self, histories: Sequence[Items], n_items: int, settings: Settings, seed: int) -> None:
        self._n_items, self._settings = n_items, settings
        self._histories = [_checked(history, n_items) for history in histories if len(history) > 1]
        self._order, dropped = (np.random.default_rng([seed, purpose]) for purpose in range(2))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = Network(n_items, settings, dropped)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate, betas=BETAS)

    def train_epoch(self) -> None:
        """Predict each next item of each user's latest once."""
        self.network.train()
        for users in self._batches():
            self._step([self._histories[user] for user in users])

    def _batches(self) -> list[np.ndarray]:
        """Users in random order; those of four batches are shared out by length, for less padding."""
        size = self._settings.batch_users
        order = self._order.permutation(len(self._histories))
        batches = []
        for start in range(0, len(order), 4 * size):
            group = sorted(order[start : start + 4 * size], key=lambda user: len(self._histories[user]))
            batches += [np.array(group[first : first + size]) for first in range(0, len(group), size)]
        return [batches[place] for place in self._order.permutation(len(batches))]

    def _step(self, histories: Sequence[Tensor]) -> None:
        inputs = self._pad([history[:-1] for history in histories], self._n_items)
        targets = self._pad([history[1:] for history in histories], IGNORED)
        wanted = targets != IGNORED
        scores = self.network.scores(self.network(inputs)[wanted])  # [targets, items]
        loss = F.cross_entropy(scores, targets[wanted])
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _pad(self, histories: Sequence[Tensor], padding: int) -> Tensor:
        """The latest items, int64 `[users, positions]`, the last position the latest."""
        rows = [history[-self._settings.max_history :] for history in histories]
        padded = torch.full((len(rows), max(1, *(len(row) for row in rows))), padding)
        for place, row in zip(padded, rows, strict=True):
            place[len(place) - len(row) :] = row
        return padded

    def score(self, histories: Sequence[Items]) -> Scores:
        """Logits of the next item: float32 `[users, items]`; a newcomer's are those of an empty history."""
        if not histories:
            return np.zeros((0, self._n_items), np.float32)
        self.network.eval()
        items = self._pad([_checked(history, self._n_items) for history in histories], self._n_items)
        with torch.no_grad():
            scores: Scores = self.network.scores(self.network(items)[:, -1]).numpy()
        return scores

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the weights."""
        return {name: weight.detach().clone() for name, weight in self.network.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take weights back; the optimiser's moments stay where they were."""
        self.network.load_state_dict(state)


def _checked(history: Items, n_items: int) -> Tensor:
    codes = torch.from_numpy(np.asarray(history, dtype=np.int64))
    if len(codes) and (int(codes.min()) < 0 or int(codes.max()) >= n_items):
        raise DataError(f"an item code lies outside the catalogue of {n_items} items", "use one catalogue")
    return codes
