"""The one mechanism that everything here is made of: the Poisson-sampled Gaussian, as plain public figures."""

import math
from typing import Any

Event = tuple[str, float, float, int]
"""part, sampling_prob, noise_multiplier, steps: so many runs of a Poisson-sampled Gaussian mechanism."""


def mechanism_problems(sampling_prob: Any, noise_multiplier: Any, steps: Any) -> list[str]:
    """What is wrong with the figures of a sampled Gaussian mechanism; one line each."""
    is_prob = is_positive(sampling_prob) and sampling_prob <= 1
    checks = [
        (is_prob, f"sampling_prob must be in (0, 1], is {sampling_prob!r}"),
        (is_positive(noise_multiplier), f"noise_multiplier must be finite and > 0, is {noise_multiplier!r}"),
        (is_count(steps), f"steps must be a whole number >= 1, is {steps!r}"),
    ]
    return [problem for holds, problem in checks if not holds]


def is_positive(value: object) -> bool:
    """A finite number above zero; no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def is_count(value: object) -> bool:
    """A whole number of at least one; no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
