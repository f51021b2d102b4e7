"""The trainer without a GPU: rollout, self-grading, GRPO update, weight sync, evaluation.

    python -m rubric_rl.cpu.train FLAGS      slime's flags; `bash run_qwen3_tiny.sh` gives them

This process owns all others. After a kill at any moment, the same command resumes from the last
complete checkpoint.
"""

import errno
import os
import shlex
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_text
from rubric_rl.common.progress import StageBar
from rubric_rl.cpu import check_machine, flags, local_ray, plots
from rubric_rl.cpu.engine_plan import plan_line
from rubric_rl.cpu.recorder import Recorder
from rubric_rl.cpu.run_directory import RunDirectory
from rubric_rl.data.record_file import RUN_VARIABLE
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.trust.alarm import STATUS, alarm_of, best_rollout
from rubric_rl.trust.evaluations import stored
from rubric_rl.trust.moved import kept_moves
from rubric_rl.trust.watch import alarm_before_checkpoint, update_alarm


class Trainer:
    """The loop over rollouts, counted by `rollout_id` from 0.

    The weights that answer rollout r have the weight version r: they were trained on r rollouts.
    What a rollout writes counts once its checkpoint is committed.
    """

    def __init__(self, args, run: RunDirectory, cluster, recorder: Recorder):
        self.args = args
        self.run_directory = run
        self.cluster = cluster
        self.recorder = recorder
        self.trust = GraderSettings.load(vars(args)).trust

    def run(self, start: int) -> bool:
        """Makes the rollouts from `start` on; False where the alarm has ended the run.

        Before the first there is also an evaluation, where the curve begins.
        """
        self._sync(start, weight_version=start)
        args = self.args
        is_evaluated = args.eval_interval and not args.skip_eval_before_train
        if start == 0 and is_evaluated:
            self._evaluate(0, weight_version=0)
        for rollout_id in range(start, args.num_rollout):
            self._iterate(rollout_id)
            if is_stopped(args):
                return False
        return True

    def _iterate(self, rollout_id: int) -> None:
        """One rollout, the update by it, and what is due then."""
        args = self.args
        begin = time.monotonic()
        metrics: dict[str, float] = {}
        data = self._rollout(rollout_id, metrics)
        self._update(rollout_id, data, metrics)
        checkpoint = None
        if self._is_due(rollout_id, args.save_interval):
            checkpoint = self._save(rollout_id, metrics)
        new_version = rollout_id + 1
        metrics["perf/sync_time"] = self._sync(rollout_id, new_version)
        end = time.monotonic()
        metrics["perf/step_time"] = end - begin
        metrics["perf/memory_gb"] = self.cluster.memory_gb()
        self.recorder.rollout(rollout_id, metrics)
        is_evaluated = args.eval_interval and self._is_due(rollout_id, args.eval_interval)
        if is_evaluated:
            self._evaluate(rollout_id, new_version)
        if checkpoint:
            best = best_rollout(stored(self.run_directory.path))
            self.run_directory.commit(rollout_id, checkpoint, best)

    def _is_due(self, rollout_id: int, interval: int | None) -> bool:
        """slime's rule for periodic work; after the last rollout all is due."""
        done = rollout_id + 1
        if done == self.args.num_rollout:
            return True
        if interval is None:
            return False
        return done % interval == 0

    def _rollout(self, rollout_id: int, metrics: dict) -> Any:
        """The training data, which stays with Ray."""
        self.recorder.stage(rollout_id, "rollout")
        manager = self.cluster.manager
        generate = manager.generate.options(num_returns=2)
        weight_version = str(rollout_id)
        data, pending = generate.remote(rollout_id, weight_version)

        def report(progress: dict) -> None:
            generated = progress["generated"]
            if generated == progress["total"]:
                self.recorder.stage(rollout_id, "grading")

        args = self.args
        total = args.rollout_batch_size * args.n_samples_per_prompt
        what = f"rollout {rollout_id}: answers and grading"
        with StageBar(what, total, "answer") as bar:
            found = self.cluster.watch(pending, bar, report)
        metrics |= found
        if "grading/moved" in found and (alarm := update_alarm(args)):
            self.recorder.say(alarm)
        return data

    def _update(self, rollout_id: int, data: Any, metrics: dict) -> None:
        self.recorder.stage(rollout_id, "update")
        begin = time.monotonic()
        ranks = len(self.cluster.actors)
        what = f"rollout {rollout_id}: update"
        with StageBar(what, ranks, "rank") as bar:
            of_ranks = self.cluster.call_actors("train", rollout_id, data)
            bar.move_to(ranks)
        metrics |= of_ranks[0]  # the same on every rank
        end = time.monotonic()
        metrics["perf/update_time"] = end - begin

    def _save(self, rollout_id: int, metrics: dict) -> Path:
        """The prepared checkpoint."""
        self.recorder.stage(rollout_id, "saving")
        begin = time.monotonic()
        manager = self.cluster.manager
        pending_state = manager.state.remote()
        (data_state,) = self.cluster.wait([pending_state])

        def write(directory: Path) -> None:
            path = str(directory)
            self.cluster.call_actors("save", path)

        checkpoint = self.run_directory.prepare(rollout_id, data_state, write)
        end = time.monotonic()
        metrics["perf/save_time"] = end - begin
        return checkpoint

    def _sync(self, rollout_id: int, weight_version: int) -> float:
        """Hands the weights to the engines; returns the seconds it took."""
        self.recorder.stage(rollout_id, "sync")
        begin = time.monotonic()
        self.cluster.sync(weight_version)
        return time.monotonic() - begin

    def _evaluate(self, rollout_id: int, weight_version: int) -> None:
        self.recorder.stage(rollout_id, "eval")
        manager = self.cluster.manager
        pending = manager.evaluate.remote(rollout_id)
        what = f"evaluation of weight version {weight_version}"
        with StageBar(what, None, "answer") as bar:
            metrics = self.cluster.watch(pending, bar, lambda progress: None)
        self.recorder.evaluation(rollout_id, weight_version, metrics)
        save = self.run_directory.path
        if self.trust.alarm == "off":
            return
        if alarm := alarm_of(stored(save), self.trust, kept_moves(save)):
            self.recorder.say(alarm.text(save))


def is_stopped(args) -> bool:
    """Whether grader_alarm is stop, and an alarm stands that a checkpoint follows."""
    trust = GraderSettings.load(vars(args)).trust
    return trust.alarm == "stop" and alarm_before_checkpoint(args.save, trust) is not None


def initial_weights(args) -> str:
    """Where training starts, by slime's rule.

    --load if that is a Hugging Face directory, else --ref-load, else --hf-checkpoint.
    """
    load = args.load
    if load:
        config = Path(load, "config.json")
        if config.is_file():
            return load
    return args.ref_load or args.hf_checkpoint


def first_rollout(args, run: RunDirectory) -> int:
    """The rollout to begin with; what belongs to no checkpointed rollout is dropped.

    Raises:
        UserError: when the directory holds another experiment.
    """
    last = run.newest()
    if last is None:
        start = 0
    else:
        start = last + 1
        if not args.load or not run.is_at(args.load):
            path = run.path
            hint = f"give --load {path} to resume it, or another --save"
            raise UserError(f"{path} holds a run; {hint}")
    run.check_experiment(args, resuming=start > 0)
    run.cut_back(start)
    return start


def train(args, run: RunDirectory) -> bool:
    """The whole run, from the last checkpoint to the figures; False where the alarm has ended it.

    A run that it has ended goes on once grader_alarm says something else than stop.
    """
    directory = run.path
    start = first_rollout(args, run)
    os.environ[RUN_VARIABLE] = run.run_name()  # the hooks read it in the processes of Ray
    rollouts = args.num_rollout  # None until the rows are read, with --num-epoch
    total = rollouts or 0
    recorder = Recorder(directory, start, total, args.use_tensorboard)
    _write_command(directory)
    try:
        finished = start == 0 or not is_stopped(args)
        if finished and (rollouts is None or start < rollouts):
            whence = "a new run"
            if start > 0:
                whence = f"going on after rollout {start - 1}"
            recorder.say(f"{directory}: {whence}")
            finished = _run_cluster(args, run, recorder, start)
        summary = plots.draw(directory)
        recorder.say(summary)
        if not finished:
            recorder.say("stopped by the alarm (grader_alarm: stop)")
        return finished
    except Exception as error:
        text = traceback.format_exc()
        recorder.log(text)
        details = f"details: {directory}/train.log"
        error.add_note(f"{details}; servers' logs: {directory}/logs")
        raise
    except KeyboardInterrupt:
        recorder.log("stopped by a signal")
        raise
    finally:
        recorder.close()


def _write_command(directory: Path) -> None:
    words = sys.argv[1:]
    command = [sys.executable, "-m", "rubric_rl.cpu.train", *words]
    line = shlex.join(command)
    path = directory / "command.sh"
    write_text(path, line + "\n")


def _run_cluster(args, run: RunDirectory, recorder: Recorder, start: int) -> bool:
    """Starts all processes, makes the rollouts, stops all processes; as `Trainer.run`."""
    local_ray.set_environment()
    # Here, because importing Ray takes seconds that an error in flags should not; and because Ray
    # reads that environment when it is imported.
    from rubric_rl.cpu.cluster import Cluster

    began = time.monotonic()
    with Cluster(args, run.path) as cluster:
        try:
            recorder.stage(start, "starting")
            if line := plan_line(args):
                recorder.say(line)
            checkpoint = data_state = None
            if start > 0:
                last = start - 1
                checkpoint = run.checkpoint(last)
                data_state = run.data_state(last)
            weights = initial_weights(args)
            cluster.start(weights, checkpoint, data_state)
            ended = time.monotonic()
            seconds = ended - began
            recorder.say(f"everything is up after {seconds:.0f} s")
            recorder.total = args.num_rollout
            trainer = Trainer(args, run, cluster, recorder)
            finished = trainer.run(start)
            recorder.stage(args.num_rollout, "finished" if finished else "stopped")
            return finished
        except KeyboardInterrupt:
            recorder.say("stopping ...")
            raise
        finally:  # nothing may interrupt the shutdown
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _cause(error: BaseException) -> BaseException:
    """What was raised where it happened: Ray wraps the exception of an actor into its own."""
    return getattr(error, "cause", None) or error


def _one_line(error: BaseException) -> str:
    """The error for the console."""
    cause = _cause(error)
    if isinstance(cause, UserError):
        return str(cause)
    if _is_full_disk(cause):
        where = getattr(cause, "filename", None) or "SAVE_PATH"
        hint = "make room, and the same command goes on from the last checkpoint"
        return f"{where}: the disk is full; {hint}"
    text = str(cause).strip()
    first_line, _, _ = text.partition("\n")
    kind = type(cause).__name__
    if kind == "ActorDiedError":
        what = "a process of the trainer was killed or crashed, perhaps out of memory"
        return f"{what} ({first_line})"
    return f"{kind}: {first_line}"


def _is_full_disk(cause: BaseException) -> bool:
    """Whether a disk or a quota is full; torch and safetensors only say so in words."""
    full = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(cause, OSError):
        return cause.errno in full
    text = str(cause)
    for number in full:
        words = os.strerror(number)
        if words in text:
            return True
    return False


def _is_interrupted(error: BaseException | None) -> bool:
    """Whether a signal is behind an error.

    shutil.rmtree, for one, turns KeyboardInterrupt into an OSError.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _print_error(line: str) -> None:
    print(line, file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Runs the trainer with these words, or with those of the command line.

    Exit status: 0 finished, 3 ended by the alarm (grader_alarm: stop), 2 something for the user to
    fix, 1 a defect of ours, 130 Ctrl-C or SIGTERM.
    """
    # As Ctrl-C: Ray's calls survive this exception and no other.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if argv is None:
        argv = sys.argv[1:]
    run = None
    try:
        args = flags.parse(argv)
        check_machine.check(args)
        run = RunDirectory(args.save)
        finished = train(args, run)
    # The last stop of all: one line here, the traceback in train.log.
    except (KeyboardInterrupt, Exception) as error:
        if _is_interrupted(error):
            where = run.path if run else "SAVE_PATH"
            hint = f"the same command resumes from the last checkpoint in {where}"
            _print_error(f"stopped; {hint}")
            return 130
        cause = _cause(error)
        is_full = _is_full_disk(cause)
        is_users = is_full or isinstance(cause, UserError)
        line = _one_line(error)
        _print_error(f"error: {line}")
        if run is None and not is_users:
            raise
        notes = getattr(error, "__notes__", ())
        for note in notes:
            _print_error(note)
        if is_users:
            return 2
        return 1
    return 0 if finished else STATUS


if __name__ == "__main__":
    os.umask(0o077)  # checkpoints, records and logs are this user's alone
    sys.exit(main())
