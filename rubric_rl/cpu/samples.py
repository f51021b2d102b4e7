"""Prompts in slime's order: rows, chat template, epochs, groups of samples, exact resume."""

import copy
import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rubric_rl.common.errors import DataError
from rubric_rl.data.parse import check_json, row_from_metadata
from rubric_rl.data.row_file import read_items, split_slice


@dataclass
class Sample:
    """One answer to one prompt.

    The field names are those of slime.utils.types.Sample, which the hooks read.
    """

    class Status(Enum):
        PENDING = "pending"
        COMPLETED = "completed"
        TRUNCATED = "truncated"
        ABORTED = "aborted"
        FAILED = "failed"

    group_index: int | None = None
    index: int | None = None
    rollout_id: int | None = None
    prompt: str = ""
    tokens: list[int] = field(default_factory=list)
    response: str = ""
    response_length: int = 0
    label: str | None = None
    reward: Any = None  # what the reward hook returned: a number, or a dict with --reward-key
    loss_mask: list[int] | None = None
    weight_versions: list[str] = field(default_factory=list)
    rollout_log_probs: list[float] | None = None
    remove_sample: bool = False
    status: Status = Status.PENDING
    metadata: dict = field(default_factory=dict)
    custom_rm_path: str | None = None
    session_id: str | None = None

    def get_reward_value(self, args) -> float:
        """The reward as a number, also when the hook returned a dict."""
        return self.reward[args.reward_key] if args.reward_key else self.reward

    @property
    def effective_response_length(self) -> int:
        """Answer tokens that count in the loss."""
        return self.response_length if self.loss_mask is None else sum(self.loss_mask)


def load_prompts(
    path: str,
    tokenizer,
    *,
    input_key: str,
    metadata_key: str,
    apply_chat_template: bool,
    template_kwargs: dict | None = None,
    max_length: int | None = None,
) -> list[Sample]:
    """One Sample per row of a JSONL file; `path@[a:b]` takes a slice, as in slime.

    Raises:
        DataError: naming file, line and prompt_id, for a row that could not be templated or graded,
            or when no row is left below `max_length` prompt tokens.
    """
    real_path, rows = split_slice(path)
    samples = []
    for where, row in read_items(real_path)[rows]:
        metadata: Any = row.get(metadata_key)
        prompt_id = row_from_metadata(metadata, where).prompt_id
        where = f"{where}, prompt_id {prompt_id}"
        check_json(row, where)
        prompt = row.get(input_key)
        if apply_chat_template:
            if not isinstance(prompt, list) or not prompt:
                found = f"{input_key!r} is not a list of chat messages"
                raise DataError(f"{where}: {found} (--input-key)")
            options = {"tokenize": False, "add_generation_prompt": True}
            options |= template_kwargs or {}
            prompt = tokenizer.apply_chat_template(prompt, **options)
        elif not isinstance(prompt, str):
            raise DataError(f"{where}: {input_key!r} is not text; give --apply-chat-template")
        samples.append(Sample(prompt=prompt, metadata=metadata))
    if not samples:
        raise DataError(f"{path}: this slice holds no rows; take another")
    if max_length is None:
        return samples
    return _short_enough(samples, tokenizer, max_length, path)


def _short_enough(samples: list[Sample], tokenizer, max_length: int, path: str) -> list[Sample]:
    kept = []
    for sample in samples:
        tokens = tokenizer.encode(sample.prompt, add_special_tokens=False)
        if len(tokens) <= max_length:
            kept.append(sample)
    if not kept:
        hint = "raise --rollout-max-prompt-len"
        raise DataError(f"{path}: every prompt is longer than {max_length} tokens; {hint}")
    return kept


class DataSource:
    """Groups of samples, epoch after epoch.

    The shuffle of an epoch is slime's: Random(rollout_seed + epoch).
    """

    def __init__(self, args, prompts: list[Sample]):
        self.args = args
        self.prompts = prompts
        self.epoch_id = 0
        self.sample_offset = 0
        self.sample_group_index = 0
        self.sample_index = 0
        self._order = self._order_of_epoch()

    def __len__(self) -> int:
        return len(self.prompts)

    def _order_of_epoch(self) -> list[int]:
        order = list(range(len(self.prompts)))
        if self.args.rollout_shuffle:
            random.Random(self.args.rollout_seed + self.epoch_id).shuffle(order)
        return order

    def get_samples(self, groups: int) -> list[list[Sample]]:
        """The next `groups` groups of n_samples_per_prompt fresh samples each."""
        return [self._make_group(self._next_prompt()) for _ in range(groups)]

    def _next_prompt(self) -> Sample:
        if self.sample_offset == len(self.prompts):
            self.epoch_id += 1
            self.sample_offset = 0
            self._order = self._order_of_epoch()
        prompt = self.prompts[self._order[self.sample_offset]]
        self.sample_offset += 1
        return prompt

    def _make_group(self, prompt: Sample) -> list[Sample]:
        group = []
        for _ in range(self.args.n_samples_per_prompt):
            sample = copy.deepcopy(prompt)
            sample.group_index = self.sample_group_index
            sample.index = self.sample_index
            self.sample_index += 1
            group.append(sample)
        self.sample_group_index += 1
        return group

    def state(self) -> dict[str, int]:
        """Where the next group comes from, as JSON."""
        return {
            "epoch_id": self.epoch_id,
            "sample_offset": self.sample_offset,
            "sample_group_index": self.sample_group_index,
            "sample_index": self.sample_index,
        }

    def restore(self, state: dict[str, int]) -> None:
        """Continues exactly where `state()` was taken."""
        self.epoch_id = state["epoch_id"]
        self.sample_offset = state["sample_offset"]
        self.sample_group_index = state["sample_group_index"]
        self.sample_index = state["sample_index"]
        self._order = self._order_of_epoch()
