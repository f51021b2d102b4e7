"""The graders of a training run, and what watches them: an anchor, a probe, each update's size."""

from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager

from rubric_rl.common.hash_share import share_of
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.graders import Graders, grader_name, load_other, make_grader
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.serving.served_models import served
from rubric_rl.trust.anchor import Anchor
from rubric_rl.trust.moved import Move, Movement
from rubric_rl.trust.probe import Probe, probe_rows


class WatchedGraders(Graders):
    """As Graders, for one event loop only."""

    def __init__(self, args, stopped: Callable[[], bool]):
        """Raises UserError as Graders, and for an anchor or a probe that cannot work."""
        super().__init__(args, stopped)
        settings = self.settings
        training = settings.training
        self._anchor = None
        if training.anchor:
            other = load_other(training.anchor, "anchor")
            url, tokenizer = served(args, other.training.engine)
            judge = make_grader(other, grader_name(other), url, tokenizer, stopped)
            self._anchor = Anchor(judge, training.anchor_seconds)
        self._probe = None
        if settings.trust.probe:
            rows = probe_rows(settings.trust)
            self._probe = Probe(self._policy(args, stopped), rows)

        self._movement = None
        # Those of another temperature, or of a part of the vocabulary, are of another policy.
        sampling = [getattr(args, f"rollout_{name}", 1.0) for name in ("temperature", "top_p")]
        if settings.trust.alarm != "off" and sampling == [1.0, 1.0]:
            url, _ = served(args, "")
            self._movement = Movement(url, stopped, args)

    def _policy(self, args, stopped: Callable[[], bool]) -> Grader:
        """The policy as a grader, also where another one grades."""
        if self.main.by_policy:
            return self.main
        where = {"api": "sglang", "extra_body": {}}
        where |= dict.fromkeys(("url", "model", "tokenizer", "api_key_env"), "")
        endpoint = self.settings.endpoint.model_copy(update=where)
        settings = GraderSettings(endpoint, self.settings.grading)
        url, tokenizer = served(args, "")
        return make_grader(settings, "policy", url, tokenizer, stopped, by_policy=True)

    async def close(self) -> None:
        """Closes the connections."""
        await super().close()
        if self._anchor:
            await self._anchor.grader.client.close()
        if self._probe:
            await self._probe.grader.client.close()

    def anchor_of(self, prompt_id: str, training: bool) -> Anchor | None:
        """Who grades the prompt's answers besides: in evaluation all, in training a share."""
        share = self.settings.training.anchor_share
        left_out = training and share_of(prompt_id, "anchor") >= share
        return None if left_out else self._anchor

    @asynccontextmanager
    async def watching(self, sample, rollout: int | None, training: bool):
        """Brings what is asked besides an answer beside its grading.

        With an evaluation's first one that is the probe (`Probe.beside`), with a rollout's first
        one how far the last update moved the policy (`Movement.beside`).
        """
        async with AsyncExitStack() as stack:
            if self._probe:
                probing = self._probe.beside(sample.metadata, rollout, training)
                await stack.enter_async_context(probing)
            if self._movement and training and rollout is not None:
                await stack.enter_async_context(self._movement.beside(sample, rollout))
            yield

    def take_move(self) -> Move | None:
        """The last update that was measured, once."""
        return self._movement.take() if self._movement else None
