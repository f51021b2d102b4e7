"""Memory, disk and hours by arithmetic: by hand, by law, and as docs/gpu_runs.md prints them."""

import functools
import re
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.common.model_shape import read_network
from rubric_rl.launch.estimate import (
    checkpoint_bytes,
    count_checkpoints,
    count_evaluations,
    host_bytes,
    model_shape,
    parallel_plan,
    training_parts,
)
from rubric_rl.launch.slime_flags import CommandLine, model_flags
from rubric_rl.launch.token_bill import GradedAnswers, prefilled_tokens

COMMON = (
    "--num-query-groups 8 --kv-channels 128 --vocab-size 151936 "
    "--untie-embeddings-and-output-weights"
)
SHAPES = {
    "8B": "--num-layers 36 --hidden-size 4096 --ffn-hidden-size 12288 "
    f"--num-attention-heads 32 {COMMON}",
    "32B": "--num-layers 64 --hidden-size 5120 --ffn-hidden-size 25600 "
    f"--num-attention-heads 64 {COMMON}",
}
SPLIT = (
    "--tensor-model-parallel-size 2 --actor-num-gpus-per-node 4 --rollout-num-gpus 4 "
    "--max-tokens-per-gpu 16384 --sequence-parallel --recompute-granularity full"
)


def plan(flags: str = SPLIT, size: str = "8B"):
    return parallel_plan(CommandLine(f"{SHAPES[size]} {flags}".split()))


def parts(flags: str = SPLIT) -> dict[str, float]:
    return {name: size for name, (size, _) in training_parts(plan(flags)).items()}


def test_parameters_are_the_published_counts():
    assert (
        plan().shape.parameters == 8_190_735_360
        and plan(size="32B").shape.parameters == 32_762_123_264
    )
    assert plan().shape.kv_bytes == 147_456
    assert checkpoint_bytes(plan().shape) == 14 * 8_190_735_360


def test_a_training_gpu_by_hand():
    assert parts() == {
        "weights": 8_190_735_360,  # two bytes of half the parameters
        "gradients": 16_381_470_720,
        "optimizer": 24_572_206_080,  # twelve bytes, shared by two
        "layer inputs": 2 * 16384 * 4096 * 36 / 2,
        "one layer": 2 * 16384 * (17 * 4096 / 2 + 3 * 12288 / 2),
        "logits": 10 * 16384 * 151936 / 2,
        "runtime": 4e9,
    }


@pytest.mark.parametrize(
    "more, part, factor",
    [
        ("--max-tokens-per-gpu 32768", "layer inputs", 2),
        ("--max-tokens-per-gpu 32768", "logits", 2),
        ("--actor-num-gpus-per-node 8 --rollout-num-gpus 8", "optimizer", 1 / 2),
        ("--pipeline-model-parallel-size 2", "weights", 1 / 2),
        (
            "--pipeline-model-parallel-size 2",
            "layer inputs",
            1,
        ),  # half the layers, of two micro-batches in flight
        ("--recompute-granularity selective", "layer inputs", 17),
        ("--optimizer-cpu-offload", "optimizer", 0),
    ],
)
def test_what_a_flag_changes(more, part, factor):
    assert parts(f"{SPLIT} {more}")[part] == pytest.approx(factor * parts()[part])


def test_without_sequence_parallel_every_rank_keeps_the_whole_input():
    assert (
        parts(SPLIT.replace("--sequence-parallel", ""))["layer inputs"]
        == 2 * parts()["layer inputs"]
    )


def test_what_sleeps_lies_in_host_memory():
    assert host_bytes(plan()) == 0
    assert host_bytes(plan(f"{SPLIT} --optimizer-cpu-offload")) == 4 * 24_572_206_080
    assert host_bytes(plan(f"{SPLIT} --colocate")) == 4 * (24_572_206_080 + 8_190_735_360)


@pytest.mark.parametrize(
    "more, message",
    [
        ("--tensor-model-parallel-size 3", "4 training GPUs are no multiple of tensor 3"),
        ("--rollout-num-gpus-per-engine 3", "4 rollout GPUs are no multiple of 3 per engine"),
        ("--rollout-num-gpus 0", "0 rollout GPUs are no multiple of 1"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(more, message):
    with pytest.raises(UserError, match=message):
        plan(f"{SPLIT} {more}")


def test_model_flags_of_the_tiny_checkpoint_give_its_shape():
    network = read_network(ROOT / "rubric_rl/tiny/model")
    flags = CommandLine(model_flags(network))
    shape = model_shape(flags)
    assert asdict(shape).items() <= asdict(network).items()
    assert shape.parameters == network.parameters
    assert shape.tied and shape.vocab == 1367
    assert flags.number("rotary-base") == network.rope_theta == 1e6


@pytest.mark.parametrize(
    "flags, done, rollouts",
    [
        (
            "--num-epoch 3 --save-interval 4",
            0,
            [4, 8, 10, 12, 16, 20, 24, 28, 30],
        ),  # slime saves at each epoch's end
        ("--num-epoch 3 --save-interval 4", 12, [16, 20, 24, 28, 30]),
        ("--num-epoch 3 --num-rollout 30 --save-interval 4", 0, [4, 8, 12, 16, 20, 24, 28, 30]),
        ("--num-rollout 3 --save-interval 4", 0, [3]),
        ("--num-epoch 3", 0, []),
    ],
)
def test_checkpoints_are_counted_as_slime_writes_them(flags, done, rollouts):
    command = CommandLine(["--rollout-batch-size", "10", *flags.split()])
    assert count_checkpoints(command, 105, done) == len(rollouts)


def test_prefilled_tokens_of_grading_are_those_that_the_engine_counted_in_the_tiny_run():
    """Step 11 of the README's run: 12 prompts x 16 answers, 828 criteria.

    An answer of 30 tokens with its delimiters is 50; a criterion 22, the turn's end included.
    """
    assumed = Namespace(
        instruction_tokens=130, prompt_tokens=25, answer_tokens=50, criterion_tokens=22
    )
    counted = 29_311
    assert prefilled_tokens(12, 16, 828 / 192, assumed) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(
    "flags, evaluations",
    [
        ("--num-epoch 3 --eval-interval 4", [0, 4, 8, 10, 12, 16, 20, 24, 28, 30]),
        ("--num-rollout 30 --eval-interval 4", [0, 4, 8, 12, 16, 20, 24, 28]),
        ("--num-rollout 30 --eval-interval 4 --skip-eval-before-train", [4, 8, 12, 16, 20, 24, 28]),
        ("--num-epoch 3", []),
    ],
)
def test_evaluations_are_counted_as_slime_makes_them(flags, evaluations):
    command = CommandLine(["--rollout-batch-size", "10", *flags.split()])
    assert count_evaluations(command, 105) == len(evaluations)


def test_the_tokens_of_a_grader_by_hand():
    assumed = Namespace(
        instruction_tokens=200, prompt_tokens=300, answer_tokens=3000, criterion_tokens=45
    )
    assumed.criteria = 10
    answers = GradedAnswers(prompts=2, group=4, evaluated=3)
    assert answers.count == 11
    prefilled = 2 * 500 + 3 * 500 + 11 * (3000 + 10 * 45)
    assert answers.tokens(7, assumed) == prefilled + 11 * 10 * 7


# ---- the command that docs/gpu_runs.md names, and its table

COLUMNS = {
    "8B, split": ("8B", "split"),
    "8B, colocate": ("8B", "colocate"),
    "32B, colocate": ("32B", "colocate"),
}
FIGURES = {  # row of the table -> where the command says it
    "training GPU": r"sum +([\d.]+) GB",
    "cache of an engine": r"([\d,]+) tokens an engine",
    "checkpoints": r"= (\d+ x \d+) GB \(14 bytes",
    "hours": r"run +(\d+) h",
}


@functools.cache
def report(size: str, placement: str) -> str:
    settings = f"PLACEMENT={placement} DRY_RUN=1"
    run = f"{settings} bash run_qwen3_{size}.sh {SHAPES[size]} 2>/dev/null"
    command = ["bash", "-c", f"{run} | {sys.executable} -m rubric_rl.launch.estimate"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("column", COLUMNS)
def test_the_docs_show_what_the_command_prints(column):
    docs = (ROOT / "docs/gpu_runs.md").read_text(encoding="utf-8")
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in docs.split("\n")
        if line[:1] == "|"
    ]
    position = next(row.index(column) for row in table if column in row)
    cells = {row[0]: row[position] for row in table if len(row) == 4}
    printed = report(*COLUMNS[column])
    for row, pattern in FIGURES.items():
        (figure,) = re.findall(pattern, printed)
        assert cells[row].split(" GB")[0].split(" tokens")[0] == figure


def test_the_criterion_in_the_reply_saves_what_ends_each_prompt():
    prefill = r"prefill +([\d,]+) tokens, whatever .*\n.* prefill +([\d,]+) .* = 11 a verdict fewer"
    (found,) = re.findall(prefill, report("8B", "split"))
    usual, in_reply = (int(figure.replace(",", "")) for figure in found)
    assert usual - in_reply == 128 * 11.5 * 11


@pytest.mark.parametrize("anchor", ["direct", "explain"])
def test_the_docs_show_what_an_anchor_adds(anchor):
    docs = (ROOT / "docs/gpu_runs.md").read_text(encoding="utf-8")
    line = rf"an anchor +{anchor} .* ([\d.]+%) of thoughts"
    (share,) = re.findall(line, report("8B", "split"))
    assert f"{share} to the tokens" in docs or f"without thoughts {share}" in docs


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "nothing on standard input"),
        ("python 'train.py", "standard input is no command (No closing quotation)"),
        ("python train.py --actor-num-nodes many", "--actor-num-nodes many: not a whole number"),
        ("python train.py --actor-num-nodes -1", "--actor-num-nodes -1: not a whole number of 0"),
        (f"python train.py --actor-num-nodes {'9' * 5000}", f"--actor-num-nodes {'9' * 40}: not a"),
        ("python train.py --colocate --num-layers 0", "--num-layers must be 1 or more"),
    ],
)
def test_what_is_no_command_is_one_line(text, said):
    command = [sys.executable, "-m", "rubric_rl.launch.estimate"]
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {said}")


@pytest.mark.parametrize(
    "flags", ["--gpu-gb nan", "--mfu -1", "--flops inf", "--rows -5", "--rows 1.5", "--criteria 0"]
)
def test_an_assumption_out_of_range_is_one_line(flags):
    command = [sys.executable, "-m", "rubric_rl.launch.estimate", *flags.split()]
    done = subprocess.run(command, cwd=ROOT, input="x --lr 1", capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: argument {flags.split()[0]}: '{flags.split()[1]}' is no")


@given(st.integers(1, 9), st.integers(0, 40), st.integers(1, 5), st.integers(0, 45), st.booleans())
def test_checkpoints_are_those_that_slime_writes_rollout_by_rollout(
    interval, rollouts, epochs, done, by_epoch
):
    flags = f"--save-interval {interval} --rollout-batch-size 2"
    flags += f" --num-epoch {epochs}" if by_epoch or not rollouts else f" --num-rollout {rollouts}"
    by_epoch = by_epoch or not rollouts
    total = epochs * (rollouts // 2) if by_epoch else rollouts
    epoch = max(total // epochs, 1) if by_epoch else total
    written = 0
    for rollout in range(done + 1, total + 1):
        written += rollout % interval == 0 or rollout % epoch == 0 or rollout == total
    assert count_checkpoints(CommandLine(flags.split()), rollouts, done) == written


def test_a_run_of_absurd_length_is_counted_at_once():
    flags = CommandLine(["--save-interval", "10", "--num-rollout", "999999999999"])
    assert count_checkpoints(flags, 0) == 10**11


def test_a_checkpoint_gives_its_flags_or_one_line(tmp_path):
    command = [sys.executable, "-m", "rubric_rl.launch.slime_flags", "model"]
    run = {"cwd": ROOT, "capture_output": True, "text": True}
    done = subprocess.run([*command, "rubric_rl/tiny/model"], **run)
    network = read_network(ROOT / "rubric_rl/tiny/model")
    assert done.returncode == 0 and done.stdout.splitlines() == model_flags(network)
    done = subprocess.run([*command, str(tmp_path)], **run)
    assert done.returncode == 2 and "no Qwen3 configuration" in done.stderr
    done = subprocess.run(command, **run)
    assert done.returncode == 2 and "error: give model FOLDER, or check" in done.stderr
