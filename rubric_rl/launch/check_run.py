"""Everything that can be known before Ray starts: each failure is one line with the next step.

    python -m rubric_rl.launch.check_run --slime-dir ... -- WORDS     (scripts/launch.sh calls it)

Exit status: 0 nothing found, 2 something for the user to fix, 1 a defect of this program.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rubric_rl.common.command_line import CommandParser, exit_status, port, positive
from rubric_rl.common.errors import UserError
from rubric_rl.launch import check_inputs, shared_checks
from rubric_rl.launch.check_inputs import RunInputs
from rubric_rl.launch.estimate import (
    GB,
    ParallelPlan,
    checkpoint_bytes,
    count_checkpoints,
    count_rollouts,
    engine_weight_bytes,
    parallel_plan,
    training_bytes,
)
from rubric_rl.launch.schedule import answers_per_step, schedule
from rubric_rl.launch.slime_flags import CommandLine, why_dropped
from rubric_rl.launch.slime_version import OLDEST, Version, in_words, missing_flags, read_version


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run as its command line describes it, and the machine that it is to start on."""

    command: list[str]  # the words of slime's command line
    slime_dir: Path
    megatron_dir: Path
    nodes: int
    gpus_per_node: int
    ports: list[int]  # of the Ray that will be started
    running_ray: bool  # the job goes to a Ray that runs already

    @cached_property
    def flags(self) -> CommandLine:
        """The command line as plain values; raises UserError for a word before the first flag."""
        return CommandLine(self.command)

    @cached_property
    def inputs(self) -> RunInputs:
        """The files that the run reads."""
        return RunInputs(self.flags)

    @cached_property
    def slime_version(self) -> Version:
        """The version of the slime in SLIME_DIR; () where it is not told."""
        return read_version(self.slime_dir)

    @property
    def save(self) -> Path:
        """The folder of the run."""
        return Path(self.flags.text("save", "."))


def check(run: PlannedRun) -> Iterator[str]:
    """Yields one line for each thing that would stop or spoil the run, each line once."""
    parts = (
        check_paths,
        check_weights,
        check_slime_checkout,
        check_batches,
        check_gradings,
        check_asynchronous,
        check_parallel_sizes,
        check_gpus,
        check_disk,
        check_ports,
        check_ray_command,
        check_rows,
        check_lengths,
        check_graders,
        check_hooks,
        check_flags,
    )
    said = set()
    for part in parts:
        try:
            for line in part(run):
                if line not in said:
                    yield line
                said.add(line)
        except UserError as error:
            if str(error) not in said:
                yield str(error)
            said.add(str(error))


# ---- the flags and the files that they name


def check_paths(run: PlannedRun) -> Iterator[str]:
    """A folder for the run that can be written, and from which it goes on."""
    parent = _nearest_folder(run.save)
    if not os.access(parent, os.W_OK):
        yield f"--save {run.save}: {parent} is not writable; set SAVE_PATH to a folder of your own"
    load = run.flags.text("load")
    if load != run.flags.text("save"):
        yield (
            f"--load {load} is not --save {run.save}, so the same command would not go on with "
            "the run; set SAVE_PATH alone"
        )


def _nearest_folder(path: Path) -> Path:
    """The path itself, or the nearest folder above that exists."""
    if path.exists():
        return path
    return next(folder for folder in path.absolute().parents if folder.exists())


def check_slime_checkout(run: PlannedRun) -> Iterator[str]:
    """SLIME_DIR and its version, MEGATRON_DIR."""
    if not (run.slime_dir / "train.py").is_file():
        yield (
            f"SLIME_DIR {run.slime_dir}: holds no train.py; "
            "clone github.com/THUDM/slime, or use the folder in its image"
        )
    elif run.slime_version and run.slime_version < OLDEST:
        yield (
            f"SLIME_DIR {run.slime_dir}: version {in_words(run.slime_version)}, but "
            f"{in_words(OLDEST)} or later is needed; update it"
        )
    if not (run.megatron_dir / "megatron").is_dir():
        yield (
            f"MEGATRON_DIR {run.megatron_dir}: holds no folder megatron; "
            "name the Megatron-LM of slime's image (/root/Megatron-LM)"
        )


def check_batches(run: PlannedRun) -> Iterator[str]:
    """Batch sizes that divide, a run of some length that is longer than its warm-up."""
    flags = run.flags
    prompts = flags.whole("rollout-batch-size")
    answers = flags.whole("n-samples-per-prompt", 1)
    global_batch = flags.whole("global-batch-size") or None
    steps = flags.whole("num-steps-per-rollout") or None
    over_sampling = flags.whole("over-sampling-batch-size", prompts)
    try:
        data_parallel = parallel_plan(flags).data
    except UserError:  # check_parallel_sizes says it
        data_parallel = None
    yield from shared_checks.check_batch_sizes(
        prompts=prompts,
        answers=answers,
        global_batch=global_batch,
        steps=steps,
        over_sampling=over_sampling,
        data_parallel=data_parallel,
    )
    num_rollout = flags.whole("num-rollout") or None
    num_epoch = flags.whole("num-epoch") or None
    training_prompts = None
    if num_epoch and not num_rollout:
        training_prompts = len(run.inputs.training_rows)
    too_short = list(
        shared_checks.check_run_length(
            num_rollout=num_rollout, num_epoch=num_epoch, batch=prompts, prompts=training_prompts
        )
    )
    yield from too_short
    per_rollout = prompts * answers
    step = answers_per_step(per_rollout, global_batch, steps)
    if too_short or step < 1:
        return
    warmup_fraction = None
    if "lr-warmup-fraction" in flags:
        warmup_fraction = flags.number("lr-warmup-fraction")
    rollouts = count_rollouts(flags, training_prompts or 0)
    schedule(
        rollouts * per_rollout,
        step,
        flags.whole("lr-decay-iters") or None,
        flags.whole("lr-warmup-iters"),
        warmup_fraction,
    )


def check_gradings(run: PlannedRun) -> Iterator[str]:
    """What cannot go together with self-grading."""
    temperature = run.flags.number("rollout-temperature", 1.0)
    yield from shared_checks.check_self_grading(run.flags, temperature)


def check_asynchronous(run: PlannedRun) -> Iterator[str]:
    """Rollout and update at the same time, which slime 0.4 can do, on separate GPUs."""
    interval = run.flags.whole("flush-cache-interval", 1)
    if interval != 1 and "colocate" in run.flags:
        what = "trains fully asynchronously, on GPUs apart from the engines'"
        yield f"--flush-cache-interval {interval}: {what}; leave out --colocate"


def check_weights(run: PlannedRun) -> Iterator[str]:
    """Checkpoints that are there, and whole."""
    yield from check_inputs.check_weights(run.inputs)


def check_rows(run: PlannedRun) -> Iterator[str]:
    """Rows that can be graded, and none of the evaluation among them."""
    yield from check_inputs.check_rows(run.inputs)


def check_lengths(run: PlannedRun) -> Iterator[str]:
    """Prompts, answers and gradings within the context."""
    yield from check_inputs.check_lengths(run.inputs)


def check_graders(run: PlannedRun) -> Iterator[str]:
    """Graders that can be asked."""
    yield from check_inputs.check_graders(run.inputs, run.running_ray)


def check_hooks(run: PlannedRun) -> Iterator[str]:
    """The functions that flags named *-path name, imported as the job will."""
    names = []
    for flag, values in run.flags.values.items():
        names_hook = flag.endswith("-path") and not flag.endswith("config-path")
        if not names_hook or flag.startswith("sglang-"):
            continue
        names += [value for value in values if re.fullmatch(r"[\w.]+\.\w+", value)]
    yield from shared_checks.check_hooks(names)


def check_flags(run: PlannedRun) -> Iterator[str]:
    """Every flag held against slime's own parsers, and slime's own checks."""
    if not (run.slime_dir / "train.py").is_file():
        return
    path = [str(run.slime_dir), str(run.megatron_dir)]
    own_path = os.environ.get("PYTHONPATH")
    if own_path:
        path.append(own_path)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    program = [sys.executable, "-m", "rubric_rl.launch.slime_flags", "check"]
    command = [*program, "--", *run.command]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    status = done.returncode
    if status < 0:
        what = f"signal {-status} ended it"
        yield f"slime's parser does not run here: {what}; use slime's image"
        return
    if status > 0:
        words = " ".join(program)
        raise RuntimeError(f"{words} failed:\n{done.stderr}")
    *_, last_line = done.stdout.splitlines()
    answer = json.loads(last_line)
    absent = answer["absent"]
    if absent:
        yield f"slime's parser does not run here: {absent}; use slime's image"
        # What can be known without it.
        for name in missing_flags(run.flags.values, run.slime_version):
            yield why_dropped(f"--{name}", ())
        return
    yield from answer["unknown"]
    reason = answer["error"]
    if not reason:
        return
    for line in done.stderr.splitlines():
        if "error:" in line:
            reason = line
    yield f"slime refuses the command: {reason}"


# ---- the machine


def check_parallel_sizes(run: PlannedRun) -> Iterator[str]:
    """Parallel sizes that fit the GPUs and the model."""
    plan = parallel_plan(run.flags)
    shape = plan.shape
    per_node = run.gpus_per_node
    shares = (
        ("attention heads", shape.heads, plan.tensor),
        ("attention heads", shape.heads, plan.gpus_per_engine),
        ("key-value heads", shape.groups, plan.tensor),
        ("layers", shape.layers, plan.pipeline),
    )
    for name, number, gpus in shares:
        if number % gpus:
            yield f"{number} {name} cannot be shared by {gpus} GPUs; change the parallel sizes"
    wanted = plan.training_gpus
    if not plan.colocate:
        wanted += plan.serving_gpus
    there = run.nodes * per_node
    if wanted > there:
        yield (
            f"{wanted} GPUs are asked for, but {run.nodes} node(s) of {per_node} have {there}; "
            "change NNODES or the sizes"
        )
    if plan.tensor > per_node or plan.gpus_per_engine > per_node:
        yield (
            f"tensor parallel {plan.tensor} and {plan.gpus_per_engine} GPUs an engine must each "
            f"fit one node of {per_node}; lower them"
        )


def check_gpus(run: PlannedRun) -> Iterator[str]:
    """Number and memory of this node's GPUs, against what training and serving need."""
    query = ["nvidia-smi", "--query-gpu=memory.total,memory.used", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        hint = "start on a node with GPUs, or look with DRY_RUN=1"
        yield f"no GPU was found here (nvidia-smi: {error}); {hint}"
        return
    gpus = output.splitlines()
    if len(gpus) < run.gpus_per_node:
        yield (
            f"{len(gpus)} GPUs here, not {run.gpus_per_node}; "
            "set GPUS_PER_NODE, or take another node"
        )
    plan = parallel_plan(run.flags)
    affected: dict[str, list[str]] = {}  # problem -> the GPUs that have it
    for number, line in enumerate(gpus[: run.gpus_per_node]):
        mebibytes = re.findall(r"\d+", line)
        if not mebibytes:
            continue
        total = _in_gb(mebibytes[0])
        used = 0.0
        if len(mebibytes) > 1:  # else "[N/A]": this GPU does not tell
            used = _in_gb(mebibytes[1])
        problem = why_gpu_cannot_train(total, used, plan) or why_gpu_cannot_serve(total, plan)
        if problem:
            numbers = affected.setdefault(problem, [])
            numbers.append(str(number))
    for problem, numbers in affected.items():
        listed = ", ".join(numbers)
        yield f"GPU {listed}: {problem}"


def _in_gb(mebibytes: str) -> float:
    return int(mebibytes) * 2**20 / GB


def why_gpu_cannot_train(total: float, used: float, plan: ParallelPlan) -> str:
    """Why a GPU of `total` GB, of which `used` GB are taken, cannot train; "" if it can."""
    if used > 2:
        return f"in use ({used:.0f} GB); end what runs there, or take another node"
    need = training_bytes(plan) / GB
    if total >= need:
        return ""
    return (
        f"{total:.0f} GB, training needs about {need:.0f}; lower --max-tokens-per-gpu "
        "or add --optimizer-cpu-offload --use-precision-aware-optimizer"
    )


def why_gpu_cannot_serve(total: float, plan: ParallelPlan) -> str:
    """Why a GPU of `total` GB cannot serve; "" if it can.

    Beside the weights there must be cache for one answer of full length.
    """
    fraction = plan.flags.number("sglang-mem-fraction-static", 0.85)
    weights = engine_weight_bytes(plan) / GB
    answer = plan.flags.whole("rollout-max-response-len")
    cache = answer * plan.shape.kv_bytes / plan.gpus_per_engine / GB
    if fraction * total >= weights + cache:
        return ""
    return (
        f"{total:.0f} GB x --sglang-mem-fraction-static {fraction:g}, but an engine needs "
        f"{weights:.0f} for its weights and {cache:.0f} for one answer; "
        "raise --rollout-num-gpus-per-engine"
    )


def check_disk(run: PlannedRun) -> Iterator[str]:
    """Room for the checkpoints still to come; slime removes none."""
    tracker = run.save / "latest_checkpointed_iteration.txt"
    done = 0  # rollouts
    if tracker.is_file():
        last = tracker.read_text().strip()
        if last.isdecimal():
            done = int(last) + 1
    prompts = len(run.inputs.training_rows)
    saves = count_checkpoints(run.flags, prompts, done)
    plan = parallel_plan(run.flags)
    size = checkpoint_bytes(plan.shape)
    folder = _nearest_folder(run.save)
    free = shutil.disk_usage(folder).free
    if saves * size > free:
        size_gb = size / GB
        free_gb = free / GB
        yield (
            f"--save {run.save}: {saves} checkpoints of {size_gb:.0f} GB are to come, "
            f"{free_gb:.0f} GB are free; raise --save-interval or choose another SAVE_PATH"
        )


def check_ports(run: PlannedRun) -> Iterator[str]:
    """Ports of the Ray that will be started; it listens at this node's outer address."""
    if run.running_ray:
        return
    for number in run.ports:
        yield from shared_checks.check_port(number, "Ray (RAY_PORT, RAY_DASHBOARD_PORT)")


def check_ray_command(run: PlannedRun) -> Iterator[str]:
    """The command ray on PATH: it starts every worker with its own Python, not with PYTHON."""
    command = shutil.which("ray")
    if run.running_ray or command is None:
        return
    with open(command, "rb") as file:
        first_line = file.readline().decode(errors="replace")
    interpreter = first_line.removeprefix("#!").split()
    if not interpreter or "python" not in interpreter[-1]:
        return
    question = [*interpreter, "-c", "import sys; print(sys.prefix)"]
    hint = "put the folder of PYTHON's own ray first on PATH"
    try:
        done = subprocess.run(question, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        yield f"{command}: its Python does not run ({error}); {hint}"
        return
    prefix = done.stdout.strip()
    if prefix != sys.prefix:
        yield (
            f"{command} belongs to the Python in {prefix}, which lacks what PYTHON has "
            f"({sys.prefix}); {hint}"
        )


def _planned_run() -> PlannedRun:
    """The run that this program's own command line describes."""
    parser = CommandParser(
        "python -m rubric_rl.launch.check_run",
        "Looks for everything that would stop or spoil a slime run.",
    )
    add = parser.add_argument
    add("--slime-dir", type=Path, required=True)
    add("--megatron-dir", type=Path, required=True)
    add("--nodes", type=positive, required=True)
    add("--gpus-per-node", type=positive, required=True)
    add("--ports", type=port, nargs="*", default=[], help="of the Ray that will be started")
    add("--running-ray", action="store_true", help="no Ray will be started")
    add("command", nargs="*", help="after --: the command line for slime")
    return PlannedRun(**vars(parser.parse_args()))


def main() -> int:
    """Prints each problem to stderr; returns 0 when there is none, else 2."""
    return exit_status(_check_and_print)


def _check_and_print() -> int:
    run = _planned_run()
    found = list(check(run))
    # The processes of a running Ray have keys of their own, which cannot be seen from here.
    if not found and not run.running_ray:
        found = list(check_inputs.ask_graders(run.inputs))
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    if found:
        return 2
    if not run.slime_version:
        known = "its own parser said which flags it has"
        print(f"preflight: SLIME_DIR tells no version of slime; {known}")
    print("preflight: nothing found that would stop the run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
