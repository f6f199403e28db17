"""What hostile partners send in place of an honest answer, made from answers alone."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec.defence import AttackName, AttackStrengths
from fedrec.model.adapter import AdapterDelta

Row = NDArray[np.float64]
FROM_OWN: tuple[AttackName, ...] = ("boosted", "sign-flip", "gaussian")
FROM_ALL: tuple[AttackName, ...] = ("alie", "inner-product", "free-rider")


def forge(
    attack: AttackName,
    own: AdapterDelta,
    honest: Sequence[AdapterDelta],
    strength: AttackStrengths,
    rng: np.random.Generator,
) -> AdapterDelta:
    """A hostile answer that needs no training of its own.

    Args:
        own: what this partner would send if it were honest, or any answer of its shapes for attacks `FROM_ALL`.
        honest: what the honest partners send in this round; read by attacks `FROM_ALL` alone.
    Raises: ValueError: an attack that trains on poisoned histories, or none.
    Reference: ALIE: Baruch et al. 2019, arXiv:1902.06156, Algorithm 3, with z given. Inner-product manipulation: Xie
        et al. 2019, arXiv:1903.03936, section 4.
    """
    match attack:
        case "boosted":
            return own.scaled(strength.boosted)
        case "sign-flip":
            return own.scaled(-strength.sign_flip)
        case "gaussian":
            return noise_like(own, strength.gaussian * own.l2_norm, rng)
        case "free-rider":
            return noise_like(own, median_norm(honest), rng)
        case "alie":
            return _by_tensor(honest, lambda rows: rows.mean(0) - strength.alie * rows.std(0))
        case "inner-product":
            return _by_tensor(honest, lambda rows: -strength.inner_product * rows.mean(0))
        case _:
            raise ValueError(f"{attack} is not made from answers")


def noise_like(pattern: AdapterDelta, norm: float, rng: np.random.Generator) -> AdapterDelta:
    """Gaussian noise with a pattern's shapes, of exactly this L2 norm."""
    drawn = {name: rng.standard_normal(tensor.shape) for name, tensor in pattern.tensors.items()}
    whole = np.sqrt(sum(float(np.square(tensor).sum()) for tensor in drawn.values()))
    return AdapterDelta({name: (norm / whole * tensor).astype(np.float32) for name, tensor in drawn.items()})


def median_norm(answers: Sequence[AdapterDelta]) -> float:
    """Of some answers; what the privacy plan tells everybody of honest ones within a percent or so."""
    return float(np.median([answer.l2_norm for answer in answers]))


def _by_tensor(answers: Sequence[AdapterDelta], combine: Callable[[Row], Row]) -> AdapterDelta:
    """Over all answers, number by number: `[answers, ...]` -> `[...]` in float64."""
    stacked = {name: np.stack([one.tensors[name] for one in answers]).astype(np.float64) for name in answers[0].tensors}
    return AdapterDelta({name: np.asarray(combine(rows), np.float32) for name, rows in stacked.items()})
