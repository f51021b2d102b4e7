"""Command-line flags for the settings of an endpoint, one per field of GraderSettings (stage 6, evaluation)."""

import argparse
import dataclasses
import json

from rubric_rl.errors import UserError
from rubric_rl.grading.settings import GraderSettings

RETRIES = 10  # an evaluation's default: it waits out a rate limit for minutes before it leaves an answer ungraded
_PARSERS = {
    bool: {"true": True, "false": False}.__getitem__,
    dict: json.loads,
    int: int,
    float: float,
}
TRAINING_ONLY = ("engine", "teacher", "teacher_share", "records")


def add_endpoint_flags(
    parser: argparse.ArgumentParser, who: str, about: str, left_out: tuple[str, ...] = ()
) -> None:
    """Adds `--<who>-<field>` for every setting, except the training-only ones and those in `left_out`."""
    group = parser.add_argument_group(about)
    for field in dataclasses.fields(GraderSettings):
        if field.name not in TRAINING_ONLY + left_out:
            flag, help = (
                f"--{who}-{field.name.replace('_', '-')}",
                field.metadata["about"].replace("%", "%%"),
            )
            group.add_argument(
                flag, dest=f"{who}_{field.name}", metavar=field.name.upper(), help=help
            )


def endpoint_settings(args: argparse.Namespace, who: str, defaults: dict) -> GraderSettings:
    """The settings from the flags, which win over `defaults`; raises UserError naming the flag."""
    chosen = {}
    for field in dataclasses.fields(GraderSettings):
        text = getattr(args, f"{who}_{field.name}", None)
        if text is not None:
            chosen[field.name] = _value(field, text, f"--{who}-{field.name.replace('_', '-')}")
    if engine := defaults.get("engine"):
        hint = f"serve it, leave the key out and give --{who}-url"
        raise UserError(f"grader_engine {engine} is a model inside a training run; {hint}")
    try:
        return GraderSettings(**(defaults | chosen))
    except UserError as error:
        raise UserError(str(error).replace("grader_", f"{who}_")) from None


def _value(field: dataclasses.Field, text: str, flag: str):
    if field.type not in _PARSERS:
        return text
    try:
        return _PARSERS[field.type](text)
    except (ValueError, KeyError):
        raise UserError(f"{flag} {text}: must be of type {field.type.__name__}") from None


def prices(text: str | None) -> tuple[float, float, float] | None:
    """Prices per million tokens, `prompt,cached,completion`; raises UserError for anything else."""
    if text is None:
        return None
    try:
        prompt, cached, completion = (float(part) for part in text.split(","))
    except ValueError:
        hint = "give three numbers per million tokens, prompt,cached,completion, e.g. 2,0.5,8"
        raise UserError(f"price {text}: {hint}") from None
    return prompt, cached, completion
