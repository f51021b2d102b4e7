"""What both trainers check of the models beside the policy: slime's --sglang-config."""

from collections.abc import Iterator

from rubric_rl.data.training_settings import TrainingGraders
from rubric_rl.grading.graders import load_other
from rubric_rl.serving.served_models import read_served_models


def asked_engines(training: TrainingGraders) -> dict[str, str]:
    """The models of --sglang-config that grade: the setting that names each -> its name."""
    engines = {}
    if training.engine:
        engines["grader_engine"] = training.engine
    if training.anchor:
        anchor = load_other(training.anchor, "anchor")
        if anchor.training.engine:
            engines[f"{training.anchor}: grader_engine"] = anchor.training.engine
    return engines


def check_served_models(path: str, engines: dict[str, str], policy_folder: str) -> Iterator[str]:
    """The models of --sglang-config: the first is trained, those that grade are not.

    `path` is "" without the flag, `engines` as `asked_engines` says, `policy_folder` is
    --hf-checkpoint. Raises UserError for a file of another form.
    """
    if not path:
        for setting, engine in engines.items():
            yield (
                f"{setting} {engine}: no such model is served; "
                "give --sglang-config configs/frozen_grader.yaml, or leave grader_engine out"
            )
        return
    models = read_served_models(path)
    policy, *others = models
    if not models[policy].is_updated(policy_folder):
        yield (
            f"{path}: {policy}, the first model, is the policy, but would never get new weights; "
            "write update_weights: true"
        )
    all_known = True
    for setting, engine in engines.items():
        if engine not in models:
            all_known = False
            yield f"{setting} {engine}: {path} serves {', '.join(models)}; name one of these"
        elif engine in others and models[engine].is_updated(policy_folder):
            yield (
                f"{setting} {engine}: it would get the policy's weights; "
                f"write update_weights: false in {path}"
            )
    idle = [name for name in others if name not in engines.values()]
    if idle and all_known:
        yield (
            f"{path} serves {', '.join(idle)}, which nothing asks; "
            "set grader_engine in GRADER_CONFIG, or leave the model out"
        )
