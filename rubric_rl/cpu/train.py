"""The trainer without a GPU: rollout, self-grading, GRPO update, weight sync, evaluation (stages 2 to 6).

    python -m rubric_rl.cpu.train FLAGS      slime's flags; `bash run_qwen3_tiny.sh` gives them

This process owns all others. After a kill at any moment, the same command resumes from the last complete checkpoint.
"""

import shlex
import signal
import sys
import time
import traceback
from pathlib import Path

from rubric_rl.cpu import check_machine, flags, plots
from rubric_rl.cpu.recorder import Bar, Recorder
from rubric_rl.cpu.run_directory import RunDirectory
from rubric_rl.errors import UserError
from rubric_rl.jsonl import write_text


class Trainer:
    """The loop over rollouts. What a step writes counts once its checkpoint is committed."""

    def __init__(self, args, run: RunDirectory, cluster, recorder: Recorder):
        self.args, self.run, self.cluster, self.recorder = args, run, cluster, recorder

    def go(self, start: int) -> None:
        """Makes the steps from `start` on; before step 0 also an evaluation, where the curve begins."""
        self._sync(start, start)
        if start == 0 and self.args.eval_interval and not self.args.skip_eval_before_train:
            self._evaluate(0, 0)
        for step in range(start, self.args.num_rollout):
            self._step(step)

    def _step(self, step: int) -> None:
        begin = time.monotonic()
        data, metrics = self._rollout(step)
        metrics |= self._update(step, data)
        temporary = None
        if self._due(step, self.args.save_interval):
            temporary, metrics["perf/save_time"] = self._save(step)
        metrics["perf/sync_time"] = self._sync(step, step + 1)
        metrics["perf/step_time"] = time.monotonic() - begin
        metrics["perf/memory_gb"] = self.cluster.memory_gb()
        self.recorder.step(step, metrics)
        if self.args.eval_interval and self._due(step, self.args.eval_interval):
            self._evaluate(step, step + 1)
        if temporary:
            self.run.commit(step, temporary)

    def _due(self, step: int, interval: int | None) -> bool:
        """slime's rule for periodic work; the last step always saves and evaluates."""
        return step == self.args.num_rollout - 1 or (
            interval is not None and (step + 1) % interval == 0
        )

    def _rollout(self, step: int):
        self.recorder.stage(step, "rollout")
        call = self.cluster.manager.generate.options(num_returns=2).remote(step, str(step))

        def note(progress: dict) -> None:
            if progress["generated"] == progress["total"]:
                self.recorder.stage(step, "grading")

        total = self.args.rollout_batch_size * self.args.n_samples_per_prompt
        with Bar(f"step {step + 1}: rollout and grading", total, "answer") as bar:
            self.cluster.watch(call[1], bar, note)
        return call[0], self.cluster.wait([call[1]])[0]

    def _update(self, step: int, data) -> dict:
        self.recorder.stage(step, "update")
        begin = time.monotonic()
        with Bar(f"step {step + 1}: update", len(self.cluster.actors), "rank") as bar:
            results = self.cluster.wait(
                [actor.call.remote("train", step, data) for actor in self.cluster.actors]
            )
            bar.at(len(results))
        return results[0] | {"perf/update_time": time.monotonic() - begin}

    def _save(self, step: int) -> tuple[Path, float]:
        self.recorder.stage(step, "saving")
        begin = time.monotonic()
        (data,) = self.cluster.wait([self.cluster.manager.state.remote()])

        def write(directory: Path) -> None:
            self.cluster.wait(
                [actor.call.remote("save", str(directory)) for actor in self.cluster.actors]
            )

        temporary = self.run.prepare(step, {"step": step, "data": data}, write)
        return temporary, time.monotonic() - begin

    def _sync(self, step: int, version: int) -> float:
        self.recorder.stage(step, "sync")
        begin = time.monotonic()
        self.cluster.sync(str(version))
        return time.monotonic() - begin

    def _evaluate(self, step: int, updates: int) -> None:
        self.recorder.stage(step, "eval")
        call = self.cluster.manager.evaluate.remote(step)
        with Bar(f"evaluation after {updates} steps", None, "answer") as bar:
            self.cluster.watch(call, bar, lambda progress: None)
        self.recorder.evaluation(updates, self.cluster.wait([call])[0])


def initial_weights(args) -> str:
    """Where training starts, by slime's rule: --load if a Hugging Face directory, else --ref-load, --hf-checkpoint."""
    if args.load and (Path(args.load) / "config.json").is_file():
        return args.load
    return args.ref_load or args.hf_checkpoint


def begin(args, run: RunDirectory) -> int:
    """The first step to make; refuses another experiment, and drops what belongs to no checkpointed step."""
    last = run.newest()
    if last is not None and (not args.load or Path(args.load).resolve() != run.path.resolve()):
        raise UserError(
            f"{run.path} holds a run; give --load {run.path} to resume it, or another --save"
        )
    run.check_experiment(args, resuming=last is not None)
    start = 0 if last is None else last + 1
    run.cut_back(start)
    return start


def train(args, run: RunDirectory) -> None:
    """The whole run, from the last checkpoint to the figures."""
    start = begin(args, run)
    recorder = Recorder(run.path, start, args.num_rollout or 0, args.use_tensorboard)
    write_text(
        run.path / "command.sh",
        shlex.join([sys.executable, "-m", "rubric_rl.cpu.train", *sys.argv[1:]]) + "\n",
    )
    try:
        if args.num_rollout is None or start < args.num_rollout:
            recorder.say(
                f"{run.path}: " + (f"going on after step {start}" if start else "a new run")
            )
            _run(args, run, recorder, start)
        recorder.say(plots.draw(run.path))
    except Exception as error:
        recorder.log(traceback.format_exc())
        error.add_note(f"details: {run.path / 'train.log'}; servers' logs: {run.path / 'logs'}")
        raise
    except KeyboardInterrupt:
        recorder.log("stopped by a signal")
        raise
    finally:
        recorder.close()


def _run(args, run: RunDirectory, recorder: Recorder, start: int) -> None:
    from rubric_rl.cpu.cluster import (
        Cluster,
    )  # here: importing Ray takes seconds, errors in flags should not

    began = time.monotonic()
    with Cluster(args, run.path) as cluster:
        try:
            recorder.stage(start, "starting")
            checkpoint = run.iteration(start - 1) if start else None
            cluster.start(
                initial_weights(args), checkpoint, run.state(start - 1)["data"] if start else None
            )
            recorder.total = args.num_rollout
            recorder.say(f"everything is up after {time.monotonic() - began:.0f} s")
            Trainer(args, run, cluster, recorder).go(start)
            recorder.stage(args.num_rollout, "finished")
        except KeyboardInterrupt:
            recorder.say("stopping ...")
            raise
        finally:  # nothing may interrupt the shutdown
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _line(error: BaseException) -> str:
    """The error in one line for the console: its cause, without Ray's wrapping."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, UserError):
        return str(cause)
    first = (str(cause).strip().splitlines() or [""])[0]
    if type(cause).__name__ == "ActorDiedError":
        return f"a process of the trainer was killed or crashed, perhaps out of memory ({first})"
    return f"{type(cause).__name__}: {first}"


def _interrupted(error: BaseException | None) -> bool:
    """Whether a signal is behind an error: shutil.rmtree, for one, turns KeyboardInterrupt into an OSError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 finished, 2 something for the user to fix, 1 a defect, 130 Ctrl-C or SIGTERM."""
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # Ray's calls survive this exception and no other
    run = None
    try:
        args = flags.parse(sys.argv[1:] if argv is None else argv)
        check_machine.check(args)
        run = RunDirectory(args.save)
        train(args, run)
    except (
        KeyboardInterrupt,
        Exception,
    ) as error:  # the last stop of all: one line here, the traceback in train.log
        if _interrupted(error):
            where = run.path if run else "SAVE_PATH"
            print(
                f"stopped; the same command resumes from the last checkpoint in {where}",
                file=sys.stderr,
            )
            return 130
        print(f"error: {_line(error)}", file=sys.stderr)
        if run is None and not isinstance(error, UserError):
            raise
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
        return 2 if isinstance(getattr(error, "cause", None) or error, UserError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
