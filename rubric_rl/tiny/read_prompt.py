"""Reads a grader prompt back into its parts: the inverse of rubric_rl/grading/prompt.py.

For a grader that is a rule and no model. What it does not read back to the letter is refused: a
text that looks like a grader prompt, or one of another version, gets no verdict.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rubric_rl.common.errors import UserError
from rubric_rl.data.schema import Criterion
from rubric_rl.grading.prompt import criteria_part, shared_part

MODES = ("explain", "direct", "checklist")
# Neither text holds the mark of its own block, so the first closing tag is the block's.
_BLOCKS = re.compile(
    r"<conversation (?P<first>[0-9a-f]{6})>\n(?P<conversation>.*?)\n</conversation (?P=first)>\n\n"
    r"<answer (?P<second>[0-9a-f]{6})>\n(?P<answer>.*?)\n</answer (?P=second)>\n"
    r"(?P<criteria>\nCriterion.*)",
    re.DOTALL,
)
_ONE = "\nCriterion: "
_NUMBERED = re.compile(r"\nCriterion [0-9]+: ")
_NUMBER = r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?"
_ITEM = re.compile(rf"\[(?P<points>{_NUMBER})\] (?P<text>.*)", re.DOTALL)


@dataclass(frozen=True)
class GraderPrompt:
    """What a grader is asked: the texts as they stand in the prompt, control tokens broken up."""

    mode: str  # one of MODES; a cascade's prompt is that of explain
    conversation: str  # "role: content", an empty line between the turns
    answer: str
    criteria: tuple[Criterion, ...]  # one, but for `checklist`


def read_prompt(text: str) -> GraderPrompt:
    """The parts of a grader prompt.

    Raises:
        UserError: for any text that `grader_prompt` does not make of these very parts.
    """
    for mode in MODES:
        instructions, _, _ = shared_part(mode, [], "").partition("<conversation ")
        if text.startswith(instructions):
            blocks = _BLOCKS.fullmatch(text.removeprefix(instructions))
            if blocks is None:
                raise _not_ours("its conversation, answer or criterion cannot be told apart")
            return _checked(text, mode, blocks)
    raise _not_ours("it does not begin with the grader's instructions")


def _checked(text: str, mode: str, blocks: re.Match) -> GraderPrompt:
    """The parts, if they make the same prompt again: marks, points and numbers included."""
    conversation = blocks["conversation"]
    criteria = list(_criteria(mode, blocks["criteria"]))
    role, _, content = conversation.partition(": ")
    # However many turns there are, the text is that of one.
    messages = [{"role": role, "content": content}]
    made = shared_part(mode, messages, blocks["answer"])
    made += criteria_part(mode, criteria)
    if made != text:
        raise _not_ours("its parts make another prompt, so a mark, number or text was changed")
    return GraderPrompt(mode, conversation, blocks["answer"], tuple(criteria))


def _criteria(mode: str, text: str) -> Iterator[Criterion]:
    if mode != "checklist":
        yield _criterion(text.removeprefix(_ONE))
        return
    _, *items = _NUMBERED.split(text)
    for item in items:
        yield _criterion(item)


def _criterion(item: str) -> Criterion:
    """The criterion of "[5] text"; a meta-evaluation's has no points, which is 0."""
    match = _ITEM.fullmatch(item)
    if match is None:
        return Criterion(item, 0)
    return Criterion(match["text"], float(match["points"]))


def _not_ours(why: str) -> UserError:
    what = f"the message is no grader prompt of rubric_rl/grading/prompt.py: {why}"
    return UserError(f"{what}; let graders of this version ask, with grader_api openai")
