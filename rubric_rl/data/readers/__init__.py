"""Stage 1: the rubric sets that people train on, each read in the shape it is published in."""
