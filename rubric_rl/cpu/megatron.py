"""Megatron-core on a machine without a GPU: its parts in use, its process groups over gloo."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from rubric_rl.common.errors import UserError

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
    "DistributedDataParallel",
    "DistributedDataParallelConfig",
    "GPTModel",
    "OptimizerParamScheduler",
    "TransformerConfig",
    "cpu_device",
    "finalize_model_grads",
    "get_gpt_layer_local_spec",
    "init_parallel",
    "main_grad",
    "mpu",
    "param_is_not_tensor_parallel_duplicate",
    "shutdown_parallel",
]


@contextlib.contextmanager
def cpu_device() -> Iterator[None]:
    """Lets Megatron-core build and run on CPU.

    It puts every buffer that it makes on torch.cuda.current_device().
    """
    original = torch.cuda.current_device
    # An int by its annotation, but Megatron only hands it on as a device.
    torch.cuda.current_device = lambda: torch.device("cpu")  # pyright: ignore
    try:
        yield
    finally:
        torch.cuda.current_device = original


def main_grad(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The fp32 buffer into which Megatron's DistributedDataParallel sums the gradient."""
    return parameter.main_grad  # pyright: ignore[reportAttributeAccessIssue] - Megatron sets it


def init_parallel(
    rank: int,
    world_size: int,
    store: str | Path,
    tp: int,
    seed: int,
    timeout_minutes: int,
) -> None:
    """Joins the gloo process group and splits it into TP groups of neighbours, DP across them.

    A rank that fails or dies makes every collective of the others raise within the timeout.

    Args:
        rank: of this process.
        world_size: number of training processes.
        store: a file that does not exist yet, by which the ranks find each other. A TCP store would
            listen on all interfaces.
        tp: number of ranks that hold one copy of the weights together.
        seed: of torch and Megatron.
        timeout_minutes: that a collective may take.
    """
    if tp < 1 or world_size % tp:
        raise UserError(
            f"tensor_model_parallel_size {tp} does not divide {world_size} training processes; "
            "change one"
        )
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # the ranks' connections stay on this machine
    dist.init_process_group(
        "gloo",
        init_method=f"file://{Path(store).absolute()}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(minutes=timeout_minutes),
    )
    mpu.initialize_model_parallel(
        tp,
        distributed_timeout_minutes=timeout_minutes,
        create_gloo_process_groups=False,  # the groups are gloo already
    )
    torch.manual_seed(seed)
    with cpu_device():
        # The other tracker of random numbers needs CUDA generators.
        model_parallel_cuda_manual_seed(seed, inference_rng_tracker=True)


def shutdown_parallel() -> None:
    """Leaves the process groups (safe to call when none was joined)."""
    if dist.is_initialized():
        mpu.destroy_model_parallel()
        dist.destroy_process_group()
