"""AdvancedIF (arXiv 2511.10507): instructions, multi-turn context, system prompts.

    {"conversation_history": "[{\\"role\\": \\"user\\", \\"content\\": \\"Rhyme on cat.\\"}]",
     "benchmark_name": "complex_if_single_turn_v5",
     "prompt_metadata": "{\\"rubrics\\": \\"[\\\\\\"Does it rhyme?\\\\\\"]\\"}"}

Conversation, metadata and rubrics are JSON texts, the rubrics within another one. Signs: no points
are published, each question counts 1 and a yes is always good.
"""

from rubric_rl.common.errors import DataError
from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import POSITIVE, Reader


def _fits(item: dict) -> bool:
    return "conversation_history" in item and "prompt_metadata" in item


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    history = pieces.decoded(item.get("conversation_history"), "conversation_history")
    metadata = pieces.decoded(item.get("prompt_metadata"), "prompt_metadata")
    if not isinstance(metadata, dict):
        raise DataError(f"prompt_metadata is no object; {pieces.LEAVE_OUT}")
    rubric = []
    for words in pieces.texts(metadata.get("rubrics"), "rubrics of prompt_metadata"):
        rubric.append(pieces.criterion(words, 1))
    return pieces.row(
        item,
        pieces.chat(history, "conversation_history"),
        rubric,
        theme=pieces.label(item.get("benchmark_name")),
    )


ADVANCEDIF = Reader(
    "advancedif", "conversation_history, prompt_metadata", _fits, read, POSITIVE, "CC-BY-NC-4.0"
)
