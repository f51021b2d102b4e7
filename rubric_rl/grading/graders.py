"""Which grader grades a prompt: the policy, another model, or a teacher for some prompts (stage 3, rubric grading)."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from rubric_rl import ROOT
from rubric_rl.errors import UserError
from rubric_rl.grading.client import GraderClient
from rubric_rl.grading.settings import GraderSettings, load_settings


class Graders:
    """The grader clients of a run. Use them in one event loop only."""

    def __init__(self, args, stopped: Callable[[], bool]):
        """`args` are slime's, with the grader_* keys; `stopped` says whether the rollout is being aborted.

        Raises UserError for settings that cannot work.
        """
        if getattr(args, "partial_rollout", False):
            why = "an aborted grading would count as finished"
            raise UserError(f"--partial-rollout cannot be used here: {why}; leave it out")
        self.settings = load_settings(vars(args))
        save = getattr(args, "save", None)
        self.records = self.settings.records or (
            f"{save}/verdicts" if save else ""
        )  # "": none are written
        self._main = GraderClient(self.settings, *_served(args, self.settings), stopped)
        self._teacher = None
        if self.settings.teacher_share:
            self._teacher = GraderClient(
                load_teacher(self.settings), "", args.hf_checkpoint, stopped
            )

    async def close(self) -> None:
        """Closes the connections."""
        for client in filter(None, (self._main, self._teacher)):
            await client.close()

    def choose(self, prompt_id: str, training: bool) -> tuple[str, GraderClient]:
        """(name, client) of the prompt's grader: the same for all its answers, and in evaluation never the teacher."""
        if (
            self._teacher is not None
            and training
            and share_of(prompt_id) < self.settings.teacher_share
        ):
            return "teacher", self._teacher
        return grader_name(self.settings), self._main


def share_of(prompt_id: str) -> float:
    """A number in [0, 1), uniform over prompts, that depends on the prompt_id alone."""
    return int.from_bytes(hashlib.sha256(f"teacher:{prompt_id}".encode()).digest()[:8]) / 2**64


def grader_name(settings: GraderSettings) -> str:
    """The main grader's name in records and evaluation: `policy`, an engine's name, or an endpoint's model or host."""
    if settings.engine:
        return settings.engine
    if settings.url:
        return (settings.model or urlsplit(settings.url).netloc).replace("/", "-")
    return "policy"


def load_teacher(settings: GraderSettings) -> GraderSettings:
    """The settings in the file that grader_teacher names; raises UserError when they name no endpoint of its own."""
    teacher = load_settings(ROOT / settings.teacher)  # a relative path starts at the repository
    if not teacher.url:
        raise UserError(
            f"{settings.teacher}: a teacher needs grader_url, the address of its endpoint"
        )
    if teacher.teacher or teacher.engine:
        raise UserError(
            f"{settings.teacher}: a teacher has no grader_teacher or grader_engine of its own"
        )
    return teacher


def _served(args, settings: GraderSettings) -> tuple[str, str]:
    """(url, tokenizer folder) of the main grader where its settings leave them empty."""
    if not settings.engine:
        return f"http://{args.sglang_router_ip}:{args.sglang_router_port}", args.hf_checkpoint
    routers = getattr(args, "sglang_model_routers", None) or {}
    if (
        settings.engine not in routers
    ):  # slime's own look-up would fall back to the policy without a word
        served = ", ".join(routers) or "none"
        raise UserError(
            f"grader_engine {settings.engine}: no such model in --sglang-config; it serves {served}"
        )
    host, port = routers[settings.engine]
    return f"http://{host}:{port}", _model_path(
        args.sglang_config, settings.engine
    ) or args.hf_checkpoint


def _model_path(config: str, name: str) -> str | None:
    models = yaml.safe_load(Path(config).read_text(encoding="utf-8"))["sglang"]
    return next(model.get("model_path") for model in models if model["name"] == name)


def main() -> int:
    """Prints the name of the evaluation set (`hard_by_<grader>`) for a settings file; returns the exit status."""
    try:
        print(f"hard_by_{grader_name(load_settings(Path(sys.argv[1])))}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
