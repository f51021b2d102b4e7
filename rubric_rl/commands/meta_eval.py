"""`python -m rubric_rl.meta_eval`: compares a grader's verdicts with physicians'."""

import sys

from rubric_rl.evaluation.meta_evaluate import main

if __name__ == "__main__":
    sys.exit(main())
