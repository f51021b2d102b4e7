"""`python -m rubric_rl.rescore`: computes scores again from stored verdicts."""

import sys

from rubric_rl.evaluation.rescore import main

if __name__ == "__main__":
    sys.exit(main())
