"""What a text is about: the topic whose seed words lie nearest to it, in the sentence encoder's own space."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedrec.errors import ConfigError
from fedrec.model.sentences import Vectors, at_length_one

OTHER = "other"
# Made by hand for films; a partner gives its own.
FILM_TOPICS: Mapping[str, tuple[str, ...]] = {
    "acting": ("the acting and the performances", "the actor plays the role", "the cast"),
    "story": ("the plot and the story", "the script and the dialogue", "the ending"),
    "direction": ("the director and the direction", "the camera work and the editing", "the pace of the film"),
    "humour": ("it is a funny comedy", "the jokes and the laughs"),
    "effects and sound": ("the special effects and the action scenes", "the music and the soundtrack"),
}


@dataclass(frozen=True)
class Topics:
    """Topics by their prototypes. Public.

    Attributes:
        names: of the topics.
        prototypes: `[topics, width]` at length 1: means of the seed phrases' vectors.
        least: a text nearer than this cosine to none is about something else.
    """

    names: tuple[str, ...]
    prototypes: Vectors = field(repr=False)
    least: float = 0.2

    @classmethod
    def seeded(
        cls, seeds: Mapping[str, Sequence[str]], encode: Callable[[Sequence[str]], Vectors], least: float = 0.2
    ) -> "Topics":
        """From phrases for each topic. Raises ConfigError: a topic without a phrase, or named `other`."""
        empty = [name for name, phrases in seeds.items() if not phrases]
        if empty or not seeds or OTHER in seeds:
            raise ConfigError(f"topics need phrases each, and none is {OTHER!r}", "give some phrases for each topic")
        means = [encode(list(phrases)).mean(0) for phrases in seeds.values()]
        return cls(tuple(seeds), at_length_one(np.stack(means)), least)

    def of(self, vectors: Vectors) -> list[str]:
        """One topic a text; `other` where none is near."""
        nearness = vectors @ self.prototypes.T
        return [self.names[int(row.argmax())] if float(row.max()) >= self.least else OTHER for row in nearness]
