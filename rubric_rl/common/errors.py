"""The mistakes that a user can mend; everything else that is raised is a defect of ours."""


class UserError(ValueError):
    """Anything a user can fix: one line that says what is wrong, where, and the next step."""


class DataError(UserError):
    """A row that cannot be used; the message names file, line and prompt_id."""
