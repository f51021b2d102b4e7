"""Annex: what is checked and computed before a slime run, and what both trainers check alike."""
