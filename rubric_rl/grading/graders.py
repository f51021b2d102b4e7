"""Who grades a prompt: the policy, another model, or a teacher for some prompts."""

import asyncio
from collections.abc import Callable

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.common.hash_share import share_of
from rubric_rl.common.tokenizer import ChatTokenizer
from rubric_rl.data.grader_template import warn_if_open
from rubric_rl.data.schema import Record
from rubric_rl.data.training_settings import PLAIN, RewardRule
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.health import check, failure_of
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.serving.address import leads_to
from rubric_rl.serving.client import Client
from rubric_rl.serving.question import Aborted
from rubric_rl.serving.served_models import read_served_models, served


class Graders:
    """The graders of a training run. Use them in one event loop only."""

    def __init__(self, args, stopped: Callable[[], bool]):
        """`args` are slime's, with the grader_* keys; `stopped`: the rollout is being aborted.

        Raises UserError for settings that cannot work.
        """
        if getattr(args, "partial_rollout", False):
            why = "an aborted grading would count as finished"
            raise UserError(f"--partial-rollout cannot be used here: {why}; leave it out")
        self.settings = settings = GraderSettings.load(vars(args))
        self.records = settings.training.records_folder(args)
        self.rule = settings.rule  # of the training reward, whoever grades
        self._teacher_share = settings.training.teacher_share
        url, tokenizer = served(args, settings.training.engine)
        by_policy = _is_policy(args, settings)
        if by_policy:
            warn_if_open(settings.grading.template)
        name = grader_name(settings)
        self.main = make_grader(settings, name, url, tokenizer, stopped, by_policy)
        self._template = _template_of(args.hf_checkpoint)
        self._checks: dict[str, asyncio.Task[Record]] = {}  # name of a grader -> its check question
        self._teacher = None
        if self._teacher_share:
            teacher = load_other(settings.training.teacher, "teacher", self.rule)
            self._teacher = make_grader(teacher, "teacher", "", args.hf_checkpoint, stopped)

    async def close(self) -> None:
        """Closes the connections. slime never ends a hook's loop, so there nobody calls it."""
        await self.main.client.close()
        if self._teacher:
            await self._teacher.client.close()

    def usual_thoughts(self, response: str, prompt: str) -> str:
        """A response of the policy, its thoughts in the usual marks: see ChatTokenizer."""
        return self._template.usual_thoughts(response, prompt) if self._template else response

    async def choose_checked(self, prompt_id: str, training: bool) -> Grader:
        """As `choose`, once the grader has answered its check question.

        Raises UserError when it did so with nothing that can be read: every verdict would count
        against the policy. A grader that cannot be reached leaves its answers ungraded.
        """
        grader = self.choose(prompt_id, training)
        if grader.name not in self._checks:
            self._checks[grader.name] = asyncio.create_task(check(grader))
        try:
            checked = await asyncio.shield(self._checks[grader.name])
        except Aborted:
            self._checks.pop(grader.name, None)  # the next rollout asks again
            raise
        if checked.status == "ungraded":
            self._checks.pop(grader.name, None)  # the next answer finds out whether it is back
        elif failure := failure_of(checked, grader.grading.most_unreadable):
            raise UserError(failure)
        return grader

    def choose(self, prompt_id: str, training: bool) -> Grader:
        """The prompt's grader: the same for all its answers, in evaluation never the teacher."""
        if self._teacher and training and share_of(prompt_id, "teacher") < self._teacher_share:
            return self._teacher
        return self.main


def make_grader(
    settings: GraderSettings,
    name: str,
    url: str,
    tokenizer: str,
    stopped: Callable[[], bool],
    by_policy: bool = False,
) -> Grader:
    """The grader of these settings; `url` and `tokenizer` are used where they name none."""
    client = Client(settings.endpoint, url, tokenizer, stopped)
    return Grader(client, settings.grading, settings.scoring, name, by_policy)


def _template_of(checkpoint: str) -> ChatTokenizer | None:
    """The policy's chat template. A model without one has prompts, and no marks, of its own."""
    try:
        return ChatTokenizer(checkpoint)
    except UserError:
        return None


def _is_policy(args, settings: GraderSettings) -> bool:
    """Whether the main grader is the policy: by default, by the router's URL, or by its engine."""
    url = settings.endpoint.url
    engine = settings.training.engine
    if url:
        return leads_to(url, args.sglang_router_ip, args.sglang_router_port)
    return not engine or engine == next(iter(read_served_models(args.sglang_config)))


def grader_name(settings: GraderSettings) -> str:
    """The main grader's name in records and evaluation.

    It is `policy`, an engine's name, or an endpoint's model or host.
    """
    if settings.training.engine:
        return settings.training.engine
    return settings.endpoint.shown_name if settings.endpoint.url else "policy"


def load_other(file: str, role: str, rule: RewardRule = PLAIN) -> GraderSettings:
    """The settings in the file that grader_teacher or grader_anchor (the role) names.

    A relative path starts at ROOT. Raises UserError when they name nobody but the policy, or give
    less than a reward by the run's `rule` needs.
    """
    other = GraderSettings.load(ROOT / file)
    training = other.training
    by_engine = role == "anchor" and training.engine
    if not other.endpoint.url and not by_engine:
        needed = "grader_url or grader_engine" if role == "anchor" else "grader_url"
        raise UserError(f"{file}: a {role} needs {needed}: it is somebody else than the policy")
    if training.teacher or training.anchor or (training.engine and not by_engine):
        what = f"a {role} has no teacher, anchor or engine of its own"
        raise UserError(f"{file}: {what}; leave these keys out")
    if other.rule != PLAIN:
        raise UserError(f"{file}: the rule of the reward is the run's; give its keys there")
    try:
        rule.check(other.grading.reads_probability, other.grading.mode)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return other
