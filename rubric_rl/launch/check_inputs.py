"""What a slime run reads, held against what it needs: weights, rows, their lengths, its graders.

Each function yields one line per problem: what is wrong, where, the next step.
"""

import asyncio
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import marked_line
from rubric_rl.common.model_shape import read_network
from rubric_rl.common.tokenizer import ChatTokenizer
from rubric_rl.data.eval_config import FALLBACK_FLAGS, EvalDataset, resolve
from rubric_rl.data.grader_template import load_template
from rubric_rl.data.row_file import read_slice, split_slice
from rubric_rl.data.schema import Record, Row
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.graders import load_other
from rubric_rl.grading.health import check, failure_of
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.launch import shared_checks
from rubric_rl.launch.check_served_models import asked_engines, check_served_models
from rubric_rl.launch.estimate import parallel_plan
from rubric_rl.launch.slime_flags import CommandLine
from rubric_rl.serving.client import Client
from rubric_rl.serving.served_models import read_served_models

LONGEST_CHECK = 120.0  # seconds for one request of a check question


class RunInputs:
    """The files that a command line names, each read once, when it is first asked for.

    Its properties raise UserError where a file cannot be read.
    """

    def __init__(self, flags: CommandLine):
        self.flags = flags

    @property
    def training_path(self) -> str:
        """The file of the training rows, or a slice of it."""
        return self.flags.text("prompt-data")

    @cached_property
    def training_rows(self) -> list[Row]:
        """The training rows."""
        return read_slice(self.training_path)

    @cached_property
    def evaluation_sets(self) -> list[EvalDataset]:
        """The data sets of --eval-config or --eval-prompt-data."""
        flags = self.flags
        args = dict.fromkeys(name for names in FALLBACK_FLAGS.values() for name in names)
        args |= {
            "eval_config": flags.text("eval-config"),
            "eval_prompt_data": flags.values.get("eval-prompt-data"),
            "rollout_max_response_len": flags.whole("rollout-max-response-len"),
            "apply_chat_template_kwargs": _template_options(flags),
        }
        if "eval-max-response-len" in flags:
            args["eval_max_response_len"] = flags.whole("eval-max-response-len")
        return resolve(SimpleNamespace(**args))

    @cached_property
    def grader(self) -> GraderSettings:
        """The settings of the grader."""
        return GraderSettings.load(self.grader_file)

    @property
    def grader_file(self) -> str:
        """The file of these settings."""
        return self.flags.text("custom-config-path")


# ---- weights


def check_weights(inputs: RunInputs) -> Iterator[str]:
    """Checkpoints that would break the run when all GPUs are up."""
    flags = inputs.flags
    policy = flags.text("hf-checkpoint")
    reference = flags.text("ref-load")
    yield from shared_checks.check_folder("--hf-checkpoint", policy, "HF_CKPT_PATH")
    if Path(policy).is_dir():
        needed = ("config.json", "tokenizer.json")
        yield from shared_checks.check_checkpoint("--hf-checkpoint", Path(policy), needed)
    if reference != policy:
        yield from _check_reference(reference)
    for flag in ("ref-load", "load"):
        if flag in flags:
            yield from _check_megatron_checkpoint(f"--{flag}", Path(flags.text(flag)))


def _check_reference(folder: str) -> Iterator[str]:
    """Where the first start takes its weights from, in Megatron's format or Hugging Face's."""
    yield from shared_checks.check_folder("--ref-load", folder, "DIST_CKPT_PATH")
    path = Path(folder)
    if not path.is_dir():
        return
    if (path / "config.json").is_file():
        yield from shared_checks.check_checkpoint("--ref-load", path, ())
    elif not (path / "latest_checkpointed_iteration.txt").is_file():
        yield (
            f"--ref-load {folder}: neither Megatron's format nor Hugging Face's; "
            "convert it with SLIME_DIR/tools/convert_hf_to_torch_dist.py"
        )


def _check_megatron_checkpoint(flag: str, folder: Path) -> Iterator[str]:
    """A checkpoint that is named, but was removed or never finished."""
    tracker = folder / "latest_checkpointed_iteration.txt"
    if not tracker.is_file():
        return
    written = tracker.read_text(errors="replace").strip()
    if written.isdecimal():
        name = f"iter_{int(written):07d}"
    elif written == "release":  # a conversion, not a step of a run
        name = written
    else:
        yield (
            f"{flag}: {tracker} holds {written[:20]!r}, no iteration; "
            "write the number of the last iter_* folder"
        )
        return
    if not (folder / name).is_dir():
        yield (
            f"{flag}: {tracker} names {name}, which is not there; "
            "bring it back, or name another one there"
        )


# ---- rows


def check_rows(inputs: RunInputs) -> Iterator[str]:
    """Rows that slime reads and that can be graded, and none of the evaluation among them."""
    evaluation = [dataset.path for dataset in inputs.evaluation_sets]
    training = inputs.training_path
    looked_at = set()
    for path in [training, *evaluation]:
        file, _ = split_slice(path)
        if file in looked_at:
            continue
        looked_at.add(file)
        line = marked_line(file)
        if line:
            what = "a byte order mark begins the line, which slime leaves out"
            yield f"{file}:{line}: {what}; make the rows again with data_preprocess.py"
    yield from shared_checks.check_held_out_prompts(training, inputs.training_rows, evaluation)


def check_lengths(inputs: RunInputs) -> Iterator[str]:
    """Prompts, answers and gradings within the context, the longest sample within a batch."""
    flags = inputs.flags
    folder = flags.text("hf-checkpoint")
    template = ChatTokenizer(folder)
    training = shared_checks.prompt_lengths(
        inputs.training_path,
        inputs.training_rows,
        template,
        template_options=_template_options(flags),
        max_prompt=flags.whole("rollout-max-prompt-len"),
        limit="--rollout-max-response-len",
        answer=flags.whole("rollout-max-response-len"),
    )
    lengths = [training]
    for dataset in inputs.evaluation_sets:
        evaluation = shared_checks.prompt_lengths(
            dataset.path,
            read_slice(dataset.path),
            template,
            template_options=dataset.apply_chat_template_kwargs or {},
            max_prompt=flags.whole("eval-max-prompt-len"),
            limit=f"max_response_len of {dataset.name}",
            answer=dataset.max_response_len or 0,
        )
        lengths.append(evaluation)

    context = flags.whole("sglang-context-length") or read_network(folder).max_positions
    reply = shared_checks.policy_reply_limit(flags.text("custom-rm-path"), inputs.grader)
    instructions = shared_checks.instruction_tokens(inputs.grader)
    yield from shared_checks.check_context(context, lengths, reply, instructions)

    if "use-dynamic-batch-size" in flags:
        most = flags.whole("max-tokens-per-gpu") * flags.whole("context-parallel-size", 1)
        if training.prompt + training.answer > most:
            yield (
                f"--max-tokens-per-gpu {most} is below the longest sample, "
                f"{training.prompt} + {training.answer} tokens; raise it or context parallel"
            )


def _template_options(flags: CommandLine) -> dict:
    """The options of --apply-chat-template-kwargs."""
    text = flags.text("apply-chat-template-kwargs", "{}")
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise UserError(f"--apply-chat-template-kwargs {text}: not a JSON object; write one")
    return options


# ---- graders


def check_graders(inputs: RunInputs, running_ray: bool) -> Iterator[str]:
    """Answers that would stay ungraded, or be graded by another model than meant.

    The processes of a `running_ray` have keys of their own, which cannot be seen from here.
    """
    flags, grader = inputs.flags, inputs.grader
    training = grader.training
    models = flags.text("sglang-config", "")
    checkpoint = flags.text("hf-checkpoint")
    yield from check_served_models(models, asked_engines(training), checkpoint)
    if models:
        yield from _check_numbers_of_gpus(flags, models)
    if grader.skill.skill_coef:
        why = "only the trainer without a GPU holds the grader's skill"
        yield f"grader_skill_coef: {why}; leave it out (docs/gpu_runs.md, Means against drift)"
    intervals = (flags.whole("eval-interval"), flags.whole("save-interval"))
    yield from shared_checks.check_watch(grader.trust, *intervals)
    yield from check_endpoints(grader, inputs.grader_file, checkpoint, running_ray)
    load_template(grader.grading.template)  # downloads it here, and not first on a GPU node


def ask_graders(inputs: RunInputs) -> Iterator[str]:
    """Endpoints that fail their check question now: better than after the first rollout."""
    for file, settings in _endpoints(inputs.grader, inputs.grader_file):
        print(f"preflight: the grader of {file} gets its check question", flush=True)
        checked = asyncio.run(_asked(settings, inputs.flags.text("hf-checkpoint")))
        if failure := failure_of(checked, settings.grading.most_unreadable):
            yield f"{file}: {failure}"


def check_endpoints(
    grader: GraderSettings, file: str, tokenizer: str, running_ray: bool = False
) -> Iterator[str]:
    """Whether the graders that are served outside of the run could be asked from here.

    `file` is that of the settings; the processes of a `running_ray` have keys of their own.
    """
    for name, settings in _endpoints(grader, file):
        endpoint = settings.endpoint
        if running_ray:
            endpoint = endpoint.model_copy(update={"api_key_env": ""})
        try:
            Grader(Client(endpoint, "", tokenizer), settings.grading)
        except UserError as error:  # says nothing of the address, which may hold a password
            yield f"{name}: {error}"


def _endpoints(grader: GraderSettings, file: str) -> Iterator[tuple[str, GraderSettings]]:
    """The graders that are served outside of the run, each with the file of its settings."""
    if grader.endpoint.url:
        yield file, grader
    if grader.training.teacher_share:
        teacher = grader.training.teacher
        yield teacher, load_other(teacher, "teacher", grader.rule)
    if grader.training.anchor:
        anchor = load_other(grader.training.anchor, "anchor")
        if anchor.endpoint.url:  # else it is an engine of the run
            yield grader.training.anchor, anchor


async def _asked(settings: GraderSettings, tokenizer: str) -> Record:
    limits = {"retries": min(settings.endpoint.retries, 2)}
    limits |= {"timeout": min(settings.endpoint.timeout, LONGEST_CHECK)}
    hasty = settings.endpoint.model_copy(update=limits)
    async with Client(hasty, "", tokenizer) as client:
        return await check(Grader(client, settings.grading))


def _check_numbers_of_gpus(flags: CommandLine, path: str) -> Iterator[str]:
    """Those in --sglang-config; slime would complain with all GPUs up."""
    models = read_served_models(path)
    total = sum(model.gpus for model in models.values())
    serving = parallel_plan(flags).serving_gpus
    if total != serving:
        yield (
            f"{path}: its numbers of GPUs add up to {total}, but {serving} GPUs serve; "
            "change num_gpus"
        )
