"""The hooks that slime and the CPU trainer call by name: self-graded reward, advantages, logs (stages 3 and 4).

The only file that knows slime's objects; configs/recipe.sh names the hooks that every run uses.
"""

import asyncio
import math
import sys

from rubric_rl.data.schema import row_from_metadata
from rubric_rl.errors import UserError
from rubric_rl.grading.client import Aborted
from rubric_rl.grading.grade import grade
from rubric_rl.grading.graders import Graders
from rubric_rl.grading.record import append_record, grading_metrics
from rubric_rl.grading.score import batch_advantages, flat_share, graded, is_flat

_clients: dict = {}  # the running event loop -> its graders


async def reward(args, sample, **kwargs):
    """The reward of one sample (or of each, for a list): points met / points possible; NaN when it stays ungraded.

    Leaves the verdict record in `sample.metadata["grading"]` and, with grader_records, on disk. With --reward-key the
    reward is a dict under that key. Raises UserError for settings that cannot work; a failing grader never raises.
    """
    if isinstance(sample, list):
        return await asyncio.gather(*(reward(args, one, **kwargs) for one in sample))
    value = await _grade(args, sample) if sample.metadata else math.nan  # no rubric, no reward
    key = getattr(args, "reward_key", None)
    return {key: value} if key else value


async def _grade(args, sample) -> float:
    row = row_from_metadata(sample.metadata, f"sample {sample.index}")
    split = (
        "train" if sample.group_index is not None else "eval"
    )  # slime groups training samples only
    graders = _graders(args)
    grader, client = graders.choose(row.prompt_id, split == "train")
    key = (
        sample.session_id or f"{row.prompt_id}-{sample.index}"
    )  # all criteria of an answer go to the same engine
    try:
        grading = await grade(
            client, row, sample.response, sample.prompt, sample.status.value == "truncated", key
        )
    except Aborted:
        sample.status = type(sample.status).ABORTED  # so that nobody trains on it
        return math.nan
    version = (sample.weight_versions or grading.weight_versions or ["none"])[-1]
    record = grading.record() | {
        "split": split,
        "index": sample.index,
        "weight_version": version,
        "grader": grader,
    }
    sample.metadata["grading"] = record
    if graders.records:
        append_record(graders.records, record)
    return grading.score


def _graders(args) -> Graders:
    """The grader clients of the running event loop; configs/grader.yaml says who grades."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        graders = Graders(args, lambda: _aborting(args))
        _clients.clear()  # earlier loops have ended: their clients must not keep connections open
        _clients[loop] = graders
    return _clients[loop]


def _aborting(args) -> bool:
    """Whether slime is aborting the rollout: it then aborts requests until no more come, so none may be sent."""
    module = sys.modules.get("slime.rollout.sglang_rollout")
    return module is not None and module.GenerateState(args).aborted


def post_process(args, samples) -> tuple[list[float], list[float]]:
    """(raw rewards, advantages): each group is normalised over its graded members; the others are out of the loss.

    Raw rewards are only logged: an ungraded one is replaced by the mean of the graded, which the logged mean then is.
    Raises UserError when no sample of the rollout could be graded.
    """
    rewards = _rewards(args, samples)
    if not (known := graded(rewards)):
        reason = next(
            (record["error"] for record in _gradings(samples) if record["error"]),
            "rows carry no rubrics",
        )
        raise UserError(f"no answer of this rollout could be graded: {reason}")
    for sample, value in zip(samples, rewards, strict=True):
        sample.remove_sample = sample.remove_sample or math.isnan(value)
    mean, normalise = sum(known) / len(known), getattr(args, "grpo_std_normalization", True)
    advantages = batch_advantages(rewards, [sample.group_index for sample in samples], normalise)
    return [mean if math.isnan(value) else value for value in rewards], advantages


def keep_informative(args, samples, **kwargs) -> bool:
    """Dynamic sampling filter: keeps a group only if its graded rewards differ, for otherwise it has no gradient."""
    return not is_flat(_rewards(args, samples))


def log_rollout(rollout_id, args, samples, extra_metrics, rollout_time) -> bool:
    """Adds the reward's parts and the grading's cost to the metrics as `grading/...`; False keeps the default log."""
    metrics = grading_metrics(_gradings(samples))
    metrics["zero_variance_groups"] = flat_share(
        _rewards(args, samples), [s.group_index for s in samples]
    )
    if (
        extra_metrics is not None
    ):  # slime has none when it replays a stored rollout, and then logs nothing
        extra_metrics.update({f"grading/{name}": value for name, value in metrics.items()})
    return False


def log_eval(rollout_id, args, data, extra_metrics) -> bool:
    """The same per evaluation set, whose mean then leaves out ungraded answers."""
    for name, result in list(data.items()):
        result["rewards"] = graded(result["rewards"]) or [math.nan]  # slime divides by their number
        for key, value in grading_metrics(_gradings(result.get("samples") or [])).items():
            if (
                extra_metrics is None
            ):  # slime passes none: each metric goes in as a data set with one reward
                data[f"{name}/grading/{key}"] = {"rewards": [value]}
            else:
                extra_metrics[f"eval/{name}/grading/{key}"] = value
    return False


def _rewards(args, samples) -> list[float]:
    key = getattr(args, "reward_key", None)
    # a custom generate function may return several samples for one
    flat = (one for each in samples for one in (each if isinstance(each, list) else [each]))
    values = (
        sample.reward[key] if key and sample.reward is not None else sample.reward
        for sample in flat
    )
    return [math.nan if value is None else value for value in values]


def _gradings(samples) -> list[dict]:
    return [record for sample in samples if (record := (sample.metadata or {}).get("grading"))]
