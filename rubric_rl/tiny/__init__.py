"""Annex: a small made-up world of patients, the oracle that knows its truth, and the tiny Qwen3."""
