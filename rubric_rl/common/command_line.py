"""How every command of this project reads its flags, and how it ends."""

import argparse
import errno
import io
import math
import re
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from rubric_rl.common.errors import UserError

# What a disk or a reader at the other end does to an output, whatever its name.
_OUTPUT_ENDED = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EPIPE,
)


# Flags that take a key: slime's for wandb, also shortened, the router's, whoever's. The run scripts
# know them too (scripts/no_keys.sh), since they print command lines.
_TAKES_KEY = re.compile(r"--(wandb-k[a-z]*|[a-z0-9-]*(api-keys?|password|auth-token))")


def refuse_keys(words: Iterable[str]) -> None:
    """Raises UserError for a flag that takes a key, without repeating the key."""
    for word in words:
        flag = word.partition("=")[0]
        if _TAKES_KEY.fullmatch(flag):
            what = "a key on a command line is seen by every user and stays in logs"
            variable = "WANDB_API_KEY" if flag.startswith("--wandb") else "it as a variable"
            raise UserError(f"{flag}: {what}; export {variable} instead")


class CommandParser(argparse.ArgumentParser):
    """The flags of a command; a mistake in them raises UserError, like every other mistake."""

    def __init__(self, command: str, description: str | None, **options):
        super().__init__(
            prog=command,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def parse_known_args(self, args=None, namespace=None):  # pyright: ignore
        """As argparse, but no word may be a flag for a key; `parse_args` calls this too."""
        refuse_keys(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Called by argparse, which would print the whole usage and exit."""
        what, colon, words = message.partition("unrecognized arguments: ")
        flags = [word.partition("=")[0] for word in words.split() if word.startswith("-")]
        if flags:  # without their values: one of them may be a key
            message = what + colon + " ".join(flags)
        raise UserError(f"{message}; see {self.prog} --help")


def count(text: str) -> int:
    """The type of a flag that takes a whole number of 0 or more."""
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 0 or more")
    return int(text)


def positive(text: str) -> int:
    """The type of a flag that takes a whole number of 1 or more."""
    number = count(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return number


def quantity(text: str) -> float:
    """The type of a flag that takes a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def port(text: str) -> int:
    """The type of a flag that takes the number of a TCP port."""
    number = count(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: those go from 1 to 65535")
    return number


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
        if sys.stdout:  # there is none where its descriptor is closed
            sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None and error.errno not in _OUTPUT_ENDED:
            raise
        where = error.filename or "the output"
        print(f"error: {where}: {error.strerror}; check path, rights and space", file=sys.stderr)
    return 2
