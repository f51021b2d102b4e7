"""What SGLang's sampling by a request's seed needs and lacks on a CPU; engine processes only."""

import numpy as np
import torch
from sglang.srt import batch_invariant_ops

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


def murmur_hash32(
    seed: torch.Tensor, positions: torch.Tensor, col_indices: torch.Tensor
) -> torch.Tensor:
    """MurmurHash3 (32 bits) of each row's seed (64 bits) and position, and of each column.

    As SGLang's own kernel, which its sampler asks for: shapes (rows,), (rows,) and (columns,); the
    result is (rows, columns) of uint32.
    """
    seeds = seed.numpy().astype(np.uint64)
    places = positions.numpy().astype(np.uint32)
    columns = col_indices.numpy().astype(np.uint32)
    low = seeds.astype(np.uint32)
    high = (seeds >> np.uint64(BITS)).astype(np.uint32)
    state = np.zeros_like(low)
    for block in (low, high, places):
        state = _mixed(state, block)
    hashed = _finished(_mixed(state[:, None], columns[None, :]))
    return torch.from_numpy(hashed)


def _keep_torch_products(*_) -> None:
    """In place of matrix products in Triton, which a CPU does not run."""


_operators = torch.library.Library("sgl_kernel", "FRAGMENT")
_operators.define("murmur_hash32_cpu(Tensor seed, Tensor positions, Tensor columns) -> Tensor")
_operators.impl("murmur_hash32_cpu", murmur_hash32, "CPU")
# An engine with --enable-deterministic-inference calls it before it loads the model.
batch_invariant_ops.enable_batch_invariant_mode = _keep_torch_products
