"""Self-rewarding rubric RL: the served policy grades its own answers by each prompt's rubric."""

import sys
from pathlib import Path

# The repository: configs/ and the programs beside the library are found from here.
ROOT = Path(__file__).resolve().parents[1]

# The short names of commands, such as `python -m rubric_rl.evaluate`, are files of commands/.
__path__.append(str(Path(__file__).parent / "commands"))


def _tell(kind, error, traceback) -> None:
    """Shows an error that nobody caught; of Ctrl-C, as during the imports, one line."""
    if issubclass(kind, KeyboardInterrupt):
        print("error: interrupted; run the same command again", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


if sys.argv[:1] == ["-m"]:  # so it stands there while Python looks for the command of a `python -m`
    sys.excepthook = _tell
