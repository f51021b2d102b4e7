"""Self-rewarding rubric RL: the served policy grades its own answers against each prompt's rubric (all stages)."""
