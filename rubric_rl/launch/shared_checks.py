"""What both trainers check alike: slime's launch on GPUs, and the trainer without a GPU.

Each function takes plain values and yields one line per problem: what is wrong, where, the next
step. Unknown flags are the exception: `slime_flags.dropped_words` and `why_dropped` find those.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from rubric_rl.common.dotted_name import import_function
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import read_jsonl
from rubric_rl.common.plain_text import conversation
from rubric_rl.common.tokenizer import ChatTokenizer, thinking_switch
from rubric_rl.data.grader_template import load_template
from rubric_rl.data.row_file import read_slice, split_slice
from rubric_rl.data.schema import Row
from rubric_rl.data.training_settings import Trust
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.launch.schedule import answers_per_step
from rubric_rl.trust.probe import probe_rows

GRADER_INSTRUCTIONS = 600  # tokens of the grader's instructions and turn markers, rounded up
BYTES_PER_TOKEN = 3  # of a template, in English 4 to 5

# Flags of slime that cannot go together with self-grading, and why.
AGAINST_SELF_GRADING = {
    "partial-rollout": "a half-written answer, its grading aborted, would keep a wrong reward",
    "group-rm": "the hook grades one answer at a time",
}


# ---- flags


def check_self_grading(flags: Container[str], temperature: float) -> Iterator[str]:
    """Self-grading on one answer at a time, in groups whose answers differ.

    `flags` are the names of the given flags without dashes, `temperature` is the rollout's.
    """
    for name, reason in AGAINST_SELF_GRADING.items():
        if name in flags:
            yield f"--{name}: {reason}; leave it out"
    if temperature <= 0:
        yield (
            f"--rollout-temperature {temperature:g} must be above 0: "
            "greedy answers of a group are all equal"
        )


def check_batch_sizes(
    *,
    prompts: int,
    answers: int,
    global_batch: int | None,
    steps: int | None,
    over_sampling: int | None,
    data_parallel: int | None,
) -> Iterator[str]:
    """Groups that have an advantage, and optimizer steps that share a rollout evenly.

    A rollout is `prompts` (--rollout-batch-size) x `answers` (--n-samples-per-prompt); an optimizer
    step takes `global_batch` of its answers, or it makes `steps` of them; None is a flag that was
    not given. `data_parallel` is the number of model copies that share a step, or None where the
    parallel sizes are wrong, which is another finding.
    """
    total = prompts * answers
    of_rollout = f"({prompts} prompts x {answers})"
    if answers < 2:
        yield f"--n-samples-per-prompt {answers}: a group of one has no advantage; give 2 or more"
    if over_sampling is not None and over_sampling < prompts:
        yield (
            f"--over-sampling-batch-size {over_sampling} is below --rollout-batch-size {prompts}; "
            "raise it"
        )
    if not global_batch and not steps:
        yield f"--global-batch-size is missing; {total} makes one optimizer step per rollout"
        return
    step = answers_per_step(total, global_batch, steps)
    if steps and step * steps != total:
        yield (
            f"--num-steps-per-rollout {steps} x --global-batch-size {step} is not {total}, "
            f"the answers of a rollout {of_rollout}; change one of them"
        )
    elif step < 1 or total % step:
        yield (
            f"--global-batch-size {step} does not divide {total} answers "
            f"{of_rollout}; change one of them"
        )
    elif data_parallel and step % data_parallel:
        yield (
            f"--global-batch-size {step} is no multiple of {data_parallel}, "
            "the data parallel size; change it or the parallel sizes"
        )


def check_run_length(
    *, num_rollout: int | None, num_epoch: int | None, batch: int, prompts: int | None
) -> Iterator[str]:
    """A run of at least one rollout of `batch` prompts.

    `prompts` is the number of training prompts, or None where the rows are not read yet.
    """
    if num_rollout:
        return
    if not num_epoch:
        yield "how long is the run? give --num-rollout or --num-epoch"
    elif prompts is not None and prompts < batch:
        yield (
            f"{prompts} prompts make no rollout of --rollout-batch-size {batch}; "
            "lower it, or train on more prompts"
        )


def check_watch(
    trust: Trust, eval_interval: int | None, save_interval: int | None
) -> Iterator[str]:
    """Evaluations for probe and alarm, rows for the probe, checkpoints for an alarm that stops."""
    asked = {f"grader_alarm {trust.alarm}": trust.alarm != "off", "grader_probe": trust.probe}
    for name, is_set in asked.items():
        if is_set and not eval_interval:
            yield f"{name} is asked at evaluations; give --eval-interval, or leave it out"
    if trust.probe:
        try:
            probe_rows(trust)
        except UserError as error:
            yield f"grader_probe: {error}"
    if trust.alarm == "stop" and not save_interval:
        why = "ends a run after a checkpoint only, and there is none before the last rollout"
        yield f"grader_alarm stop {why}; give --save-interval, or grader_alarm warn"


def check_hooks(names: Iterable[str]) -> Iterator[str]:
    """Functions at dotted paths such as self_reward_rm.reward.

    They are imported in a process of its own, which sees the packages of this one: their modules
    may load much, print, or end the process.
    """
    names = sorted(set(names))
    if not names:
        return
    command = [sys.executable, "-m", "rubric_rl.launch.shared_checks", *names]
    search_path = os.pathsep.join(sys.path)
    env = os.environ | {"PYTHONPATH": search_path}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    status = done.returncode
    if status < 0:
        hooks = ", ".join(names)
        what = f"signal {-status} ended their import"
        yield f"the hooks {hooks}: {what}; import them one by one"
        return
    if status > 0:
        words = " ".join(command)
        raise RuntimeError(f"{words} failed:\n{done.stderr}")
    *_, problems = done.stdout.splitlines()
    yield from json.loads(problems)


def import_hook(name: str) -> Callable:
    """The function at a dotted path; raises UserError when it cannot be imported."""
    try:
        return import_function(name)
    except UserError as error:
        what = f"hook {name} cannot be imported ({error})"
        hint = "check the name, or install what it needs: pip install -e ."
        raise UserError(f"{what}; {hint}") from None


def _import_problems(names: Iterable[str]) -> Iterator[str]:
    """One line for each hook that cannot be imported."""
    for name in names:
        try:
            import_hook(name)
        except UserError as error:
            yield str(error)


# ---- files


def check_folder(flag: str, folder: str, variable: str) -> Iterator[str]:
    """A folder that a flag names; `variable` of the run scripts sets it."""
    if not folder or not Path(folder).is_dir():
        yield f"{flag} {folder}: no such folder; set {variable} to a checkpoint"


def check_checkpoint(flag: str, folder: Path, needed: Iterable[str]) -> Iterator[str]:
    """The `needed` files of a checkpoint, and weights that are whole where it is Hugging Face's."""
    for name in needed:
        if not (folder / name).is_file():
            yield f"{flag} {folder}: holds no {name}; get the checkpoint again"
    if (folder / "config.json").is_file():
        yield from check_weights(folder)


def check_weights(folder: Path) -> Iterator[str]:
    """Weight files that a Hugging Face folder lacks, or that a broken download cut short."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = _indexed_files(index)
        if not names:
            yield f"{index}: cannot be read; get the checkpoint again"
            return
        paths = [folder / name for name in sorted(names)]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        yield f"{folder}: holds no *.safetensors weights; get the checkpoint again"
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        number = len(missing)
        files = len(paths)
        example = missing[0]
        what = f"lacks {number} of {files} weight files, e.g. {example}"
        yield f"{folder}: {what}; finish the download"
    for path in paths:
        if path.is_file() and not _is_whole(path):
            yield f"{path}: is cut short, or a pointer of git-lfs; get it again"


def _indexed_files(index: Path) -> set[str]:
    """The names of the weight files in a checkpoint's index; none where it cannot be read."""
    try:
        text = index.read_text(encoding="utf-8")
        content = json.loads(text)
    except ValueError:
        return set()
    if not isinstance(content, dict):
        return set()
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict):
        return set()
    names = set()
    for name in weight_map.values():
        if not isinstance(name, str):
            return set()
        names.add(name)
    return names


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says.

    Eight bytes hold the header's length. The header says where each tensor ends, counted from the
    header's own end.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    if not isinstance(header, dict):
        return False
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict):
            return False
        offsets = entry.get("data_offsets")
        if not isinstance(offsets, list):
            return False
        for offset in offsets:
            if not isinstance(offset, int):
                return False
            end = max(end, offset)
    return size == 8 + length + end


# ---- rows


def check_held_out_prompts(
    training: str, rows: Iterable[Row], evaluation: Iterable[str]
) -> Iterator[str]:
    """No training prompt may be one of the evaluation.

    `training` names the file of the training `rows`, `evaluation` those of the evaluation: either
    may be a slice, `file@[a:b]`. Every file of hard rows beside them is held out too, since the
    evaluation often is a sample of one. A prompt is found by its prompt_id and by its conversation,
    to which other tools give another prompt_id.
    """
    evaluation = list(evaluation)
    held_out: dict[str | tuple, str] = {}  # prompt_id or conversation -> file
    for path in evaluation:
        for row in read_slice(path):
            words = conversation(row.messages)
            held_out.setdefault(row.prompt_id, path)
            held_out.setdefault(words, path)
    for path in _hard_files(training, evaluation):
        for key in _loose_keys(path):
            held_out.setdefault(key, str(path))

    shared: dict[str, str] = {}  # prompt_id of the training row -> file
    for row in rows:
        prompt_id = row.prompt_id
        path = held_out.get(prompt_id)
        if path is None:
            words = conversation(row.messages)
            path = held_out.get(words)
        if path is not None:
            shared[prompt_id] = path
    if not shared:
        return
    number = len(shared)
    first = next(iter(shared))
    path = shared[first]
    yield (
        f"{number} prompts of {training} are held out for evaluation in {path}, "
        f"e.g. {first}: that is training on the test set; "
        "make the rows again with data_preprocess.py"
    )


def _hard_files(training: str, evaluation: list[str]) -> list[Path]:
    """The files of hard rows beside the training rows and the evaluation's files."""
    folders = set()
    for path in [training, *evaluation]:
        name, _ = split_slice(path)
        folders.add(Path(name).parent)
    name, _ = split_slice(training)
    own = Path(name).resolve()
    beside = []
    for folder in folders:
        for file in folder.glob("*_hard.jsonl"):
            if file.resolve() != own:
                beside.append(file)
    return sorted(beside)


def _loose_keys(path: Path) -> Iterator[str | tuple]:
    """prompt_id and conversation of each row, or raw row, of a file.

    Nobody evaluates on it now, so nothing else in it has to be right.
    """
    for _, item in read_jsonl(path):
        if not isinstance(item, dict):
            continue
        metadata = item.get("metadata", item)
        if not isinstance(metadata, dict):
            continue
        prompt_id = metadata.get("prompt_id")
        if not isinstance(prompt_id, str):
            continue
        yield prompt_id
        messages = item.get("prompt")
        if _is_conversation(messages):
            yield conversation(messages)


def _is_conversation(messages: object) -> TypeGuard[list[dict]]:
    if not isinstance(messages, list):
        return False
    for message in messages:
        if not isinstance(message, dict):
            return False
        for field in ("role", "content"):
            text = message.get(field)
            if not isinstance(text, str):
                return False
    return True


@dataclass(frozen=True)
class PromptLengths:
    """The longest of the prompts whose answers share a limit, in tokens of the policy."""

    limit: str  # the name of the flag or setting that limits the answers
    answer: int  # its value
    prompt: int
    criterion: int


def prompt_lengths(
    path: str,
    rows: Iterable[Row],
    template: ChatTokenizer,
    *,
    template_options: Mapping,
    max_prompt: int | None,
    limit: str,
    answer: int,
) -> PromptLengths:
    """The longest prompt and criterion of the rows in a file.

    `template_options` are those of --apply-chat-template-kwargs. Prompts of more than `max_prompt`
    tokens are left out, as both trainers do; raises UserError where none is left, and for one that
    the chat template refuses.
    """
    names = thinking_switch(True)  # as templates may call it
    thinking = all(template_options.get(name, True) for name in names)
    prompt = criterion = 0
    for row in rows:
        messages = list(row.messages)
        try:
            text = template.render(messages, thinking)
        except UserError as error:
            place = f"{path}, prompt_id {row.prompt_id}"
            raise UserError(f"{place}: {error}") from None
        tokens = template.count(text)
        if max_prompt and tokens > max_prompt:
            continue
        prompt = max(prompt, tokens)
        for item in row.rubric:
            tokens = template.count(item.text)
            criterion = max(criterion, tokens)
    if prompt == 0:
        what = f"every prompt is longer than {max_prompt} tokens"
        hint = "raise --rollout-max-prompt-len or --eval-max-prompt-len"
        raise UserError(f"{path}: {what}; {hint}")
    return PromptLengths(limit=limit, answer=answer, prompt=prompt, criterion=criterion)


def policy_reply_limit(reward_hook: str, grader: GraderSettings) -> int | None:
    """The limit of a grader's reply in tokens, where the policy itself grades; else None."""
    if not reward_hook.startswith("self_reward_rm."):
        return None  # another hook, of which nothing is known
    endpoint = grader.endpoint
    if endpoint.api != "sglang" or endpoint.url or grader.training.engine:
        return None  # another model, with a context of its own
    return endpoint.max_tokens


def instruction_tokens(grader: GraderSettings) -> int:
    """Tokens of the grader's prompt beside conversation, answer and criterion, rounded up.

    Raises UserError or DataError for a template that cannot be had.
    """
    template = load_template(grader.grading.template)
    if template is None:
        return GRADER_INSTRUCTIONS
    return max(GRADER_INSTRUCTIONS, len(template.text.encode()) // BYTES_PER_TOKEN)


def check_context(
    context: int,
    lengths: Iterable[PromptLengths],
    grader_reply: int | None,
    instructions: int = GRADER_INSTRUCTIONS,
) -> Iterator[str]:
    """Prompt and answer, and the grading of that answer, within `context` tokens.

    `grader_reply` is `policy_reply_limit`, `instructions` are `instruction_tokens`.
    """
    for longest in lengths:
        prompt = longest.prompt
        answer = longest.answer
        if prompt + answer > context:
            limit = f"{longest.limit} {answer}"
            what = f"a prompt of {prompt} tokens and {limit} exceed the context of {context}"
            yield f"{what}; lower it, or make the rows again with --max-prompt-tokens"
            continue
        if grader_reply is None:
            continue
        parts = [prompt, answer, longest.criterion, instructions, grader_reply]
        if sum(parts) > context:
            terms = " + ".join(map(str, parts))
            what = f"grading may take {terms} tokens, the context is {context}"
            yield f"{what}; lower grader_max_tokens or the limit of the answers"


# ---- the machine


def check_port(port: int, purpose: str, host: str = "") -> Iterator[str]:
    """A port that a server can listen on at `host`; "" is every address of this machine."""
    with socket.socket() as probe:
        # As servers do: a port that waits for late packets of its last connection is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OverflowError as error:  # no port has this number
            reason = str(error)
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return
    what = f"port {port} for {purpose} cannot be used ({reason})"
    yield f"{what}; end the process that holds it or choose another port"


if __name__ == "__main__":  # the process of its own of `check_hooks`
    problems = list(_import_problems(sys.argv[1:]))
    print("\n" + json.dumps(problems))
