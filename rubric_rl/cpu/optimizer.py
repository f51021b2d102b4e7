"""AdamW with Megatron's parameter groups, learning-rate schedule and global gradient norm."""

from argparse import Namespace

import torch
import torch.distributed as dist

from rubric_rl.cpu.flags import schedule_of
from rubric_rl.cpu.megatron import (
    OptimizerParamScheduler,
    main_grad,
    mpu,
    param_is_not_tensor_parallel_duplicate,
)


def build_optimizer(args: Namespace, model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW in Megatron's two groups: with weight decay, and without it biases and vectors (norms).

    Source: Megatron-core `get_standard_config_overrides`, `_get_param_groups`.
    """
    decayed = []
    undecayed = []
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 or name.endswith(".bias"):
            undecayed.append(parameter)
        else:
            decayed.append(parameter)
    return torch.optim.AdamW(
        [{"params": decayed, "wd_mult": 1.0}, {"params": undecayed, "wd_mult": 0.0}],
        lr=args.lr,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_eps,
    )


def build_scheduler(args: Namespace, optimizer: torch.optim.AdamW) -> OptimizerParamScheduler:
    """Megatron's own scheduler, set up as slime does.

    It counts samples, and its first warm-up step has rate 0.
    Source: slime `get_optimizer_param_scheduler`.

    Raises:
        UserError: for a warm-up as long as the run.
    """
    run = schedule_of(args)
    samples_per_step = args.global_batch_size
    return OptimizerParamScheduler(
        optimizer,  # pyright: ignore[reportArgumentType] - it reads nothing but param_groups
        init_lr=args.lr_warmup_init,
        max_lr=args.lr,
        min_lr=args.min_lr,
        lr_warmup_steps=run.warmup * samples_per_step,
        lr_decay_steps=run.decay * samples_per_step,
        lr_decay_style=args.lr_decay_style,
        start_wd=args.weight_decay,
        end_wd=args.weight_decay,
        wd_incr_steps=run.steps * samples_per_step,
        wd_incr_style="constant",
        # A resumed run obeys its flags.
        use_checkpoint_opt_param_scheduler=False,
        override_opt_param_scheduler=True,
    )


def clip_gradients(model: torch.nn.Module, limit: float) -> float:
    """Scales `main_grad` of all parameters to a global norm of at most `limit` (0: never).

    Returns the norm before. It is the whole model's: shards are summed over TP ranks, parameters
    that every TP rank holds count once.
    Source: Megatron-core `get_grad_norm_fp32`, `clip_grad_by_total_norm_fp32`.
    """
    squares = []
    for parameter in model.parameters():
        if param_is_not_tensor_parallel_duplicate(parameter):
            squares.append(main_grad(parameter).double().square().sum())
    total = torch.stack(squares).sum()
    dist.all_reduce(total, group=mpu.get_tensor_model_parallel_group())
    norm = total.sqrt().item()
    scale = limit / (norm + 1e-6)
    if limit > 0 and scale < 1:
        for parameter in model.parameters():
            main_grad(parameter).mul_(scale)
    return norm
