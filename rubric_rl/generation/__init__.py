"""Stage 1 where a prompt has no rubric: one is written, tested on answers and filtered."""
