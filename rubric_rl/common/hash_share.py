"""A number that looks like chance and is the same in every process and every run."""

import hashlib


def share_of(name: str, role: str) -> float:
    """A number in [0, 1), uniform over names, that depends on name and role alone."""
    digest = hashlib.sha256(f"{role}:{name}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
