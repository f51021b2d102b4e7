"""Prints the evaluation set's name, `hard_by_<grader>`, for a settings file."""

import sys
from pathlib import Path

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.grading.graders import grader_name
from rubric_rl.grading.settings import GraderSettings


def main() -> int:
    parser = CommandParser("python -m rubric_rl.launch.eval_name", __doc__)
    parser.add_argument("settings", type=Path, help="YAML file of grader_* keys")
    settings = GraderSettings.load(parser.parse_args().settings)
    print(f"hard_by_{grader_name(settings)}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
