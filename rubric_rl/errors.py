"""The mistakes that a user can mend; everything else that is raised is a defect of ours."""

import errno
import io
import sys
from collections.abc import Callable

# What a disk or a reader at the other end does to an output, whatever its name.
_OUTPUT_ENDED = (errno.ENOSPC, errno.EDQUOT, errno.EPIPE)


class UserError(ValueError):
    """Anything a user can fix: one line that says what is wrong, where, and the next step."""


class DataError(UserError):
    """A row that cannot be used; the message names file, line and prompt_id."""


def exit_status(command: Callable[[], int]) -> int:
    """Runs a command; a mistake that the user can mend becomes one line on stderr and status 2.

    So does a file that cannot be read or written. A defect of ours is raised: Python shows where
    it happened and exits with 1. What the terminal's encoding lacks is printed as an escape.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = command()
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None and error.errno not in _OUTPUT_ENDED:
            raise
        where = error.filename or "standard output"
        print(f"error: {where}: {error.strerror}; check path, rights and space", file=sys.stderr)
    return 2
