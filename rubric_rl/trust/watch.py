"""What the log hooks do beside logging: keep the evaluation, compare it, raise the alarm.

All of it is read again from SAVE_PATH, so nothing is lost with a process.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_text
from rubric_rl.data.schema import Record
from rubric_rl.data.training_settings import Trust
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.trust.alarm import Alarm, alarm_of
from rubric_rl.trust.evaluations import evaluation_of, store, stored, stored_names
from rubric_rl.trust.exploitation import change_figures
from rubric_rl.trust.moved import Move, drop_moves, keep, kept_moves

LOG = logging.getLogger(__name__)
TRACKER = "latest_checkpointed_iteration.txt"  # Megatron's: the rollout of the last checkpoint
STOPPED = "stopped_by_alarm.txt"  # in SAVE_PATH, says why the run has ended


def watch_evaluation(
    args, rollout: int, records: Mapping[str, Sequence[Record]], probed: Mapping | None
) -> dict[str, float]:
    """Figures of an evaluation that need those before it, by name without `eval/`.

    `records` are the evaluation's, by set, `probed` what the probe found. Says the alarm where it
    stands; whether that ends the run, `stop_if_alarmed` says.
    """
    settings = GraderSettings.load(vars(args))
    trust = settings.trust
    figures = {}
    if probed:
        figures = {f"probe/{name}": value for name, value in probed["figures"].items()}
    save = getattr(args, "save", None)
    is_watched = settings.training.anchor or trust.probe
    if not save or not is_watched:
        return figures
    prompts = probed["prompts"] if probed else None
    store(save, evaluation_of(rollout, records, prompts, trust))
    evaluations = stored(save)
    first, *_, now = [evaluations[0], *evaluations]
    if len(evaluations) > 1 and settings.training.anchor:
        for dataset in now.datasets:
            changed = change_figures(first.of(dataset), now.of(dataset))
            for name, value in changed.items():
                figures[f"{dataset}/grading/anchor/{name}"] = value
    if trust.alarm != "off":
        alarm = alarm_of(evaluations, trust, kept_moves(save))
        figures["alarm/raised"] = float(alarm is not None)
        if alarm:
            LOG.warning(alarm.text(save))
    return figures


def watch_update(args, move: Move) -> None:
    """Keeps an update in SAVE_PATH, and says the alarm where it moved the policy too far."""
    if getattr(args, "save", None):
        keep(args.save, move)
        if text := update_alarm(args):
            LOG.warning(text)


def forget_lost_updates(args, rollout: int) -> None:
    """Drops the updates of this rollout and later ones: a killed run made them, which goes on."""
    save = getattr(args, "save", None)
    if save and GraderSettings.load(vars(args)).trust.alarm != "off":
        drop_moves(save, rollout)


def update_alarm(args) -> str | None:
    """What the alarm says of the last update alone; None where it went no further than it may."""
    trust = GraderSettings.load(vars(args)).trust
    alarm = alarm_of([], trust, kept_moves(args.save)[-1:])
    return alarm.text(args.save) if alarm else None


def stop_if_alarmed(args) -> None:
    """Raises UserError where grader_alarm is stop, and an alarm stands that a checkpoint follows.

    The trainer without a GPU looks by itself after each checkpoint; slime can only be stopped by
    its hooks.
    """
    save = getattr(args, "save", None)
    trust = GraderSettings.load(vars(args)).trust
    if save and trust.alarm == "stop" and (alarm := alarm_before_checkpoint(save, trust)):
        text = alarm.text(save)
        write_text(Path(save) / STOPPED, text + "\n")
        raise UserError(text)


def alarm_before_checkpoint(save: str, trust: Trust) -> Alarm | None:
    """The alarm by the evaluations and updates up to the last checkpoint, if it may end the run.

    Where nobody can tell which that is, the alarm by all of them: the run may lose rollouts, but
    does not go on without its alarm. Raises DataError for a damaged file of theirs.
    """
    tracker = Path(save) / TRACKER
    try:
        checkpoint = int(tracker.read_bytes())
    except FileNotFoundError:  # none yet
        return None
    except (ValueError, OSError):
        _say_once(f"{tracker}: names no rollout; until it does, an alarm waits for no checkpoint")
        checkpoint = math.inf
    names = (*stored_names(save), *kept_moves(save))
    # pyright does not see that a frozen model has a hash.
    return _alarm_by_then(save, trust, checkpoint, names)  # pyright: ignore[reportArgumentType]


@cache
def _say_once(line: str) -> None:
    LOG.warning(line)


@lru_cache(maxsize=1)
def _alarm_by_then(save: str, trust: Trust, checkpoint: float, names: tuple) -> Alarm | None:
    """Asked after each rollout, answered anew after an evaluation, update or checkpoint only."""
    alarm = alarm_of(stored(save, checkpoint), trust, kept_moves(save, checkpoint))
    return alarm if alarm and alarm.ends_a_run else None
