"""What a federation asks of its partners, signed by the coordinator: model or task, catalogue, privacy plan. Public.

A partner holds every round against the terms that it agreed to, and the terms against its own `client.toml`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedrec.config import ModelConfig, ShapeConfig
from fedrec.errors import PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterSpec
from fedrec.privacy.plan import PrivacyPlan

FORMAT = 1
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_LATER = {"config": ("modalities", "image_encoder"), "shape": ("gate_dim", "modality_masking", "method")}
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
TaskName = Literal["click", "rating"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelTerms(_Part):
    """The frozen model and what is trained on it.

    Attributes:
        config: which backbone, encoders and public data, by name; device, dtype and threads are each partner's own.
        backbone_hash, catalog_hash, feature_hash: what those names must lead to. Features of other hardware may
            differ in last bits, so that their hash is that of what they are made from.
        shape: of the adapter.
    """

    config: ModelConfig
    backbone_hash: Sha256
    catalog_hash: Sha256
    feature_hash: Sha256
    shape: ShapeConfig


class WorkTerms(_Part):
    """How a partner trains where the plan of a round does not say it.

    Attributes:
        max_history: a user's latest items that are read.
        weight_decay, batch_users: without privacy.
    """

    max_history: Annotated[int, Field(ge=2, le=2000)]
    weight_decay: Annotated[float, Field(ge=0)]
    batch_users: Annotated[int, Field(ge=1, le=4096)]


class ItemTerms(_Part):
    """What is asked about each item before a head is trained, and how the answer is read: as `ItemPart`."""

    n_users: Annotated[int, Field(ge=1)]
    spread: Annotated[float, Field(gt=0)]
    row_weight: Annotated[float, Field(gt=0)]
    clip: Annotated[float, Field(gt=0)]
    noise_std: Annotated[float, Field(ge=0)]


class HeadTerms(_Part):
    """A task whose head is trained in place of the recommender's adapter, from rows with ratings.

    Attributes:
        task: what is asked of a user and an item: how many stars, or whether it is liked (4 stars or more).
        low, high: of the ratings in a partner's rows.
        inputs: name of the recipe that makes the head's inputs of the model's item features, of the published ratings
            that `model.config.public_data` names, and of a user's own rows, beside these.
        inputs_hash: identity of that recipe, of catalogue and features, and of the published ratings.
        width: numbers of an input.
        start: of the head: what published ratings say, or the same of every item.
        items: None where nothing is asked about items.
    """

    task: TaskName
    low: float
    high: float
    inputs: Annotated[str, Field(pattern=r"^[a-z0-9/-]{1,64}$")]
    inputs_hash: Sha256
    width: Annotated[int, Field(ge=1, le=4096)]
    start: Literal["public", "nothing"]
    items: ItemTerms | None


class FederationTerms(_Part):
    """All of it.

    Attributes:
        name: of the federation.
        mode: of every round.
        privacy_plan: `PrivacyPlan.to_dict()`, or None in mode `none`.
        parts: tensor -> shape, by part of the adapter: what an answer of that part holds.
        initial_hash: of the adapter of round 0.
        seed: of what may be random without privacy; never of noise.
        range_users: in mode `secagg`, and there alone: as in `IntegerCode.of`.
        task: of a federation that trains a task's head; None: the recommender's adapter, whose `model.shape` is.
    """

    format: Literal[1]
    name: Name
    mode: Literal["none", "inspect", "secagg"]
    privacy_plan: dict[str, Any] | None
    model: ModelTerms
    work: WorkTerms
    parts: dict[str, dict[str, tuple[int, ...]]]
    initial_hash: Sha256
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    range_users: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    task: HeadTerms | None = None

    @model_validator(mode="after")
    def _plan_fits_mode(self) -> Self:
        if (self.privacy_plan is None) != (self.mode == "none"):
            raise ValueError("privacy_plan must be there exactly if a mode other than none is")
        if (self.range_users is None) == (self.mode == "secagg"):
            raise ValueError("range_users must be there exactly if the mode is secagg")
        if self.privacy_plan is not None:
            try:
                plan = PrivacyPlan.from_dict(self.privacy_plan)
            except PrivacyError as error:
                raise ValueError(f"privacy_plan: {error.problem}") from error
            if plan.mode != self.mode:
                raise ValueError(f"privacy_plan is for mode {plan.mode}, the terms say {self.mode}")
        return self

    @model_validator(mode="after")
    def _task_is_whole(self) -> Self:
        if (task := self.task) is None:
            return self
        wanted = {"task"} if task.items is None else {"task", "items"}
        if self.parts.keys() != wanted:
            raise ValueError(f"parts of a task's head must be {', '.join(sorted(wanted))}")
        if not task.low < task.high:
            raise ValueError("task.low must be below task.high")
        if self.model.config.public_data == "none":
            raise ValueError("model.config.public_data must name the published ratings that a head's inputs start from")
        return self

    @property
    def plan(self) -> PrivacyPlan | None:
        """The privacy plan as noise and ledger read it."""
        return None if self.privacy_plan is None else PrivacyPlan.from_dict(self.privacy_plan)

    @property
    def plan_hash(self) -> str:
        """As rounds name it."""
        return plan.hash if (plan := self.plan) else "none"

    @property
    def spec(self) -> AdapterSpec:
        """What answers are checked against."""
        model = self.model
        if self.task is not None:
            of_inputs = (model.backbone_hash, model.catalog_hash, self.task.inputs_hash)
            return AdapterSpec(self.task.inputs, *of_inputs, parts=self.parts)
        hashes = (model.backbone_hash, model.catalog_hash, model.feature_hash)
        return AdapterSpec(model.config.backbone, *hashes, parts=self.parts)

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON and for a signature."""
        values = self.model_dump(mode="json")
        if self.range_users is None:  # terms of other modes stay as they were signed before there were sums
            del values["range_users"]
        if self.task is None:  # nor do those of a recommender
            del values["task"]
        for place, names in _LATER.items():  # nor do terms that name none of what was added later change their hash
            kept, given = getattr(self.model, place), values["model"][place]
            for name in names:
                if getattr(kept, name) == type(kept).model_fields[name].default:
                    del given[name]
        return values


def read_terms(values: Mapping[str, Any], place: str) -> FederationTerms:
    """Validate terms from outside. Raises ProtocolError: naming every field that is missing, unknown or malformed."""
    try:
        return FederationTerms.model_validate(values)
    except ValidationError as error:
        problems = [".".join(map(str, item["loc"])) + ": " + item["msg"] for item in error.errors()]
        raise ProtocolError.of_all(problems, "both sides must run the same version of fedrec", place) from error
