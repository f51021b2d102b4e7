"""Annex: what is checked and computed before a run with slime starts, and what both trainers check alike."""
