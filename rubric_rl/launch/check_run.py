"""Everything that can be known before Ray starts, each failure one line and the next step (all stages)."""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rubric_rl.errors import UserError
from rubric_rl.launch import devices, graders, rows, weights
from rubric_rl.launch.estimate import GB, checkpoint_bytes, checkpoints, plan_of, rollouts
from rubric_rl.launch.schedule import schedule
from rubric_rl.launch.words import Words

SLIME = (0, 3, 1)  # the oldest slime whose flags the recipe uses


def check(words: Words, options: argparse.Namespace) -> Iterator[str]:
    """Yields one line for each thing that would stop or spoil the run."""
    parts = (
        paths,
        slime_checkout,
        batches,
        gradings,
        parallel,
        devices.problems,
        disk,
        ports,
        ray_command,
    )
    for part in (*parts, weights.problems, rows.problems, graders.problems, hook, flags):
        try:
            yield from part(words, options)
        except UserError as error:
            yield str(error)


def paths(words: Words, options) -> Iterator[str]:
    """Folders and files that the flags name."""
    for flag, needed in (("hf-checkpoint", ("config.json", "tokenizer.json")), ("ref-load", ())):
        folder = Path(words.text(flag))
        if flag == "ref-load" and folder == Path(words.text("hf-checkpoint")):
            continue  # its finding is above
        if not words.text(flag) or not folder.is_dir():
            yield (f"--{flag} {folder}: no such folder; "
                   f"set {'HF_CKPT_PATH' if needed else 'DIST_CKPT_PATH'} to a checkpoint")  # fmt: skip
        missing = [name for name in needed if folder.is_dir() and not (folder / name).is_file()]
        yield from (
            f"--{flag} {folder}: holds no {name}; get the checkpoint again" for name in missing
        )
    reference = Path(words.text("ref-load"))
    signs = ("latest_checkpointed_iteration.txt", "config.json")
    if reference.is_dir() and not any((reference / name).is_file() for name in signs):
        yield (f"--ref-load {reference}: neither Megatron's format nor Hugging Face's; "
               "convert it with SLIME_DIR/tools/convert_hf_to_torch_dist.py")  # fmt: skip
    save = Path(words.text("save", "."))
    parent = next(folder for folder in (save, *save.absolute().parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        yield f"--save {save}: {parent} is not writable; set SAVE_PATH to a folder of your own"
    if words.text("load") != words.text("save"):
        yield (f"--load {words.text('load')} is not --save {save}, so the same command would not go on with the run; "
               "set SAVE_PATH alone")  # fmt: skip


def slime_checkout(words: Words, options) -> Iterator[str]:
    """SLIME_DIR and its version, MEGATRON_DIR."""
    setup = options.slime_dir / "setup.py"
    if not (options.slime_dir / "train.py").is_file() or not setup.is_file():
        yield (f"SLIME_DIR {options.slime_dir}: holds no train.py; "
               "clone github.com/THUDM/slime, or use the folder in its image")  # fmt: skip
    else:
        found = re.search(r"version=\"(\d+)\.(\d+)\.(\d+)", setup.read_text(encoding="utf-8"))
        if not found or tuple(map(int, found.groups())) < SLIME:
            version = ".".join(found.groups()) if found else "unknown"
            yield (f"SLIME_DIR {options.slime_dir}: version {version}, but {'.'.join(map(str, SLIME))} or later is "
                   "needed; update it")  # fmt: skip
    if not (options.megatron_dir / "megatron").is_dir():
        yield (f"MEGATRON_DIR {options.megatron_dir}: holds no folder megatron; "
               "name the Megatron-LM of slime's image (/root/Megatron-LM)")  # fmt: skip


def batches(words: Words, options) -> Iterator[str]:
    """Batch sizes that divide, a run longer than its warm-up."""
    prompts, answers = words.number("rollout-batch-size"), words.number("n-samples-per-prompt", 1)
    total, steps = prompts * answers, words.number("num-steps-per-rollout")
    size = words.number("global-batch-size") or (total // steps if steps else 0)
    if answers < 2:
        yield f"--n-samples-per-prompt {answers}: a group of one has no advantage; give 2 or more"
    if size < 1 or total % size or (steps and size * steps != total):
        yield (f"--global-batch-size {size} does not divide {total} answers ({prompts} prompts x {answers}); "
               "change one of them")  # fmt: skip
    elif size % (data := plan_of(words).data):
        yield (f"--global-batch-size {size} is no multiple of {data}, the data parallel size; "
               "change it or the parallel sizes")  # fmt: skip
    if words.number("over-sampling-batch-size", prompts) < prompts:
        yield f"--over-sampling-batch-size is below --rollout-batch-size {prompts}; raise it"
    if not words.number("num-rollout") and not words.number("num-epoch"):
        yield "how long is the run? give --num-rollout or --num-epoch"
    elif not rollouts(words, rows.count(words)):
        yield (f"{rows.count(words)} prompts make no rollout of --rollout-batch-size {prompts}; "
               "lower it, or train on more prompts")  # fmt: skip
    elif size:
        fraction = words.number("lr-warmup-fraction") if "lr-warmup-fraction" in words else None
        schedule(rollouts(words, rows.count(words)) * total, size, words.number("lr-decay-iters"),
                 words.number("lr-warmup-iters"), fraction)  # fmt: skip


def gradings(words: Words, options) -> Iterator[str]:
    """What cannot go together with self-grading."""
    if "partial-rollout" in words:
        yield "--partial-rollout: an answer whose grading was aborted would keep a wrong reward; leave it out"
    if "group-rm" in words:
        yield "--group-rm: the hook grades one answer at a time; leave it out"
    if words.number("rollout-temperature", 1) <= 0:
        yield "--rollout-temperature must be above 0: greedy answers of a group are all equal"


def parallel(words: Words, options) -> Iterator[str]:
    """Parallel sizes that fit the GPUs and the model."""
    plan = plan_of(words)
    shape, per_node = plan.shape, options.gpus_per_node
    shares = (("attention heads", shape.heads, plan.tensor), ("attention heads", shape.heads, plan.engine_gpus),
              ("key-value heads", shape.groups, plan.tensor), ("layers", shape.layers, plan.pipeline))  # fmt: skip
    for name, number, size in shares:
        if number % size:
            yield f"{number} {name} cannot be shared by {size} GPUs; change the parallel sizes"
    wanted = plan.train_gpus + (0 if plan.colocate else plan.engines * plan.engine_gpus)
    if wanted > options.nnodes * per_node:
        yield (f"{wanted} GPUs are asked for, but {options.nnodes} node(s) of {per_node} have "
               f"{options.nnodes * per_node}; change NNODES or the sizes")  # fmt: skip
    if plan.tensor > per_node or plan.engine_gpus > per_node:
        yield (f"tensor parallel {plan.tensor} and {plan.engine_gpus} GPUs an engine must each fit one node of "
               f"{per_node}")  # fmt: skip


def disk(words: Words, options) -> Iterator[str]:
    """Room for the checkpoints still to come; slime removes none."""
    save = Path(words.text("save", "."))
    done = save / "latest_checkpointed_iteration.txt"
    text = done.read_text().strip() if done.is_file() else ""
    saves = checkpoints(words, rows.count(words), int(text) + 1 if text.isdecimal() else 0)
    size = checkpoint_bytes(plan_of(words).shape)
    free = shutil.disk_usage(
        next(folder for folder in (save, *save.absolute().parents) if folder.exists())
    ).free
    if saves * size > free:
        yield (f"--save {save}: {saves} checkpoints of {size / GB:.0f} GB are to come, {free / GB:.0f} GB are free; "
               "raise --save-interval or choose another SAVE_PATH")  # fmt: skip


def ports(words: Words, options) -> Iterator[str]:
    """Ports of the Ray that will be started."""
    for port in [] if options.running_ray else options.ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))  # Ray listens at this node's outer address
            except OSError as error:
                yield f"port {port} cannot be used ({error.strerror}); set RAY_PORT and RAY_DASHBOARD_PORT to free ones"


def ray_command(words: Words, options) -> Iterator[str]:
    """The command ray on PATH: it starts every worker with its own Python, not with PYTHON."""
    command = shutil.which("ray")
    if options.running_ray or command is None:
        return
    with open(command, "rb") as file:
        interpreter = file.readline().decode(errors="replace").removeprefix("#!").split()
    if interpreter and "python" in interpreter[-1]:
        ask = [*interpreter, "-c", "import sys; print(sys.prefix)"]
        prefix = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
        if prefix != sys.prefix:
            yield (f"{command} belongs to the Python in {prefix}, which lacks what PYTHON has ({sys.prefix}); "
                   "put the folder of PYTHON's own ray first on PATH")  # fmt: skip


def hook(words: Words, options) -> Iterator[str]:
    """The functions that the flags name, imported as the job will."""
    named = {
        word for name, values in words.values.items() if name.endswith("-path") for word in values
    }
    for name in sorted(word for word in named if re.fullmatch(r"[\w.]+\.\w+", word)):
        module, _, function = name.rpartition(".")
        program = f"import {module} as m; m.{function}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            yield (f"{name} cannot be imported inside the job ({reason[0]}); install this repository's packages there: "
                   "pip install -e .")  # fmt: skip


def flags(words: Words, options) -> Iterator[str]:
    """Every flag held against slime's own parsers, and its own checks."""
    if not (options.slime_dir / "train.py").is_file():
        return
    folders = [str(options.slime_dir), str(options.megatron_dir), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, folders))
    command = [sys.executable, "-m", "rubric_rl.launch.slime_args", *options.words]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    try:
        verdict = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        yield (f"slime's parser does not run here: {(done.stderr.strip().splitlines() or ['no output'])[-1]}; "
               "use slime's image")  # fmt: skip
        return
    yield from verdict["unknown"]
    if verdict["error"]:
        last = [line for line in done.stderr.splitlines() if "error:" in line][-1:]
        yield f"slime refuses the command: {last[0] if last else verdict['error']}"


def main() -> int:
    """Prints every problem to stderr; returns 0 when there is none, else 2."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--slime-dir", type=Path, required=True)
    add("--megatron-dir", type=Path, required=True)
    add("--nnodes", type=int, required=True)
    add("--gpus-per-node", type=int, required=True)
    add("--ports", type=int, nargs="*", default=[])
    add(
        "--running-ray",
        action="store_true",
        help="no Ray will be started, so its ports may be in use",
    )
    add("words", nargs="*", help="after --: the command line for slime")
    options = parser.parse_args()
    try:
        found = list(check(Words(options.words), options))
    except UserError as error:
        found = [str(error)]
    for line in dict.fromkeys(found):
        print(f"error: {line}", file=sys.stderr)
    if not found:
        print("preflight: nothing found that would stop the run")
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main())
