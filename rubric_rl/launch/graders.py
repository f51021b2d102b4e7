"""Will there be a grader: its model among the engines, its endpoint's key, its teacher? (stage 3, rubric grading)"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from rubric_rl.errors import UserError
from rubric_rl.grading.client import Client
from rubric_rl.grading.graders import load_teacher
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.launch.estimate import plan_of
from rubric_rl.launch.words import Words


def problems(words: Words, options) -> Iterator[str]:
    """One line for each reason why answers would stay ungraded, or be graded by another model than meant."""
    settings = GraderSettings.load(words.text("custom-config-path"))
    if "sglang-config" in words:
        yield from engines(words, settings)
    elif settings.training.engine:
        yield (f"grader_engine {settings.training.engine}: no such model is served; "
               "give --sglang-config configs/frozen_grader.yaml, or leave grader_engine out")  # fmt: skip
    if settings.endpoint.url:
        yield from endpoint(words.text("custom-config-path"), settings, words, options)
    if settings.training.teacher_share:
        yield from endpoint(
            settings.training.teacher, load_teacher(settings.training.teacher), words, options
        )


def engines(words: Words, settings: GraderSettings) -> Iterator[str]:
    """What is wrong with the models of --sglang-config; slime would say so, or not, with all GPUs up."""
    path = words.text("sglang-config")
    models = read_models(path)
    others = [name for name in list(models)[1:] if name != settings.training.engine]
    if settings.training.engine and settings.training.engine not in models:
        yield f"grader_engine {settings.training.engine}: {path} serves {', '.join(models)}; name one of these"
    elif others:
        yield (f"{path} serves {', '.join(others)}, which nothing asks; "
               "set grader_engine in GRADER_CONFIG, or leave the model out")  # fmt: skip
    same = (None, words.text("hf-checkpoint"))  # slime's own default for models of these is true
    beside = [
        model
        for name, model in models.items()
        if name == settings.training.engine != next(iter(models))
    ]
    if any(model.get("update_weights", model.get("model_path") in same) for model in beside):
        yield (f"grader_engine {settings.training.engine}: it would get the policy's weights; "
               f"write update_weights: false in {path}")  # fmt: skip
    plan, total = plan_of(words), sum(model["gpus"] for model in models.values())
    if total != (serve := plan.engines * plan.engine_gpus):
        yield f"{path}: its numbers of GPUs add up to {total}, but {serve} GPUs serve; change num_gpus"


def read_models(path: str) -> dict[str, dict]:
    """The models of a --sglang-config by name, with their `gpus`; the first is the policy.

    Raises UserError for a file of another form.
    """
    try:
        found = {}
        for model in yaml.safe_load(Path(path).read_text(encoding="utf-8"))["sglang"]:
            groups = (
                model.get("server_groups") or model.get("engine_groups") or []
            )  # slime takes both names
            found[model["name"]] = model | {"gpus": sum(group["num_gpus"] for group in groups)}
        return found
    except OSError as error:
        raise UserError(
            f"--sglang-config {path}: cannot be read ({error.strerror}); check the path"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        raise UserError(
            f"--sglang-config {path}: not of slime's form; begin with configs/frozen_grader.yaml"
        ) from None


def endpoint(file: str, settings: GraderSettings, words: Words, options) -> Iterator[str]:
    """Whether the endpoint in a settings file could be asked from here; a running Ray has keys of its own."""
    here = (
        settings.endpoint.model_copy(update={"api_key_env": ""})
        if options.running_ray
        else settings.endpoint
    )
    try:
        Client(here, "", words.text("hf-checkpoint"))
    except UserError as error:  # says nothing of the address, which may hold a password
        yield f"{file}: {error}"
