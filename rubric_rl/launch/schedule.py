"""How long a run is in optimizer steps, and how many of them warm up."""

from dataclasses import dataclass

from rubric_rl.common.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """In optimizer steps: the run, the decay of the learning rate, its warm-up."""

    steps: int
    decay: int
    warmup: float


def answers_per_step(answers: int, global_batch: int | None, steps: int | None) -> int:
    """Answers of one optimizer step, of a rollout of `answers`; 0 where no flag says it.

    It is `--global-batch-size`, else the rollout shared by its `--num-steps-per-rollout`.
    """
    if global_batch:
        return global_batch
    return answers // steps if steps else 0


def schedule(
    answers: int, batch: int, decay: int | None, warmup: int, fraction: float | None
) -> Schedule:
    """The schedule of a run that trains on `answers` answers in steps of `batch`.

    `decay` None: the whole run. The warm-up is `warmup` steps, or `fraction` of the decay if that
    is not None. Source: slime `get_optimizer_param_scheduler`.

    Raises UserError for a warm-up as long as the decay: Megatron's scheduler would stop the run at
    a bare assertion, with all GPUs up.
    """
    steps = answers // batch
    decay = decay or steps
    if fraction is None:
        flag, warm = "--lr-warmup-iters", float(warmup)
    else:
        flag, warm = "--lr-warmup-fraction", fraction * decay
    if warm >= decay:
        what = f"{warm:g} optimizer steps of warm-up are not below the run's {decay}"
        raise UserError(f"{flag}: {what}; lower it")
    return Schedule(steps, decay, warm)
