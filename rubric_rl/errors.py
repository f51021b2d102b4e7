"""The mistakes that a user can mend; everything else that is raised is a defect of ours."""

from pydantic import ValidationError


class UserError(ValueError):
    """Anything a user can fix: one line that says what is wrong, where, and the next step."""


class DataError(UserError):
    """A row that cannot be used; the message names file, line and prompt_id."""


def first_fault(error: ValidationError) -> tuple[str, str]:
    """The field of pydantic's first complaint, and the complaint: "must be ..., not 'x'"."""
    first = error.errors()[0]
    field = str(first["loc"][0])
    message = first["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be")
    value = f"{first['input']!r:.60}"
    return field, f"{message}, not {value}"
