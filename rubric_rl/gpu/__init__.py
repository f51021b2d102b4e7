"""The run on GPUs with slime: what is checked and computed before it starts (all stages)."""
