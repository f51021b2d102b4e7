"""`python -m rubric_rl.compare`: compares two evaluations on the same prompts."""

import sys

from rubric_rl.evaluation.compare import main

if __name__ == "__main__":
    sys.exit(main())
