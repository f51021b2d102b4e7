"""Command-line flags for the settings of an endpoint, one per field of GraderSettings (stage 6, evaluation)."""

import argparse
import dataclasses
import json

from rubric_rl.schema import UserError
from rubric_rl.settings import GraderSettings

RETRIES = 10  # of an evaluation: a rate limit is waited out for minutes before an answer is left ungraded
_READ = {bool: {"true": True, "false": False}.__getitem__, dict: json.loads}
OF_A_RUN = ("engine", "teacher", "teacher_share", "records")  # what only a training run has


def add_endpoint_flags(parser: argparse.ArgumentParser, who: str, about: str, left_out: tuple[str, ...] = ()) -> None:
    """Adds `--<who>-<field>` for every setting but those of a training run and those left out."""
    group = parser.add_argument_group(about)
    for field in dataclasses.fields(GraderSettings):
        if field.name not in OF_A_RUN + left_out:
            flag, help = f"--{who}-{field.name.replace('_', '-')}", field.metadata["about"].replace("%", "%%")
            group.add_argument(flag, dest=f"{who}_{field.name}", metavar=field.name.upper(), help=help)


def endpoint_settings(args: argparse.Namespace, who: str, below: dict) -> GraderSettings:
    """The settings from the flags, which win over those `below`; raises UserError naming the flag."""
    chosen = {}
    for field in dataclasses.fields(GraderSettings):
        text = getattr(args, f"{who}_{field.name}", None)
        if text is not None:
            chosen[field.name] = _value(field, text, f"--{who}-{field.name.replace('_', '-')}")
    if below.get("engine"):
        raise UserError(f"grader_engine {below['engine']} is a model inside a training run; serve it, "
                        f"leave the key out and give --{who}-url")  # fmt: skip
    try:
        return GraderSettings(**(below | chosen))
    except UserError as error:
        raise UserError(str(error).replace("grader_", f"{who}_")) from None


def _value(field: dataclasses.Field, text: str, flag: str):
    if field.type not in (bool, dict, int, float):
        return text
    try:
        return _READ.get(field.type, field.type)(text)
    except (ValueError, KeyError):
        raise UserError(f"{flag} {text}: must be of type {field.type.__name__}") from None


def prices(text: str | None) -> tuple[float, float, float] | None:
    """Prices per million tokens, `prompt,cached,completion`; raises UserError for anything else."""
    if text is None:
        return None
    try:
        prompt, cached, completion = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"price {text}: give three numbers per million tokens, prompt,cached,completion, e.g. 2,0.5,8"
        ) from None
    return prompt, cached, completion
