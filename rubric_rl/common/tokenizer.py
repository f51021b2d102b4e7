"""A model's chat template and tokenizer: from a conversation to the text and the token ids."""

import gc
import json
import os
import re
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jinja2
from tokenizers import Tokenizer, normalizers

from rubric_rl.common.errors import UserError
from rubric_rl.common.render_alike import AlikeTemplate

# What encloses a model's thoughts, in Qwen3's chat format and others.
THINK, THINK_END = "<think>", "</think>"
# The same of other families, after the usual one. Each end is broken up in a text that is graded
# (common.hostile_text), so that no quotation ends thoughts.
THOUGHTS = (
    (THINK, THINK_END),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis", "<|end|>"),  # gpt-oss
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    ("[unused16]", "[unused17]"),  # Pangu
    ("<longcat_think>", "</longcat_think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),  # Kimi K3
)
_OTHER_OPENINGS = tuple(opens for opens, _ in THOUGHTS[1:])
_OPENING = re.compile(rf"\s*{THINK}")
_NO_THOUGHTS = ("{", "[", "```")  # how an object begins

_BLANKS = " \t\n\u2581"  # and how SentencePiece writes a space
# Of Unicode: they leave ASCII as it is.
_FORMS = (normalizers.NFC, normalizers.NFD, normalizers.NFKC, normalizers.NFKD)
_NORMALISATIONS = 3  # more than enough: what is normalised stays as it is

HINT = "name the local folder of a chat model as tokenizer"
_SAID = "What may help?"  # a turn that every template must show


def after_thoughts(reply: str) -> str:
    """What follows the thoughts of a reply; nothing follows thoughts that never end.

    Those that open the reply end at the first `</think>`, those that the chat template opened at
    the last one. A reply that begins with an object has none: all of it is the reply's own word,
    and what writes `<think>` is no word at all.
    """
    if reply.lstrip().startswith(_OTHER_OPENINGS):
        for opens, closes in THOUGHTS[1:]:
            if reply.lstrip().startswith(opens):
                reply = reply.partition(closes)[2]
    start = 0
    while opening := _OPENING.match(reply, start):
        closing = reply.find(THINK_END, opening.end())
        if closing < 0:
            return ""
        start = closing + len(THINK_END)
    text = reply[start:]
    if (not start or THINK in text) and not reply.lstrip().startswith(_NO_THOUGHTS):
        text = text.rpartition(THINK_END)[2]
    return "" if THINK in text else text


def thinking_switch(thinking: bool) -> dict[str, bool]:
    """The variables by which chat templates are told whether the model thinks.

    Qwen, GLM and Gemma know the first, DeepSeek, Kimi and Granite the second.
    """
    return {"enable_thinking": thinking, "thinking": thinking}


class ChatTokenizer:
    """The chat template and the tokenizer of a Hugging Face model folder.

    transformers renders the template, so that the text is the one that the policy was trained
    on. Its AutoTokenizer would do the rest as well, but it loads torch.
    """

    def __init__(self, folder: str | Path):
        """Raises UserError, naming the folder, where it lacks a tokenizer or a chat template.

        Also for a template that leaves out what is said.
        """
        self._folder = Path(folder)
        self._tokenizer = _read_tokenizer(self._folder)
        config = _read_config(self._folder)
        self._left_out = _left_out(self._tokenizer, config)
        self._options: dict[str, Any] = _special_tokens(config) | {
            "chat_template": _read_template(self._folder, config),
            "add_generation_prompt": True,
        }
        plain, wrapped = (
            self._tokenizer.encode("a", add_special_tokens=add).ids for add in (False, True)
        )
        named = config.get("add_bos_token") or config.get("add_eos_token")
        # Of its own, such as a second BOS: so would the engine's, of a text.
        self.adds_tokens = bool(named) or plain != wrapped
        self._render_template = _import_renderer()
        try:
            # This compiles the template, which transformers keeps, and renders nothing.
            self._render_template(conversations=[], **self._options)
        except jinja2.TemplateError as error:
            raise UserError(f"{folder}: broken chat template ({error}); {HINT}") from None
        self._check_shown()

    def _check_shown(self) -> None:
        """Some templates of models that see images leave out a content that is no list of parts.

        One that refuses this conversation may take others: `render` tells.
        """
        try:
            text = self.render([{"role": "user", "content": _SAID}], thinking=True)
        except UserError:
            return
        if _SAID not in text:
            what = "the chat template leaves out what the user says, where that is plain text"
            raise UserError(f"{self._folder}: {what}; name a chat model for text as tokenizer")

    def render(self, messages: list[dict], thinking: bool, opening: str = "") -> str:
        """The text that the model continues: messages, the assistant's header and `opening`.

        Raises UserError with the template's reason when it refuses this conversation, such as
        one with a system message or with two turns of the user in a row.
        """
        options = self._options | thinking_switch(thinking)
        try:
            rendered, _ = self._render_template(conversations=[messages], **options)
        except Exception as error:  # a template is a program: it can raise anything
            reason = str(error)
            if not isinstance(error, jinja2.TemplateError):
                reason = f"{type(error).__name__}: {error}"
            refusal = f"the chat template of {self._folder} refuses this conversation: {reason}"
            raise UserError(f"{refusal}; name another chat model as tokenizer") from None
        return _completed(rendered[0], thinking) + opening

    def render_alike(self, conversations: list[list[dict]], thinking: bool) -> list[str]:
        """The same of several conversations: in one run, where they differ in their last turn.

        The first is rendered alone as well, to see that the run is what transformers does.
        """
        first = self.render(conversations[0], thinking)
        if len(conversations) > 1:
            rendered = self._alike.render(conversations, thinking_switch(thinking)) or []
            texts = [_completed(text, thinking) for text in rendered]
            if texts[:1] == [first]:
                return texts
        others = conversations[1:]
        return [first, *(self.render(messages, thinking) for messages in others)]

    @cached_property
    def _alike(self) -> AlikeTemplate:
        return AlikeTemplate(self._render_template, self._options)

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """The texts that the tokenizer reads as one token each, such as <|im_end|>.

        The longest first, without white space around them. Left out are those of white space
        alone, and single characters that are not special: they end no turn.
        """
        texts = set()
        for token in self._tokenizer.get_added_tokens_decoder().values():
            text = token.content.strip()
            if len(text) > 1 or (text and token.special):
                texts.add(text)
        return _longest_first(texts)

    def usual_thoughts(self, response: str, prompt: str = "") -> str:
        """A response of this model, the thought that opens it between the usual marks, and empty.

        Such a thought stands between marks that its chat template names, and `prompt`, which it
        continues, may have opened it. Another family's marks hide nothing from who reads it.
        """
        template = self._options["chat_template"]
        for opens, closes in THOUGHTS[1:]:
            opened = response.lstrip().startswith(opens) or prompt.rstrip().endswith(opens)
            if opened and opens in template and closes in template:
                _, closing, rest = response.partition(closes)
                return f"{THINK}{THINK_END}{rest}" if closing else THINK
        return response

    @cached_property
    def hides_thoughts(self) -> bool:
        """Whether a mark of thoughts is left out where special tokens are, as engines do."""
        marks = [mark for pair in THOUGHTS for mark in pair]
        return any(token in mark for token in self._left_out for mark in marks)

    def break_up(self, text: str) -> str:
        """`text` with each special token broken up by a space, so that none is read in it.

        Some tokenizers look for them in the normalised text, such as one in small letters: a token
        that only shows there is broken up there.
        """
        text = _broken_up(text, self.special_tokens)
        if text.isascii() and isinstance(self._tokenizer.normalizer, _FORMS):
            return text
        for _ in range(_NORMALISATIONS):
            seen = self._tokenizer.normalizer.normalize_str(text) if self._late_tokens else ""
            if not any(token in seen for token in self._late_tokens):
                break
            text = _broken_up(seen, self._late_tokens)
        return text

    @cached_property
    def _late_tokens(self) -> tuple[str, ...]:
        """Special tokens that are looked for in the normalised text, in their normalised form."""
        normalizer = self._tokenizer.normalizer
        if normalizer is None:
            return ()
        texts = set()
        for token in self._tokenizer.get_added_tokens_decoder().values():
            text = normalizer.normalize_str(token.content).strip(_BLANKS)
            if token.normalized and len(text) > 1:
                texts.add(text)
        return _longest_first(texts)

    def encode(self, text: str) -> list[int]:
        """The token ids of a rendered text; no BOS is added to the one that the template wrote."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_alike(self, texts: list[str]) -> list[list[int]]:
        """The same for texts that begin alike: what they share up to a line's end is read once.

        There, before a word that they share too, tokenizers part what they read. One that does not,
        by the first text, or has no such rule at all reads each text whole.
        """
        cut = _line_where_they_part(texts)
        if cut and self._tokenizer.pre_tokenizer:
            whole = self.encode(texts[0])
            end = self.encode(texts[0][cut:])
            beginning = whole[: -len(end)]
            if beginning + end == whole:
                return [beginning + self.encode(text[cut:]) for text in texts]
        return [self.encode(text) for text in texts]

    def count(self, text: str) -> int:
        """The number of tokens of `text`."""
        return len(self.encode(text))

    def knows(self, token: int) -> bool:
        """Whether this is the id of a token."""
        return token >= 0 and self._tokenizer.id_to_token(token) is not None

    def token_id(self, text: str) -> int:
        """The id of `text` as one token; raises UserError when it is not one."""
        ids = self.encode(text)
        if len(ids) != 1:
            found = f"the tokenizer of {self._folder} makes {len(ids)}"
            needed = f"grader_mode direct and cascade need {text!r} as one token"
            raise UserError(f"{needed}, but {found}; use mode explain")
        return ids[0]


def _completed(text: str, thinking: bool) -> str:
    """A rendered text, its thoughts closed where the template cannot be told to open none."""
    unwanted = not thinking and text.rstrip().endswith(THINK)
    return f"{text}\n{THINK_END}\n\n" if unwanted else text


def _line_where_they_part(texts: list[str]) -> int:
    """Where the first line begins that is not the same in all, if its first word is; else 0."""
    first = min(texts)
    last = max(texts)
    cut = 0
    for line in first.splitlines(keepends=True):
        if not (line.endswith("\n") and last.startswith(line, cut)):
            break
        cut += len(line)
    word, blank, _ = first[cut:].partition(" ")
    shared = word and blank and last.startswith(word + blank, cut)
    return cut if shared else 0


def _longest_first(texts: set[str]) -> tuple[str, ...]:
    return tuple(sorted(texts, key=lambda text: (-len(text), text)))


def _broken_up(text: str, tokens: tuple[str, ...]) -> str:
    found = [token for token in tokens if token in text]
    while found:  # again, since what surrounded one token may be another
        for token in found:
            broken = f"{token[0]} {token[1:]}" if len(token) > 1 else " "
            text = text.replace(token, broken)
        found = [token for token in found if token in text]
    return text


@cache
def _import_renderer() -> Callable[..., Any]:
    """transformers' rendering, imported late: it takes more than a second, and few need it.

    What the imports made lives as long as the process. It is taken out of the garbage collector's
    sight, which otherwise walks through all of it again and again while thousands of questions are
    on their way: a tenth of the CPU of grading and more.
    """
    # It would advise every user to install torch, which nothing here needs.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers.utils.chat_template_utils import render_jinja_template

    gc.collect()
    gc.freeze()
    return render_jinja_template


def _read_tokenizer(folder: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing more specific
        raise _unusable(folder, error) from None
    # A tokenizer.json can hold limits of its last use, which would cut every text.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_config(folder: Path) -> dict:
    """The fields of tokenizer_config.json, completed as transformers completes them."""
    config = _read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:  # as older versions saved it
        config |= _read_json(folder / "special_tokens_map.json")
    return config


def _read_json(path: Path) -> dict:
    """The fields of a JSON file; none where there is no such file."""
    if not path.is_file():
        return {}
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path.parent, f"{path.name}: {error}") from None
    if not isinstance(fields, dict):
        raise _unusable(path.parent, f"{path.name} is not a JSON object")
    return fields


def _unusable(folder: Path, why: object) -> UserError:
    return UserError(f"{folder}: no usable tokenizer ({why}); {HINT}")


def _special_tokens(config: dict) -> dict[str, str]:
    """The tokens that templates know by name: bos_token, eos_token and the like."""
    fields = dict(config)
    named_by_model = config.get("extra_special_tokens")
    if isinstance(named_by_model, dict):
        fields |= named_by_model
    tokens = {}
    for name, token in fields.items():
        text = token.get("content") if isinstance(token, dict) else token
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def _left_out(tokenizer: Tokenizer, config: dict) -> set[str]:
    """The special tokens, by either file: decoding leaves them out."""
    added = list(tokenizer.get_added_tokens_decoder().values())
    texts = {token.content for token in added if token.special}
    named = config.get("additional_special_tokens"), config.get("extra_special_tokens")
    entries = [entry for tokens in named if isinstance(tokens, list) for entry in tokens]
    decoder = config.get("added_tokens_decoder")
    for token in decoder.values() if isinstance(decoder, dict) else []:
        if isinstance(token, dict) and token.get("special"):
            entries.append(token)
    for entry in entries:
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str):
            texts.add(text)
    return texts - {""}


def _read_template(folder: Path, config: dict) -> str:
    """The default template: of the template files, else of tokenizer_config.json."""
    template = _template_files(folder) or config.get("chat_template")
    if isinstance(template, dict):
        template = template.get("default")
    elif isinstance(template, list):
        named = [entry for entry in template if isinstance(entry, dict)]
        defaults = [entry for entry in named if entry.get("name") == "default"]
        template = defaults[-1].get("template") if defaults else None
    if not isinstance(template, str):
        raise UserError(f"{folder}: no chat template; {HINT}")
    return template


def _template_files(folder: Path) -> dict[str, str]:
    """Name -> text of the templates that stand in files of their own."""
    paths = {"default": folder / "chat_template.jinja"}
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        paths[path.stem] = path
    texts = {}
    for name, path in paths.items():
        if not path.is_file():
            continue
        try:
            texts[name] = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = f"no usable chat template ({path.name}: {error})"
            raise UserError(f"{folder}: {why}; {HINT}") from None
    return texts
