"""`python -m rubric_rl.peek`: grades one answer and prints every step."""

import sys

from rubric_rl.grading.peek import main

if __name__ == "__main__":
    sys.exit(main())
