"""Adapter versions that a service can serve: named, made ready when they are wanted."""

from collections.abc import Sequence
from typing import Protocol

from fedrec.recommend.live_model import LiveModel


class Versions(Protocol):
    """Where versions come from: a run's registry, or what a node holds."""

    def names(self) -> Sequence[str]:
        """Oldest first; may block."""

    def load(self, name: str) -> LiveModel:
        """Ready to serve; slow. Raises NotFoundError: no such version."""
