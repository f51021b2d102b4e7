"""The models that a run serves beside its policy: slime's --sglang-config."""

from dataclasses import dataclass

from rubric_rl.common.errors import UserError
from rubric_rl.common.yaml_file import read_yaml


@dataclass(frozen=True)
class ServedModel:
    """A model of --sglang-config; `update_weights` None: the file does not say it."""

    path: str
    gpus: int
    update_weights: bool | None

    def is_updated(self, policy_folder: str) -> bool:
        """Whether the model gets the weights that are trained.

        slime updates one that is served from the policy's folder, unless the file says not.
        """
        if self.update_weights is None:
            return self.path in ("", policy_folder)
        return self.update_weights


def read_served_models(path: str) -> dict[str, ServedModel]:
    """The models of a --sglang-config by name; the first is the policy.

    Raises UserError for a file of another form.
    """
    another_form = UserError(
        f"--sglang-config {path}: not of slime's form; begin with configs/frozen_grader.yaml"
    )
    content = read_yaml(path, f"--sglang-config {path}")
    entries = content.get("sglang") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise another_form
    models = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise another_form
        groups = entry.get("server_groups") or entry.get("engine_groups") or []  # slime takes both
        gpus = 0
        for group in groups if isinstance(groups, list) else [groups]:
            number = group.get("num_gpus") if isinstance(group, dict) else None
            if not isinstance(number, int):
                raise another_form
            gpus += number
        models[entry["name"]] = ServedModel(
            path=entry.get("model_path") or "",
            gpus=gpus,
            update_weights=entry.get("update_weights"),
        )
    return models


def served(args, engine: str) -> tuple[str, str]:
    """(url, tokenizer folder) of the model of that name; of the policy where it is empty."""
    if not engine:
        return f"http://{args.sglang_router_ip}:{args.sglang_router_port}", args.hf_checkpoint
    routers = getattr(args, "sglang_model_routers", None) or {}
    if engine not in routers:  # slime's own look-up would fall back to the policy
        names = ", ".join(routers) or "none"
        what = f"grader_engine {engine}: no such model in --sglang-config"
        raise UserError(f"{what}; it serves {names}")
    host, port = routers[engine]
    model = read_served_models(args.sglang_config)[engine]
    return f"http://{host}:{port}", model.path or args.hf_checkpoint
