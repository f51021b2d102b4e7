"""MurmurHash3 as SGLang's seeded sampling takes its noise from; engine processes only."""

import numpy as np

BITS = 32


def _rotated(words: np.ndarray, places: int) -> np.ndarray:
    """The 32-bit words, rotated to the left."""
    high = words << np.uint32(places)
    low = words >> np.uint32(BITS - places)
    return high | low


def _mixed(state: np.ndarray, block: np.ndarray) -> np.ndarray:
    """MurmurHash3's state after one more block of 32 bits."""
    block = block * np.uint32(0xCC9E2D51)
    block = _rotated(block, 15) * np.uint32(0x1B873593)
    state = _rotated(state ^ block, 13)
    return state * np.uint32(5) + np.uint32(0xE6546B64)


def _finished(state: np.ndarray) -> np.ndarray:
    """The hash of four blocks, from their state."""
    state = state ^ np.uint32(16)  # bytes
    state = (state ^ (state >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    state = (state ^ (state >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return state ^ (state >> np.uint32(16))


def murmur_hash32(seeds: np.ndarray, places: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """MurmurHash3 (32 bits) of each row's seed (64 bits) and place, and of each column.

    Shapes (rows,), (rows,) and (columns,); the result is (rows, columns) of uint32.
    """
    seeds = seeds.astype(np.uint64)
    places = places.astype(np.uint32)
    columns = columns.astype(np.uint32)
    low = seeds.astype(np.uint32)
    high = (seeds >> np.uint64(BITS)).astype(np.uint32)
    state = np.zeros_like(low)
    for block in (low, high, places):
        state = _mixed(state, block)
    return _finished(_mixed(state[:, None], columns[None, :]))
