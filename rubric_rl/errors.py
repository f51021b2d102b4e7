"""The mistakes that a user can mend; everything else that is raised is a defect of ours."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Anything a user can fix: one line that says what is wrong, where, and the next step."""


class DataError(UserError):
    """A row that cannot be used; the message names file, line and prompt_id."""


def exit_status(command: Callable[[], int]) -> int:
    """Runs a command; a mistake that the user can mend becomes one line on stderr and status 2.

    So does a file that cannot be read or written. A defect of ours is raised: Python shows where
    it happened and exits with 1.
    """
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}; check path and rights", file=sys.stderr)
    return 2
