"""Megatron-core on a machine without a GPU: its parts in use, its process groups over gloo (stage 5, GRPO update)."""

import contextlib
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist

from rubric_rl.errors import UserError

with warnings.catch_warnings():  # they tell of Apex and Transformer Engine, which only GPUs have
    warnings.simplefilter("ignore")
    from megatron.core import parallel_state as mpu
    from megatron.core.distributed import (
        DistributedDataParallel,
        DistributedDataParallelConfig,
        finalize_model_grads,
    )
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
    from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
    from megatron.core.transformer import TransformerConfig

__all__ = [
    "DistributedDataParallel", "DistributedDataParallelConfig", "GPTModel", "OptimizerParamScheduler",
    "TransformerConfig", "cpu_device", "finalize_model_grads", "get_gpt_layer_local_spec", "init_parallel", "mpu",
    "param_is_not_tensor_parallel_duplicate", "shutdown_parallel",
]  # fmt: skip


@contextlib.contextmanager
def cpu_device():
    """Lets Megatron-core build and run on CPU: it puts every buffer it makes on torch.cuda.current_device()."""
    original = torch.cuda.current_device
    torch.cuda.current_device = lambda: torch.device("cpu")
    try:
        yield
    finally:
        torch.cuda.current_device = original


def init_parallel(
    rank: int, world_size: int, addr: str, port: int, tp: int, seed: int, timeout_minutes: float
) -> None:
    """Joins the gloo process group and splits it into TP groups of `tp` neighbours and DP groups across them.

    A rank that fails or dies makes every collective of the others raise within `timeout_minutes`.
    """
    if tp < 1 or world_size % tp:
        raise UserError(
            f"tensor_model_parallel_size {tp} does not divide {world_size} training processes; change one"
        )
    dist.init_process_group(
        "gloo", init_method=f"tcp://{addr}:{port}", rank=rank, world_size=world_size,
        timeout=timedelta(minutes=timeout_minutes),
    )  # fmt: skip
    mpu.initialize_model_parallel(
        tp,
        distributed_timeout_minutes=timeout_minutes,
        create_gloo_process_groups=False,  # the groups are gloo already
    )
    torch.manual_seed(seed)
    with cpu_device():
        model_parallel_cuda_manual_seed(
            seed, inference_rng_tracker=True
        )  # the other tracker needs CUDA generators


def shutdown_parallel() -> None:
    """Leaves the process groups (safe to call when none was joined)."""
    if dist.is_initialized():
        mpu.destroy_model_parallel()
        dist.destroy_process_group()
