"""The hooks that slime and the CPU trainer call by name: self-graded reward, advantages, logs.

The method is the paper's (arXiv 2509.25534):
 1. The policy answers a prompt; the same served policy grades the answer by the prompt's rubric,
    each criterion asked by itself, before the update.
 2. Reward = points of met criteria / sum of positive points, not clipped; configs/grader.yaml
    names rules against drift, off by default.
 3. GRPO without KL and without entropy bonus updates the policy, the next answerer and grader.

What deviates from the authors' published code, and why:
 4. The thought that opens a response is not graded, nor are special tokens: theirs grades
    thoughts and `<|im_end|>` too, which no user sees.
 5. An answer without a final part, or cut at the length limit, scores 0 without a call
    (grader_truncated), as does one too long for the policy to grade, and in its group no more than
    the worst graded one: theirs grades it as if it were complete.
 6. Criteria come last in the prompt, after instructions, conversation and answer, so that all of
    them share their prefix in the engine's cache, which reads it before they are asked.
 7. Delimiters carry a hash of their content and the template is filled in one pass: in theirs an
    answer can forge turns and expand placeholders.
 8. A verdict is a JSON boolean that ends the reply, and on which all objects after the thoughts
    agree: theirs takes the first block, also inside thoughts, and the string "false" as met.
 9. A reply without a readable verdict is finished: after the verdict's opening the probabilities
    of its two words decide, against the policy only where it grades itself. Else it counts against
    the policy: theirs counts it as not met, which rewards negative criteria.
10. If the grader cannot be reached the answer is ungraded: NaN, out of its group's mean and std
    and out of the loss, never 0; requests have time limits and a bounded number of retries. Too
    many of them end the run (grader_most_ungraded).
11. Training is on the 4,000 Easy prompts, evaluation on the 1,000 Hard ones: theirs swaps the two.
12. A row without positive points is refused: theirs divides by zero.

This file and rubric_rl/tiny/log_hooks.py know slime's samples; configs/recipe.sh names the hooks.
"""

import asyncio
import math

from rubric_rl.common.errors import UserError
from rubric_rl.data.parse import RowCache, record_from_json
from rubric_rl.data.record_file import append_record, run_name
from rubric_rl.data.schema import Record
from rubric_rl.evaluation.rollout_metrics import flat_share, grading_metrics, is_flat
from rubric_rl.grading.health import sickness
from rubric_rl.grading.score import apply_rule, batch_advantages, known_rewards
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.launch.slime_samples import (
    add_metrics,
    compared,
    drop_answer,
    drops_failures,
    flat,
    is_aborting,
    rewards_of,
    rollout_id,
)
from rubric_rl.serving.question import Aborted
from rubric_rl.trust.anchor import grade_beside
from rubric_rl.trust.watch import (
    forget_lost_updates,
    stop_if_alarmed,
    watch_evaluation,
    watch_update,
)
from rubric_rl.trust.watched_graders import WatchedGraders

_graders_of_loop: dict = {}  # the running event loop -> its graders
_rows = RowCache()


async def reward(args, sample, **kwargs):
    """The reward of one sample, or of each for a list: points met / points possible.

    It is NaN when the sample stays ungraded, and with --reward-key a dict under that key; None
    when slime aborted the answer or its grading and may ask again. Leaves the record in
    `sample.metadata["grading"]` and, with grader_records, on disk. Raises UserError for settings
    that cannot work and a grader that fails its check question.
    """
    if not isinstance(sample, list):
        return await _reward(args, sample, again=True)
    # Of a group slime takes up again what was aborted; not of the parts of an answer that a custom
    # generate function cut into several samples.
    again = bool(getattr(args, "group_rm", False))
    return await asyncio.gather(*(_reward(args, one, again=again) for one in sample))


async def _reward(args, sample, again: bool):
    """The reward of one sample; `again`: slime asks again where it is None."""
    value = await _grade(args, sample, again) if sample.metadata else math.nan
    key = getattr(args, "reward_key", None)
    # None stays None: a dict would be a reward.
    return {key: value} if key and value is not None else value


async def _grade(args, sample, again: bool) -> float | None:
    row = _rows.row(sample.metadata, f"sample {sample.index}")
    training = sample.group_index is not None  # slime groups training samples only
    graders = _graders(args)
    if sample.status.value == "aborted":  # in the midst of its answer
        return _abort(sample, again and training)
    if sample.status.value == "failed":  # a tool or an API failed, not the policy
        error = "the answer's generation failed (its status is FAILED)"
        record = Record.of(row, "ungraded", None, error=error)
    else:
        prompt = sample.prompt if isinstance(sample.prompt, str) else ""
        async with graders.watching(sample, rollout_id(args), training):
            try:
                record = await grade_beside(
                    graders.anchor_of(row.prompt_id, training),
                    await graders.choose_checked(row.prompt_id, training),
                    row,
                    graders.usual_thoughts(sample.response or "", prompt),
                    prompt,
                    truncated=sample.status.value == "truncated",
                    # All criteria of an answer go to the same engine.
                    routing_key=sample.session_id or f"{row.prompt_id}-{sample.index}",
                )
            except Aborted:
                return _abort(sample, again and training)
            except UserError as error:  # such as of a grader that fails its check question
                if not drops_failures(args):
                    raise
                record = Record.of(row, "ungraded", None, error=str(error))
    record.split = "train" if training else "eval"
    record.index, record.group = sample.index, sample.group_index
    record.weight_version = (sample.weight_versions or record.grader_versions or ["none"])[-1]
    record.run, record.rollout = run_name(), rollout_id(args)
    if training and record.status == "graded":
        apply_rule(record, graders.rule)
    if graders.records:
        append_record(graders.records, record)
    sample.metadata["grading"] = record.to_json()
    return record.score


def _abort(sample, again: bool) -> float | None:
    """Marks a sample that was aborted, so that nobody trains on it; its reward.

    slime's fully asynchronous rollout takes the sample up again, and asks for its reward only
    where that is None. As it would go on writing after the end of a whole answer, that is dropped.
    An evaluation takes nothing up again and needs a number.
    """
    aborted = type(sample.status).ABORTED
    is_whole = sample.status is not aborted  # only its grading was aborted
    sample.status = aborted
    sample.metadata.pop("grading", None)  # of an earlier answer
    if not again:
        return math.nan
    if is_whole:
        drop_answer(sample)
    return None


def _graders(args) -> WatchedGraders:
    """The graders of the running event loop; configs/grader.yaml says who grades."""
    loop = asyncio.get_running_loop()
    if loop not in _graders_of_loop:
        stop_if_alarmed(args)
        graders = WatchedGraders(args, lambda: is_aborting(args))
        # A closed loop has closed its connections; another one may be running in a thread.
        for other in list(_graders_of_loop):
            if other.is_closed():
                _graders_of_loop.pop(other, None)  # another thread may have done it
        _graders_of_loop[loop] = graders
    return _graders_of_loop[loop]


def post_process(args, samples) -> tuple[list[float], list[float]]:
    """(raw rewards, advantages): each group is normalised over its graded members.

    The others are out of the loss. Raw rewards are only logged: an ungraded one is replaced by the
    mean of the graded, which the logged mean then is. Raises UserError when no sample of the
    rollout could be graded, too few could, or most replies could not be read.
    """
    rewards = rewards_of(args, samples)
    known = known_rewards(rewards)
    records = _records(samples)
    _stop_without_a_grader(known, records)
    limits = GraderSettings.load(vars(args)).grading
    if complaint := sickness(records, limits.most_unreadable):
        raise UserError(f"the grader of this rollout is sick: {complaint}")
    ungraded = len(rewards) - len(known)
    if ungraded > limits.most_ungraded * len(rewards):
        what = f"{ungraded} of {len(rewards)} answers of this rollout stayed ungraded"
        hint = "see grader_most_ungraded"
        raise UserError(f"{what}, for example: {_first_error(records)}; {hint}")
    for sample, value in zip(flat(samples), rewards, strict=True):
        sample.remove_sample = sample.remove_sample or math.isnan(value)
    mean = sum(known) / len(known)
    raw = [mean if math.isnan(value) else value for value in rewards]
    rewards, groups = compared(args, samples)
    normalise = getattr(args, "grpo_std_normalization", True)
    return raw, batch_advantages(rewards, groups, normalise)


def _stop_without_a_grader(known: list[float], records: list[Record]) -> None:
    """Raises UserError when no answer got a verdict, and not for want of an answer.

    Answers that score 0 unread say nothing about the grader.
    """
    statuses = {record.status for record in records}
    asked_in_vain = "ungraded" in statuses and "graded" not in statuses
    if known and not asked_in_vain:
        return
    raise UserError(f"no answer of this rollout could be graded: {_first_error(records)}")


def _first_error(records: list[Record]) -> str:
    reasons = (record.error for record in records if record.error)
    return next(reasons, "rows carry no rubrics")


def keep_informative(args, samples, **kwargs) -> bool:
    """Whether to keep a group: its rewards differ, or it has none; any other has no gradient.

    Not in the recipe: --dynamic-sampling-filter-path self_reward_rm.keep_informative.
    """
    rewards, _ = compared(args, samples)
    # Dropped, answers that nobody can grade would be made for ever; kept, they end the run.
    return not is_flat(rewards) or not known_rewards(rewards)


def log_rollout(rollout_id, args, samples, extra_metrics, rollout_time) -> bool:
    """Adds the reward's parts and the grading's cost to the metrics as `grading/...`.

    Returns False, which keeps the default log. Raises UserError where the alarm ends the run.
    """
    forget_lost_updates(args, rollout_id)
    stop_if_alarmed(args)
    metrics = grading_metrics(_records(samples))
    metrics["zero_variance_groups"] = flat_share(*compared(args, samples))
    for graders in list(_graders_of_loop.values()):
        if move := graders.take_move():
            watch_update(args, move)
            metrics["moved"] = move.nats
    named = {f"grading/{name}": value for name, value in metrics.items()}
    add_metrics(rollout_id, args, extra_metrics, named)
    return False


def log_eval(rollout_id, args, data, extra_metrics) -> bool:
    """The same per evaluation set, whose mean then leaves out ungraded answers; and the watch."""
    figures, graded, probed = {}, {}, None
    for name, result in data.items():
        result["rewards"] = known_rewards(result["rewards"]) or [math.nan]  # slime divides by it
        samples = flat(result.get("samples") or [])
        graded[name] = _records(samples)
        for key, value in grading_metrics(graded[name]).items():
            figures[f"{name}/grading/{key}"] = value
        found = [sample.metadata or {} for sample in samples]
        probes = [metadata["probe"] for metadata in found if "probe" in metadata]
        probed = next(iter(probes), probed)
    figures |= watch_evaluation(args, rollout_id, graded, probed)
    for key, value in figures.items():
        if extra_metrics is None:  # slime passes none: each becomes a set with one reward
            data[key] = {"rewards": [value]}
        else:
            extra_metrics[f"eval/{key}"] = value
    return False


def _records(samples) -> list[Record]:
    """The records that `reward` left in the samples."""
    found = [(sample.metadata or {}).get("grading") for sample in flat(samples)]
    return [record_from_json(item) for item in found if item]
