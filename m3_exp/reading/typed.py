"""What the fields of a JSON file must be, as pydantic models; the first field that is wrong becomes one line.

    checked(ModelConfig, value, path) -> ModelConfig

Types are strict: "false" is not false, 1.0 is not 1, and NaN is no finite number.
"""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m3_exp.reading.shown import short
from m3_exp.types import M3Error

T = TypeVar("T", bound=BaseModel)

Count = Annotated[int, Field(strict=True, ge=1, le=1 << 40)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
_OF_A_UNION = ("int", "str", "float", "bool", "constrained-int", "constrained-float")  # members, not fields
_SAID = {
    "missing": "is missing",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be finite",
    "string_type": "must be a text",
    "dict_type": "must be an object",
    "list_type": "must be an array",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "extra_forbidden": "is not known",
}


class Strict(BaseModel):
    """A JSON object with strict types; fields beside those that are named are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, arbitrary_types_allowed=False)


def checked(model: type[T], value: Any, where: Path | str) -> T:
    """Return a JSON value as a typed model.

    Raises:
        M3Error: a field is missing, or of the wrong type or range. The first such field is named, with what it holds.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise M3Error(first_fault(error, where)) from None


def first_fault(error: ValidationError, where: Path | str) -> str:
    """Return the first field that is wrong, what it must be and holds: `a.json: n must be a number (it is "x")`."""
    first = error.errors(include_url=False, include_context=False)[0]
    parts = [str(part) for part in first["loc"]]
    field = ".".join(part for part in parts if "[" not in part and part not in _OF_A_UNION)
    held = "" if first["type"] == "missing" else f" (it is {short(first['input'], 60)})"
    message = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return f"{where}{f': {field}' if field else ''} {_SAID.get(first['type']) or message}{held}"
