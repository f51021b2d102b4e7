"""Stages 3 and 4: every answer is graded by its rubric, and the verdicts become a reward."""
