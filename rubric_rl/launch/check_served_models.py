"""What both trainers check of the models beside the policy: slime's --sglang-config."""

from collections.abc import Iterator

from rubric_rl.serving.served_models import read_served_models


def check_served_models(path: str, engine: str, policy_folder: str) -> Iterator[str]:
    """The models of --sglang-config: the first is trained, one that grades is not.

    `path` is "" without the flag, `engine` is grader_engine, `policy_folder` is --hf-checkpoint.
    Raises UserError for a file of another form.
    """
    if not path:
        if engine:
            yield (
                f"grader_engine {engine}: no such model is served; "
                "give --sglang-config configs/frozen_grader.yaml, or leave grader_engine out"
            )
        return
    models = read_served_models(path)
    policy, *others = models
    idle = [name for name in others if name != engine]
    if not models[policy].is_updated(policy_folder):
        yield (
            f"{path}: {policy}, the first model, is the policy, but would never get new weights; "
            "write update_weights: true"
        )
    if engine and engine not in models:
        yield f"grader_engine {engine}: {path} serves {', '.join(models)}; name one of these"
    elif idle:
        yield (
            f"{path} serves {', '.join(idle)}, which nothing asks; "
            "set grader_engine in GRADER_CONFIG, or leave the model out"
        )
    if engine in others and models[engine].is_updated(policy_folder):
        yield (
            f"grader_engine {engine}: it would get the policy's weights; "
            f"write update_weights: false in {path}"
        )
