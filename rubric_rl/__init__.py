"""Self-rewarding rubric RL: the served policy grades its own answers by each prompt's rubric."""

from pathlib import Path

# The repository: configs/ and the programs beside the library are found from here.
ROOT = Path(__file__).resolve().parents[1]

# The short names of commands, such as `python -m rubric_rl.evaluate`, are files of commands/.
__path__.append(str(Path(__file__).parent / "commands"))
