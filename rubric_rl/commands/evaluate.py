"""`python -m rubric_rl.evaluate`: grades answers to a rubric file and prints the score."""

import sys

from rubric_rl.evaluation.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
