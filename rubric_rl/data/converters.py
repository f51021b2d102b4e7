"""Rubric data in other forms as raw rows: functions for data_preprocess.py --converter."""

from collections.abc import Callable

from rubric_rl.common.dotted_name import import_function
from rubric_rl.common.errors import UserError
from rubric_rl.data.readers import plain as plain_reader


def plain(item: dict) -> dict:
    """Makes a raw row of a row with a prompt and a rubric, as --format plain does.

    data/readers/plain.py says in which forms. What else the row carries stays in it.
    """
    return item | plain_reader.read(item)


def load_converter(path: str) -> Callable[[dict], dict]:
    """The function `module.function` that turns a foreign row into {prompt_id, prompt, rubrics}.

    Raises UserError when there is none of that name.
    """
    try:
        return import_function(path)
    except UserError as error:
        hint = "give module.function, importable from here"
        raise UserError(f"--converter {path}: {error}; {hint}") from None
