"""Stage 1, prompt: raw rubric data becomes training rows and held-out rows."""
