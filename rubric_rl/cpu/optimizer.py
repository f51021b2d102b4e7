"""AdamW with Megatron's parameter groups, learning-rate schedule and global gradient norm (stage 5, GRPO update)."""

from argparse import Namespace

import torch
import torch.distributed as dist

from rubric_rl.cpu.flags import schedule_of
from rubric_rl.cpu.megatron import (
    OptimizerParamScheduler,
    mpu,
    param_is_not_tensor_parallel_duplicate,
)


def build_optimizer(args: Namespace, model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW in Megatron's two groups: everything, and without weight decay biases and vectors (the norms).

    Source: Megatron-core `get_standard_config_overrides`, `_get_param_groups`.
    """
    parameters = list(model.named_parameters())
    undecayed = [p for name, p in parameters if p.dim() == 1 or name.endswith(".bias")]
    decayed = [p for name, p in parameters if not (p.dim() == 1 or name.endswith(".bias"))]
    groups = [{"params": decayed, "wd_mult": 1.0}, {"params": undecayed, "wd_mult": 0.0}]
    return torch.optim.AdamW(
        groups, lr=args.lr, betas=(args.adam_beta1, args.adam_beta2), eps=args.adam_eps
    )


def build_scheduler(args: Namespace, optimizer: torch.optim.AdamW) -> OptimizerParamScheduler:
    """Megatron's own scheduler, set up as slime does; it counts samples, and its first warm-up step has rate 0.

    Source: slime `get_optimizer_param_scheduler`. Raises UserError for a warm-up as long as the run.
    """
    size, run = args.global_batch_size, schedule_of(args)
    return OptimizerParamScheduler(
        optimizer, init_lr=args.lr_warmup_init, max_lr=args.lr, min_lr=args.min_lr,
        lr_warmup_steps=run.warmup * size, lr_decay_steps=run.decay * size, lr_decay_style=args.lr_decay_style,
        start_wd=args.weight_decay, end_wd=args.weight_decay, wd_incr_steps=run.steps * size, wd_incr_style="constant",
        use_checkpoint_opt_param_scheduler=False, override_opt_param_scheduler=True,  # a resumed run obeys its flags
    )  # fmt: skip


def clip_gradients(model: torch.nn.Module, limit: float) -> float:
    """Scales `main_grad` of all parameters to a global norm of at most `limit` (0: never); returns the norm before.

    The norm is the whole model's: shards are summed over TP ranks, parameters that every TP rank holds count once.
    Source: Megatron-core `get_grad_norm_fp32`, `clip_grad_by_total_norm_fp32`.
    """
    counted = [p.main_grad for p in model.parameters() if param_is_not_tensor_parallel_duplicate(p)]
    squares = torch.stack([grad.double().square().sum() for grad in counted]).sum()
    dist.all_reduce(squares, group=mpu.get_tensor_model_parallel_group())
    norm = squares.sqrt().item()
    scale = limit / (norm + 1e-6)
    if limit > 0 and scale < 1:
        for parameter in model.parameters():
            parameter.main_grad.mul_(scale)
    return norm
