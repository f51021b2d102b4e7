"""What checked forms of settings have in common: a field's type, a complaint in one line."""

from typing import Annotated

from pydantic import AfterValidator, ValidationError


def _top_k(value: int) -> int:
    all_tokens = value == -1
    if value < 1 and not all_tokens:
        raise ValueError("must be 1 or more, or -1 for all tokens")
    return value


TopK = Annotated[int, AfterValidator(_top_k)]


def first_fault(error: ValidationError) -> tuple[str, str]:
    """The field of pydantic's first complaint, and the complaint: "must be ..., not 'x'"."""
    first = error.errors()[0]
    field, *_ = first["loc"]
    message = first["msg"]
    message = message.removeprefix("Value error, ")
    message = message.replace("Input should be", "must be")
    value = first["input"]
    if not isinstance(value, dict):  # which may hold a key
        message = f"{message}, not {value!r:.60}"
    return str(field), message
