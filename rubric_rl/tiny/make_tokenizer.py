"""Makes the tiny checkpoint's tokenizer: byte-level BPE, Qwen's special tokens, chat template."""

import random
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rubric_rl.data.schema import Criterion
from rubric_rl.grading.prompt import grader_prompt
from rubric_rl.tiny.example_answers import graded_answer, mediocre_answer
from rubric_rl.tiny.oracle import CONDITIONS, MODIFIERS, STATEMENTS, criteria, sentences
from rubric_rl.tiny.training_sequences import reply_pieces, user_turn
from rubric_rl.tiny.world import PATIENTS, TRAINING_PAIRS, messages

VOCABULARY = 1536
# In Qwen's order. MARKS are not special to a tokenizer, so that decoding keeps them.
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
# Qwen's split of a text into words, within which BPE merges.
_WORDS = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",  # contractions
        r"[^\r\n\p{L}\p{N}]?\p{L}+",  # words, with the space before them
        r"\p{N}",  # single digits
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # punctuation, with the line breaks after it
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)

# Qwen3's rules without tools: thoughts of earlier turns are dropped, the last assistant turn
# carries its thoughts, empty or not, and enable_thinking=false opens the turn with empty thoughts.
CHAT_TEMPLATE = """\
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}\
{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- set content = message.content if message.content is string else '' %}
{%- if message.role == 'assistant' %}
{%- set thoughts = message.reasoning_content if message.reasoning_content is string else '' %}
{%- if '</think>' in content and not thoughts %}
{%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.last and (loop.last or thoughts) %}
{{- '<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
{%- else %}
{{- content }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""


def corpus(seed: int) -> list[str]:
    """What the tokenizer is trained on.

    Every sentence and criterion, every word about patients, and grader prompts with their replies.
    """
    texts = []
    for statement in STATEMENTS:
        texts += [*sentences(statement), *criteria(statement)]
    texts *= 4  # so that each key word becomes one token
    for condition in CONDITIONS.values():
        for symptom in condition.symptoms:
            texts += [f" {word}" for word in symptom.split()]
    for name, modifier in MODIFIERS.items():
        texts.append(f"{name} {' '.join(modifier.wordings)}")
    rng = random.Random(seed)
    for number in range(600):
        texts += _example_texts(rng, number)
    return texts


def _example_texts(rng: random.Random, number: int) -> list[str]:
    """A grader prompt, its reply, and an answer of the policy."""
    mode = ("explain", "direct", "checklist")[number % 3]
    pair = rng.choice(TRAINING_PAIRS)
    conversation = messages(pair, number % len(PATIENTS))
    answer = graded_answer(rng, pair)
    statement = rng.choice(STATEMENTS)
    text = rng.choice(criteria(statement))
    points = rng.choice((-1, 1)) * rng.randint(1, 10)
    prompt = grader_prompt(mode, conversation, answer, [Criterion(text, points)])
    reply = "".join(piece.text for piece in reply_pieces(mode, answer, statement))
    return [user_turn(prompt), reply, mediocre_answer(rng, pair)]


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Trains the merges on `texts`; at most VOCABULARY tokens, with bytes and control tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(MARKS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(MARKS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
