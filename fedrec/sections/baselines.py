"""`[baselines]`: settings of rows that others invented."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from fedrec.sections.section import Count, Rate, Section


class SASRecConfig(Section):
    """`[baselines.sasrec]`: as `fedrec tune sasrec` chose them (tuned/sasrec.json)."""

    max_history: Annotated[int, Field(ge=2, le=2000)] = 200
    hidden: Annotated[int, Field(ge=1, le=1024)] = 96
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    heads: Annotated[int, Field(ge=1, le=64)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    learning_rate: Rate = 2e-3
    batch_users: Count = 32
    epochs: Count = 80
    every: Count = 5
    patience: Count = 3

    @model_validator(mode="after")
    def _heads_share_the_states(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is no multiple of heads {self.heads}")
        return self


class FedMFConfig(Section):
    """`[baselines.fedmf]`: as `fedrec tune fedmf` chose them (tuned/fedmf.json); an epoch is a round."""

    factors: Annotated[int, Field(ge=1, le=1024)] = 32
    learning_rate: Rate = 1.0
    item_learning_rate: Rate = 3.0
    l2: Annotated[float, Field(ge=0, le=100)] = 0.003
    negatives: Annotated[int, Field(ge=1, le=1000)] = 4
    local_steps: Count = 1
    epochs: Count = 400
    every: Count = 10
    patience: Count = 5


class PFedRecConfig(Section):
    """`[baselines.pfedrec]`: as `fedrec tune pfedrec` chose them (tuned/pfedrec.json); an epoch is a round."""

    factors: Annotated[int, Field(ge=1, le=1024)] = 64
    learning_rate: Rate = 0.1
    item_learning_rate: Annotated[float, Field(gt=0, le=1e6)] = 1e4
    negatives: Annotated[int, Field(ge=1, le=1000)] = 4
    local_steps: Count = 5
    epochs: Count = 400
    every: Count = 10
    patience: Count = 5


class BaselinesConfig(Section):
    """`[baselines]`: rows that others invented. Cheaper ones are tuned anew for each seed, by grids in their code."""

    sasrec: SASRecConfig = SASRecConfig()
    fedmf: FedMFConfig = FedMFConfig()
    pfedrec: PFedRecConfig = PFedRecConfig()
