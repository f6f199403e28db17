"""What every section of a configuration is: frozen, and without unknown keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """One table of a TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
