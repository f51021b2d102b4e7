"""Are the rows fit to train on: rubrics, lengths, and no evaluation prompt among them? (stage 1, prompt)"""

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from rubric_rl.data.eval_config import read_entries
from rubric_rl.data.row_file import read_slice, split_slice
from rubric_rl.data.schema import Row, conversation
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.jsonl import read_jsonl
from rubric_rl.launch.words import Words
from rubric_rl.model_shape import read_network
from rubric_rl.tokenizer import ChatTokenizer

INSTRUCTIONS = 600  # tokens of the grader's instructions and turn markers, rounded up


@cache
def read(path: str) -> list[Row]:
    """Rows of a file or a slice of it, read once."""
    return read_slice(path)


def count(words: Words) -> int:
    """Number of training prompts."""
    return len(read(words.text("prompt-data")))


def problems(words: Words, options) -> Iterator[str]:
    """One line for each thing wrong with the rows."""
    training = words.text("prompt-data")
    held_out = {
        key: path
        for path in evaluation_files(words)
        for row in read(path)
        for key in both_keys(row)
    }
    held_out |= {key: path for path in hard_files(words) for key in keys(path)}
    shared = [
        (row, held_out[key]) for row in read(training) for key in both_keys(row) if key in held_out
    ]
    if shared := {row.prompt_id: path for row, path in shared}:
        first = next(iter(shared))
        yield (f"{len(shared)} prompts of {training} are held out for evaluation in {shared[first]}, "
               f"e.g. {first}: that is training on the test set; "
               "make the rows again with data_preprocess.py")  # fmt: skip
    yield from lengths(words)


def evaluation_files(words: Words) -> list[str]:
    """The files of --eval-config or --eval-prompt-data."""
    sets = words.values.get("eval-prompt-data")
    named = SimpleNamespace(eval_config=words.text("eval-config"), eval_prompt_data=sets)
    return [entry["path"] for entry in read_entries(named)[0]]


def hard_files(words: Words) -> list[Path]:
    """Every hard file beside the training rows and the evaluation files, of which one may be a sample."""
    training = Path(split_slice(words.text("prompt-data"))[0])
    folders = {
        training.parent,
        *(Path(split_slice(path)[0]).parent for path in evaluation_files(words)),
    }
    return sorted({path for folder in folders for path in folder.glob("*_hard.jsonl")} - {training})


def both_keys(row: Row) -> tuple:
    """What a prompt is found by in another file: other tools give the same conversation another prompt_id."""
    return row.prompt_id, conversation(row.messages)


def keys(path: Path) -> Iterator[str | tuple]:
    """The same of a file of rows, or of raw rows: nobody evaluates on it now, so nothing else has to be right."""
    for _, item in read_jsonl(path):
        metadata = item.get("metadata", item) if isinstance(item, dict) else None
        if isinstance(metadata, dict) and isinstance(metadata.get("prompt_id"), str):
            yield metadata["prompt_id"]
            with suppress(LookupError, TypeError, AttributeError):
                yield conversation(item["prompt"])


def lengths(words: Words) -> Iterator[str]:
    """Context length against prompt, answer and grader limits, in the policy's tokens."""
    folder = Path(words.text("hf-checkpoint"))
    template, settings = (
        ChatTokenizer(folder),
        GraderSettings.load(words.text("custom-config-path")),
    )
    training = read(words.text("prompt-data"))
    longest = max(
        template.count(template.render(list(row.messages), thinking=True)) for row in training
    )
    criterion = max(template.count(c.text) for row in training for c in row.rubric)
    answer = int(words.number("rollout-max-response-len"))
    limit = int(words.number("sglang-context-length")) or read_network(folder).max_positions
    judged = longest + answer + criterion + INSTRUCTIONS + settings.endpoint.max_tokens
    if longest + answer > limit:
        yield (f"a prompt of {longest} tokens and --rollout-max-response-len {answer} exceed the context of {limit}; "
               "lower it, or use --max-prompt-tokens")  # fmt: skip
    elif settings.endpoint.api == "sglang" and not settings.training.engine and judged > limit:
        yield (f"grading may take {longest} + {answer} + {criterion} + {INSTRUCTIONS} + {settings.endpoint.max_tokens} tokens, "
               f"the context is {limit}; lower grader_max_tokens")  # fmt: skip
    most = int(words.number("max-tokens-per-gpu")) * int(words.number("context-parallel-size", 1))
    if "use-dynamic-batch-size" in words and longest + answer > most:
        yield (f"--max-tokens-per-gpu {most} is below the longest sample, {longest} + {answer} tokens; "
               "raise it or context parallel")  # fmt: skip
