"""The training actor: one rank of a Megatron-core policy that takes GRPO steps on CPU."""

import math
import os
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
import torch.distributed as dist
from torch import Tensor

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import whole_file
from rubric_rl.common.model_shape import read_trainable_network
from rubric_rl.cpu.convert_weights import gather_hf, load_hf, write_hf
from rubric_rl.cpu.grader_skill import SkillBatch, skill_batches, skill_loss
from rubric_rl.cpu.grpo import grpo_loss, token_log_probs
from rubric_rl.cpu.megatron import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    GPTModel,
    cpu_device,
    finalize_model_grads,
    init_parallel,
    main_grad,
    mpu,
    shutdown_parallel,
)
from rubric_rl.cpu.micro_batches import MicroBatch, make_micro_batches
from rubric_rl.cpu.model import build_model, response_logits
from rubric_rl.cpu.optimizer import build_optimizer, build_scheduler, clip_gradients
from rubric_rl.data.training_settings import GraderSkill
from rubric_rl.grading.settings import read_settings


def _save(state: dict, handle: IO[bytes]) -> None:
    """torch.save, whose own error would hide what the disk said."""
    try:
        torch.save(state, handle)
    except RuntimeError as error:
        cause = error.__context__
        if isinstance(cause, OSError):
            raise cause from None
        raise


def _sizes(tensors: Mapping[str, Tensor]) -> dict:
    sizes = {}
    for name, tensor in tensors.items():
        sizes[name] = tensor.shape
    return sizes


def _count(sequences: list[list[int]]) -> int:
    """The tokens of all sequences."""
    return sum(len(sequence) for sequence in sequences)


class TrainingError(UserError):
    """A step's loss or gradient is not finite; the weights are still those before the step."""


class Actor:
    """One rank of the trained policy. All ranks make the same calls in the same order.

    `args` carry slime's names. Ranks r with equal r // tensor_model_parallel_size hold one copy of
    the weights together (TP); the copies share the batch (DP). When a rank dies, the others raise
    at once; when it raises, after `distributed_timeout_minutes`.
    """

    def __init__(self, args: Namespace, rank: int, world_size: int, store: str | Path):
        self.args = args
        self.rank = rank
        self.reference: GPTModel | None = None
        init_parallel(
            rank,
            world_size,
            store,
            args.tensor_model_parallel_size,
            args.seed,
            args.distributed_timeout_minutes,
        )

    def load(self, hf_dir: str, checkpoint_dir: str | None = None) -> None:
        """Builds the model from a Hugging Face directory.

        With a checkpoint, it continues exactly where that was saved.

        Raises:
            UserError: for a checkpoint that is not Qwen3, is incomplete, or was saved with another
                TP size.
        """
        self.hf_dir = hf_dir
        self.shape = read_trainable_network(hf_dir)
        model = build_model(self.shape)
        self.model = model
        self.dtypes = load_hf(model, hf_dir, self.shape)
        settings = read_settings(vars(self.args))
        self.skill_coef = GraderSkill.of(settings).skill_coef
        if self.args.use_kl_loss or self.skill_coef:
            self.reference = self._load_reference()
        with cpu_device():
            config = DistributedDataParallelConfig()
            self.ddp = DistributedDataParallel(model.config, config, model)
        self.optimizer = build_optimizer(self.args, model)
        self.scheduler = build_scheduler(self.args, self.optimizer)
        if checkpoint_dir is not None:
            file = self._state_file(checkpoint_dir)
            self._resume(file)

    def _load_reference(self) -> GPTModel:
        source = self.args.ref_load
        if not source and not self.args.use_kl_loss:
            source = self.hf_dir  # grader_skill_coef alone: where the run started
        if not source:
            raise UserError("use_kl_loss needs ref_load; give --ref-load a Hugging Face directory")
        if read_trainable_network(source) != self.shape:
            differs = f"config.json differs from {self.hf_dir}"
            must = "the reference must be the same network"
            raise UserError(f"{source}: {differs}; {must}")
        reference = build_model(self.shape)
        reference.requires_grad_(False)
        load_hf(reference, source, self.shape)
        return reference

    def train(self, rollout_id: int, rollout: dict) -> dict[str, float]:
        """Takes the optimizer steps of one rollout.

        Every rank gets the whole batch and works on its share. Returns slime's metrics under
        slime's names (`train/pg_loss`, `train/grad_norm`, ...), the same on every rank: the mean
        over the rollout's steps; `train/lr-pg_0` is the rate of the last step, `train/step` its
        number.

        Raises:
            TrainingError: when the loss or a gradient is not finite; that step changes nothing.
        """
        args = self.args
        has_log_probs = bool(rollout.get("rollout_log_probs"))
        if args.use_rollout_logprobs and not has_log_probs:
            missing = "the rollout brought no log-probabilities"
            raise UserError(f"use_rollout_logprobs: {missing}; leave the flag out")
        dp_rank = mpu.get_data_parallel_rank()
        dp_size = mpu.get_data_parallel_world_size()
        steps = make_micro_batches(args, rollout, dp_rank, dp_size)
        self._fill_in_log_probs(steps)
        prompts = rollout.get("grading_prompts") or []
        skill = skill_batches(args, prompts, len(steps), dp_rank, dp_size)
        self._fill_in_start(skill)
        totals: Counter[str] = Counter()
        learning_rate = 0.0
        for number, micro_batches in enumerate(steps):
            group = self.optimizer.param_groups[0]
            learning_rate = group["lr"]
            where = f"rollout {rollout_id}, step {number}"
            of_step = self._step(micro_batches, skill[number], where)
            totals.update(of_step)
        count = len(steps)
        metrics = {}
        for name, total in totals.items():
            metrics[f"train/{name}"] = total / count
        metrics["train/lr-pg_0"] = learning_rate
        steps_made = (rollout_id + 1) * count
        metrics["train/step"] = steps_made - 1
        metrics["train/global_batch_size"] = args.global_batch_size
        if self.skill_coef:
            share = _count(prompts) / _count(rollout["tokens"])
            metrics["train/grader_skill_tokens"] = share
        return metrics

    def _fill_in_log_probs(self, steps: list[list[MicroBatch]]) -> None:
        """By the reference; by the policy too where it has moved on after the first step."""
        moves_on = len(steps) > 1
        old_needed = moves_on and not self.args.use_rollout_logprobs
        for micro_batches in steps:
            for batch in micro_batches:
                if self.args.use_kl_loss:
                    assert self.reference is not None  # `load` has made it
                    batch.ref_log_probs = self._log_probs(self.reference, batch)
                if old_needed:
                    batch.old_log_probs = self._log_probs(self.model, batch)

    @torch.no_grad()
    def _fill_in_start(self, skill: list[list[SkillBatch]]) -> None:
        """What the frozen start would say on each grading prompt."""
        for batches in skill:
            for batch in batches:
                assert self.reference is not None  # `load` has made it
                logits = self._logits(self.reference, batch)
                batch.start = torch.log_softmax(logits, dim=-1)

    def _logits(self, model: GPTModel, batch: MicroBatch | SkillBatch) -> Tensor:
        return response_logits(model, self.shape, batch.inputs, batch.rows, batch.columns)

    @torch.no_grad()
    def _log_probs(self, model: GPTModel, batch: MicroBatch) -> Tensor:
        logits = self._logits(model, batch)
        temperature = self.args.rollout_temperature
        log_probs, _ = token_log_probs(logits, batch.targets, temperature)
        return log_probs

    def _step(
        self, micro_batches: list[MicroBatch], skill: list[SkillBatch], where: str
    ) -> dict[str, float]:
        """One optimizer step; `where` names it in an error."""
        self.ddp.zero_grad_buffer()
        sums: Counter[str] = Counter()
        for batch in micro_batches:
            sums.update(self._backward(batch))
        for batch in skill:
            sums.update(self._backward_skill(batch))
        with cpu_device():
            finalize_model_grads([self.ddp])
        grad_norm = clip_gradients(self.model, self.args.clip_grad)
        metrics = self._sum_over_dp(sums)
        loss = metrics["loss"]
        is_finite = math.isfinite(grad_norm) and math.isfinite(loss)
        if not is_finite:
            found = f"loss {loss}, gradient norm {grad_norm}"
            hint = "resume from the last checkpoint with a lower lr"
            raise TrainingError(f"{where}: {found}; {hint}")
        for parameter in self.model.parameters():
            parameter.grad = main_grad(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step(increment=self.args.global_batch_size)
        metrics["grad_norm"] = grad_norm
        return metrics

    def _backward(self, batch: MicroBatch) -> dict[str, float]:
        """Adds a micro-batch's gradients to those of the step; returns its share of the metrics."""
        logits = self._logits(self.model, batch)
        log_probs, entropy = token_log_probs(
            logits,
            batch.targets,
            self.args.rollout_temperature,
            entropy_grad=self.args.entropy_coef != 0,
        )
        loss, metrics = grpo_loss(self.args, batch, log_probs, entropy)
        with cpu_device():
            loss.backward()
        values = {}
        for name, value in metrics.items():
            values[name] = value.item()
        return values

    def _backward_skill(self, batch: SkillBatch) -> dict[str, float]:
        """The same for grading prompts."""
        logits = self._logits(self.model, batch)
        kl = skill_loss(logits, batch)
        loss = self.skill_coef * kl
        with cpu_device():
            loss.backward()
        return {"loss": loss.item(), "grader_skill_kl": kl.item()}

    def _sum_over_dp(self, sums: Counter[str]) -> dict[str, float]:
        """Adds up the ranks' shares, by name: a rank without an unmasked token has none."""
        dp_size = mpu.get_data_parallel_world_size()
        group = mpu.get_data_parallel_group()
        shares: list = [None] * dp_size
        dist.all_gather_object(shares, dict(sums), group=group)
        total: dict[str, float] = {"loss": 0.0}
        for share in shares:
            for name, value in share.items():
                before = total.get(name, 0)
                total[name] = before + value
        return total

    def export_hf(self, target_dir: str) -> None:
        """Writes the weights as a complete Hugging Face directory.

        Returns on every rank when it is complete.
        """
        if mpu.get_data_parallel_rank() == 0:
            tensors = gather_hf(self.model, self.shape, self.dtypes)
            if mpu.get_tensor_model_parallel_rank() == 0:
                write_hf(tensors, self.hf_dir, target_dir)
        dist.barrier()

    def save(self, checkpoint_dir: str) -> None:
        """Writes all that `load` needs to continue bit-exactly.

        The Hugging Face weights go to `checkpoint_dir`/hf. The first DP copy writes; a run may be
        resumed with another number of copies, but not with another TP size.
        """
        file = self._state_file(checkpoint_dir)
        file.parent.mkdir(parents=True, exist_ok=True)
        if mpu.get_data_parallel_rank() == 0:
            weights = {}
            for name, weight in self.model.named_parameters():
                weights[name] = weight.detach()
            optimizer = self.optimizer.state_dict()
            state = {
                "tensor_model_parallel_size": self.args.tensor_model_parallel_size,
                "model": weights,
                "optimizer": optimizer["state"],
                "scheduler": self.scheduler.state_dict(),
                "rng": torch.get_rng_state(),
            }
            with whole_file(file) as handle:
                _save(state, handle)
        target = os.path.join(checkpoint_dir, "hf")
        self.export_hf(target)

    def _state_file(self, checkpoint_dir: str) -> Path:
        rank = mpu.get_tensor_model_parallel_rank()
        return Path(checkpoint_dir, f"actor_tp{rank}.pt")

    @torch.no_grad()
    def _resume(self, file: Path) -> None:
        if not file.is_file():
            raise UserError(f"{file}: no such file; name the directory of a complete checkpoint")
        state = torch.load(file, weights_only=True)
        saved = state["tensor_model_parallel_size"]
        wanted = self.args.tensor_model_parallel_size
        if saved != wanted:
            was = f"was saved with tensor_model_parallel_size {saved}"
            wrong = f"{was}, not {wanted}"
            raise UserError(f"{file}: {wrong}; use {saved}")
        weights = state["model"]
        parameters = dict(self.model.named_parameters())
        if _sizes(parameters) != _sizes(weights):
            was = f"was saved for another network than {self.hf_dir}"
            raise UserError(f"{file}: {was}; start a new run directory")
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
        optimizer = self.optimizer.state_dict()  # its groups have this run's flags
        optimizer["state"] = state["optimizer"]
        self.optimizer.load_state_dict(optimizer)
        self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["rng"])

    def close(self) -> None:
        """Leaves the process group, so that another Actor can be made in this process."""
        shutdown_parallel()
