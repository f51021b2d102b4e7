"""Stage 6, evaluation: one view of a run as an HTML page and as Markdown."""
