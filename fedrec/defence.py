"""Which aggregator a coordinator uses, how many answers it needs to bear hostile partners, and what is tried on it."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from fedrec.toml import Section

AggregatorName = Literal["mean", "median", "trimmed-mean", "geometric-median", "multi-krum", "norm-clipping"]

AttackName = Literal[
    "none",
    "boosted",
    "sign-flip",
    "gaussian",
    "free-rider",
    "label-flip",
    "alie",
    "inner-product",
    "promotion",
    "sybil",
]
Strength = Annotated[float, Field(gt=0, le=1e6)]


class Defence(Section):
    """The keys of `[rounds]` that choose an aggregator, in a simulation and for a coordinator alike.

    Attributes:
        hostile: partners of a round that may send anything at all; the mean bears none.
        clip_norm: of norm-clipping; 0 takes the median of the norms of each round's answers.
    """

    aggregator: AggregatorName = "mean"
    hostile: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(ge=0)] = 0.0

    def problems(self, quorum: int, *, secagg: bool) -> list[str]:
        """All that does not fit together, in words with the remedy.

        Args:
            quorum: good answers that a round needs; the fewest that are ever aggregated.
            secagg: whether masks hide all but the sum.
        """
        name, found = self.aggregator, []
        if name == "mean" and self.hostile:
            found.append(f"rounds.hostile is {self.hostile}, the mean bears none: choose another rounds.aggregator")
        if name not in ("mean", "norm-clipping") and not self.hostile:
            found.append(f"rounds.hostile must say how many hostile partners {name} is to bear, 1 or more")
        if name != "norm-clipping" and self.clip_norm:
            found.append(f'rounds.clip_norm says nothing to {name}: leave it 0, or choose "norm-clipping"')
        if name != "mean" and secagg:
            found.append(f"secagg mode allows the mean only, not {name}: choose it, or inspect mode")
        if quorum < (least := least_answers(name, self.hostile)):
            bound = "2 * hostile + 3" if name == "multi-krum" else "2 * hostile + 1"
            found.append(
                f"{name} with {self.hostile} hostile needs {bound} = {least} answers, the quorum is {quorum}: "
                "raise the quorum, or assume fewer hostile"
            )
        return found


def least_answers(aggregator: AggregatorName, hostile: int) -> int:
    """Answers below which what an aggregator promises does not hold: honest ones must outvote the hostile.

    >>> least_answers("median", 2), least_answers("multi-krum", 2), least_answers("mean", 0)
    (5, 7, 1)
    """
    match aggregator:
        case "mean":
            return 1
        case "multi-krum":
            return 2 * hostile + 3
        case "median" | "trimmed-mean" | "geometric-median" | "norm-clipping":
            return 2 * hostile + 1


class AttackStrengths(Section):
    """`[attack.strength]`: how much of each.

    Attributes:
        boosted, promotion: factor on what is sent.
        sign_flip, inner_product: factor on what is turned round.
        gaussian: length of the noise, in lengths of an honest answer.
        alie: standard deviations from the honest mean.
    """

    boosted: Strength = 10.0
    sign_flip: Strength = 5.0
    gaussian: Strength = 10.0
    alie: Strength = 1.0
    inner_product: Strength = 5.0
    promotion: Strength = 10.0


class AttackConfig(Section):
    """`[attack]`: what `fedrec robustness` tries on which aggregators.

    Attributes:
        attacks: "none" is always tried first, since the others are compared with it.
        hostile: how many partners are hostile; the aggregators are told so.
        promoted: title of the item that some attacks push.
    """

    attacks: tuple[AttackName, ...] = get_args(AttackName)
    defences: Annotated[tuple[AggregatorName, ...], Field(min_length=1)] = get_args(AggregatorName)
    hostile: Annotated[int, Field(ge=1)] = 2
    promoted: Annotated[str, Field(min_length=1)] = "Mr. Wrong (1996)"
    strength: AttackStrengths = AttackStrengths()
