"""Renders the grader's turn with a model's chat template for engines that take plain text (stage 3, rubric grading)."""

import json
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from rubric_rl.errors import UserError


class ChatTemplate:
    """The chat template and tokenizer of a Hugging Face model folder.

    Read without importing transformers, which loads torch.
    """

    def __init__(self, folder: str | Path):
        """Raises UserError when the folder holds no tokenizer.json or no chat template."""
        folder = Path(folder)
        try:
            self._tokenizer = Tokenizer.from_str(
                (folder / "tokenizer.json").read_text(encoding="utf-8")
            )
            self._config = json.loads(
                (folder / "tokenizer_config.json").read_text(encoding="utf-8")
            )
        except Exception as error:  # tokenizers raises nothing more specific
            hint = "name the local folder of a chat model as tokenizer"
            raise UserError(f"{folder}: no usable tokenizer ({error}); {hint}") from None
        file = folder / "chat_template.jinja"
        source = (
            file.read_text(encoding="utf-8")
            if file.is_file()
            else self._config.get("chat_template")
        )
        if not isinstance(source, str):
            raise UserError(f"{folder}: no chat template; name the local folder of a chat model")
        # The environment in which transformers renders chat templates.
        extensions = ["jinja2.ext.loopcontrols"]
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=extensions
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(
            value, ensure_ascii=False, **options
        )
        environment.globals["raise_exception"] = _raise
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise UserError(f"{folder}: broken chat template: {error}") from None

    def render(self, messages: list[dict], thinking: bool, opening: str = "") -> str:
        """The text that the model continues: the messages, the assistant's header, and `opening`."""
        options = {"add_generation_prompt": True, "enable_thinking": thinking, **self._special()}
        try:
            return self._template.render(messages=messages, **options) + opening
        except jinja2.TemplateError as error:
            hint = "name another chat model as tokenizer"
            raise UserError(
                f"the chat template refuses the grader's turn: {error}; {hint}"
            ) from None

    def token_id(self, text: str) -> int:
        """The id of `text` as one token; raises UserError when it is not one."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) != 1:
            found = f"this tokenizer makes {len(ids)}"
            raise UserError(
                f"grader_mode direct needs {text!r} as one token, but {found}; use mode explain"
            )
        return ids[0]

    def count(self, text: str) -> int:
        """The number of tokens of `text`."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _special(self) -> dict[str, str]:
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        tokens = {name: self._config.get(name) for name in names}
        return {
            name: token["content"] if isinstance(token, dict) else token
            for name, token in tokens.items()
            if token
        }


def _raise(message: str):
    raise jinja2.exceptions.TemplateError(message)
