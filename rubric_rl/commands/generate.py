"""`python -m rubric_rl.generate`: makes rubrics for prompts that have none."""

import sys

from rubric_rl.generation.generate_rubrics import main

if __name__ == "__main__":
    sys.exit(main())
