"""Command-line flags for settings: `--<who>-<field>` for each field of some groups."""

import argparse
import json
from math import inf
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from rubric_rl.common.errors import UserError
from rubric_rl.serving.endpoint import Settings

Price = tuple[float, float, float]  # per million prompt, cached and completion tokens
# An evaluation's default: it waits out a rate limit for minutes before an answer stays ungraded.
RETRIES = 10


def add_flags(
    parser: argparse.ArgumentParser, who: str, about: str, *groups: type[Settings]
) -> None:
    """Adds `--<who>-<field>` for every field of the groups."""
    section = parser.add_argument_group(about)
    for group in groups:
        for name, field in group.model_fields.items():
            description = field.description or ""
            section.add_argument(
                _flag(who, name),
                dest=f"{who}_{name}",
                metavar=name.upper(),
                help=description.replace("%", "%%"),
            )


def given(args: argparse.Namespace, who: str, *groups: type[Settings]) -> dict[str, Any]:
    """The settings that flags name, with the value of each.

    Raises UserError naming the flag.
    """
    values = {}
    for group in groups:
        for name, field in group.model_fields.items():
            text = getattr(args, f"{who}_{name}", None)
            if text is not None:
                values[name] = _value(field, text, _flag(who, name))
    return values


def settings_from(
    args: argparse.Namespace, who: str, group: type[Settings], defaults: dict[str, Any]
) -> Any:
    """The group's settings from the flags, which win over `defaults`.

    Raises UserError naming the flag, or the setting that cannot be.
    """
    chosen = defaults | given(args, who, group)
    return group.of(chosen, f"{who}_")


def _flag(who: str, name: str) -> str:
    words = name.replace("_", "-")
    return f"--{who}-{words}"


def _value(field: FieldInfo, text: str, flag: str) -> Any:
    """The text of a flag as a value of the field's type; its range is checked by the group."""
    kind: Any = field.annotation
    if kind is dict:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            beginning = text[:60]
            raise UserError(f"{flag} {beginning}: must be JSON") from None
    try:
        return TypeAdapter(kind).validate_strings(text)
    except ValidationError as error:
        first = error.errors()[0]
        why = first["msg"].replace("Input should be", "must be")
        raise UserError(f"{flag} {text}: {why}") from None


def prices_from(args: argparse.Namespace) -> dict[str, Price]:
    """Who -> prices per million tokens, of --grader-price, --policy-price and so on, where given.

    Raises UserError for anything but three numbers, prompt,cached,completion.
    """
    prices = {}
    for who in ("grader", "policy", "writer"):
        text = getattr(args, f"{who}_price", None)
        if text is not None:
            prices[who] = _price(text)
    return prices


def _price(text: str) -> Price:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    are_prices = [0 <= number < inf for number in numbers]
    if are_prices != [True, True, True]:
        hint = "give three numbers per million tokens, prompt,cached,completion, e.g. 2,0.5,8"
        raise UserError(f"price {text}: {hint}")
    prompt, cached, completion = numbers
    return prompt, cached, completion
