"""What the configuration's sections are made of: their base class and the kinds of numbers they hold."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from selfplay.config_problems import NONE


def integral(value: Any) -> Any:
    """6e6 is the integer 6000000; everything else is left to be judged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def none(value: Any) -> Any:
    return None if value == NONE else value


Count = Annotated[int, Field(ge=1), BeforeValidator(integral)]
NonNegativeCount = Annotated[int, Field(ge=0), BeforeValidator(integral)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Unit = Annotated[float, Field(ge=0, le=1)]
OptionalCount = Annotated[Count | None, BeforeValidator(none)]
OptionalPositive = Annotated[Positive | None, BeforeValidator(none)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
