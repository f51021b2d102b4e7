"""What keeps a hostile text in its place in a prompt: control tokens broken up, delimiters."""

import hashlib
import re
from collections.abc import Callable

BreakUp = Callable[[str], str]  # breaks up the control tokens of one tokenizer

# Where the control tokens of the known families begin. A space after it, and the tokenizer reads
# plain text. A grader behind an OpenAI route may be of any family; a tokenizer that is at hand
# names its own tokens besides. Names in brackets are listed, because HealthBench's texts are full
# of blanks to fill in, such as [NAME] and [DATE].
_FAMILIES = re.compile(
    "|".join(
        (
            r"<(?=[|\uff5c])",  # Qwen, Llama 3, Phi, GLM, gpt-oss, Command; DeepSeek, Hunyuan
            r"<(?=/?(?:think|thinking|thought|tool_calls?|tool_response)>)",
            r"<(?=/?(?:role|response)>)",  # Ling; Granite
            r"\u25c1(?=/?[a-z_]{1,40}\u25b7)",  # Kimi
            r"<(?=/?(?:s|unk|pad|bos|eos|sep|cls|mask|sop|eo[acdhmpst]|image)>)",  # eoh: InternLM
            r"<(?=/?(?:start|end)_of_[a-z]+>)",  # Gemma 3
            r"<(?=/?[a-z_]{1,40}\|>)",  # Gemma 4
            r"<(?=<?/?SYS>>)",  # Llama 2
            r"<(?=[A-Z_]{1,40}_TOKEN>)",
            # No plain words, which may be tags or types: <masked>, <seedling>.
            r"<(?=/?(?:seed|longcat|minimax|reserved|extra_id|unused|SPECIAL|mask)"
            r"(?:[_:]\w{1,40}|[0-9]{1,5})>)",
            r"\[(?=/?(?:INST|SYSTEM_PROMPT|THINK|TOOL_[A-Z]+|AVAILABLE_TOOLS)\])",  # Mistral
            r"\[(?=/?(?:ARGS|CALL_ID|IMG|IMG_[A-Z]+|AUDIO|BEGIN_AUDIO|TRANSCRIBE)\])",
            # GLM: [gMASK]; Kimi: [EOT]; Pangu: [unused10]
            r"\[(?=(?:[gs]?MASK|CLS|SEP|PAD|UNK|BOS|EOS|EOT|unused[0-9]{1,4}|PREFIX|MIDDLE|SUFFIX"
            r"|MODEL_SETTINGS)\])",
            r"\[(?=\|)",  # EXAONE
            r"\](?=~!?b[\[\]]|![a-z]~\[|<\][a-z ]{1,40}\[>\[)|\[(?=e~\[)",  # MiniMax
            r"<(?=_(?:user|bot|system|start|end|pad)>)",  # TeleChat
            r"<(?=fim_(?:prefix|middle|suffix|pad)>)",  # StarCoder
            # No token, but whoever reads it in a user's turn leaves out the thoughts: Qwen, GLM
            r"/(?=(?i:no_?think)\b)",
        )
    )
)


def neutral(text: str, break_up: BreakUp = str) -> str:
    """`text` with every control token broken up by a space, so that it forges no turn or thought.

    Those of the known families, and by `break_up` those of the grader's own tokenizer. A lone
    surrogate, which no engine takes, becomes a question mark.
    """
    return break_up(_FAMILIES.sub(r"\g<0> ", text.encode(errors="replace").decode()))


def block(name: str, text: str) -> str:
    """The text between delimiters that it cannot close: they carry a hash of their content."""
    mark = hashlib.sha256(text.encode()).hexdigest()[:6]
    # Six digits can be found by chance or by search: rehash until the text lacks its own mark.
    while mark in text:
        mark = hashlib.sha256((mark + text).encode()).hexdigest()[:6]
    return f"<{name} {mark}>\n{text}\n</{name} {mark}>"
