"""Doubles that tests share; the real parts are tested in tests/stack and tests/smoke."""
