"""Stage 6, evaluation: the same grade and the same score on held-out prompts, kept and compared."""
