"""What SGLang's sampling by a request's seed needs and lacks on a CPU; engine processes only."""

import torch
from murmur_hash import murmur_hash32
from sglang.srt import batch_invariant_ops


def _hashed(seed: torch.Tensor, positions: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """What SGLang's own operator gives, which exists in its CPU kernels alone."""
    hashed = murmur_hash32(seed.numpy(), positions.numpy(), columns.numpy())
    return torch.from_numpy(hashed)


def _keep_torch_products(*_) -> None:
    """In place of matrix products in Triton, which a CPU does not run."""


_operators = torch.library.Library("sgl_kernel", "FRAGMENT")
_operators.define("murmur_hash32_cpu(Tensor seed, Tensor positions, Tensor columns) -> Tensor")
_operators.impl("murmur_hash32_cpu", _hashed, "CPU")
# An engine with --enable-deterministic-inference calls it before it loads the model.
batch_invariant_ops.enable_batch_invariant_mode = _keep_torch_products
