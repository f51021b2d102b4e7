"""The hash that seeded sampling takes its noise from, against a plain MurmurHash3."""

import importlib.util
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.cpu.engine import COMPAT

_spec = importlib.util.spec_from_file_location("murmur_hash", COMPAT / "murmur_hash.py")
murmur_hash = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(murmur_hash)


def murmur3(data: bytes, state: int = 0) -> int:
    """MurmurHash3_x86_32, of whole blocks of four bytes."""
    for (block,) in struct.iter_unpack("<I", data):
        block = block * 0xCC9E2D51 % 2**32
        block = (block << 15 | block >> 17) % 2**32
        state ^= block * 0x1B873593 % 2**32
        state = (state << 13 | state >> 19) % 2**32
        state = (state * 5 + 0xE6546B64) % 2**32
    state ^= len(data)
    state = (state ^ state >> 16) * 0x85EBCA6B % 2**32
    state = (state ^ state >> 13) * 0xC2B2AE35 % 2**32
    return state ^ state >> 16


@pytest.mark.parametrize(
    "data, state, expected",
    [(b"", 0, 0), (b"", 1, 0x514E28B7), (b"test", 0, 0xBA6BD213), (b"\0\0\0\0", 0, 0x2362F9DE)],
)
def test_the_reference_gives_the_published_values(data, state, expected):
    assert murmur3(data, state) == expected


@given(
    rows=st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 10**6)), min_size=1),
    columns=st.integers(1, 40),
)
def test_each_cell_is_the_hash_of_its_seed_place_and_column(rows, columns):
    seeds, places = (np.array(values) for values in zip(*rows, strict=True))
    hashed = murmur_hash.murmur_hash32(seeds, places, np.arange(columns))
    for row, (seed, place) in enumerate(rows):
        for column in range(columns):
            assert hashed[row, column] == murmur3(struct.pack("<QII", seed, place, column))
