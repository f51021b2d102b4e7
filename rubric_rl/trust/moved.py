"""How far an update moved the policy, the next grader: asked of the served policy itself.

Answers of a rollout are kept with the log-probabilities that they were drawn with. As soon as the
next rollout is graded, the policy, updated meanwhile, is asked how likely they are now:

    moved = mean over their tokens of log p(before) - log p(after)        in nats a token

The tokens are drawn from the policy before, so it estimates KL(before || after). The trainers log
the same as `train/ppo_kl`, there as a mean over the steps of an update and not after the last one,
and where the reward hook cannot see it. It costs the reading of KEPT prompts and answers a rollout.
In fully asynchronous training updates come amid a rollout, and the figure is not of one of them.
"""

import asyncio
import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import aiohttp
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import read_jsonl, write_jsonl
from rubric_rl.serving.client import all_or_none, beside
from rubric_rl.serving.wire import decoded, encoded
from rubric_rl.trust.evaluations import Evaluation

LOG = logging.getLogger(__name__)
FILE = "moved.jsonl"  # in SAVE_PATH
KEPT = 32  # answers of a rollout, spread over all of it
# An engine holds the logits of all the tokens that it is asked about at once: these two together
# need 1.3 GB with Qwen3's vocabulary.
TOKENS = 256  # of an answer at most, its first ones
AT_ONCE = 4
LONGEST = 120.0  # seconds: a rollout waits no longer for it
FAILURES = (  # of the server, and of what it says
    aiohttp.ClientError,
    OSError,  # time-outs too
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


@dataclass(frozen=True)
class Move:
    """An update of the policy."""

    rollout: int  # that it was trained on
    nats: FiniteFloat  # a token
    tokens: int  # that say so


_MOVE = TypeAdapter(Move)


class _Drawn(NamedTuple):
    """An answer as it was drawn."""

    prompt: list[int]  # tokens
    answer: list[int]
    log_probs: list[float]  # of the answer's tokens
    mask: list[int]  # 1: the policy's own token, 0: one of a tool
    version: str  # of the weights


class Movement:
    """Asks a policy about its last answers, once per update. Use it in one event loop only."""

    def __init__(self, url: str, stopped: Callable[[], bool], args):
        """`url` is the policy's server; `stopped`: the rollout is being aborted."""
        self._url = f"{url}/generate"
        self._stopped = stopped
        groups = getattr(args, "rollout_batch_size", KEPT)
        answers = groups * getattr(args, "n_samples_per_prompt", 1)
        self._every = max(1, answers // KEPT)
        self._rollout = -1
        self._kept: list[_Drawn] = []
        self._found: Move | None = None

    def take(self) -> Move | None:
        """The last update that was measured, once."""
        found, self._found = self._found, None
        return found

    @asynccontextmanager
    async def beside(self, sample, rollout: int):
        """Keeps a training answer, and asks beside its grading if it is a rollout's first.

        `take` has the outcome: the sample itself may be left out of the rollout. Of rollouts side
        by side, the later ones count.
        """
        kept, before = self._kept, self._rollout
        is_first = rollout > before
        if is_first:
            self._rollout, self._kept = rollout, []
        if rollout == self._rollout:
            self._keep(sample)
        if not is_first or not kept:
            yield
            return
        async with beside(self._asked(kept)) as asking:
            yield
            if found := await asking:
                self._found = Move(before, *found)

    def _keep(self, sample) -> None:
        """Keeps an answer whose tokens have log-probabilities, all by the same weights.

        A custom generate function may give none, or of a part only. The server would read an image
        as text.
        """
        log_probs = getattr(sample, "rollout_log_probs", None)
        versions = set(sample.weight_versions)
        has_image = bool(getattr(sample, "multimodal_inputs", None))
        is_chosen = (sample.index or 0) % self._every == 0 and len(self._kept) < 2 * KEPT
        if log_probs is None or len(versions) != 1 or has_image or not is_chosen:
            return
        tokens = sample.tokens
        length = len(log_probs)
        mask = [1] * length if sample.loss_mask is None else sample.loss_mask
        if not 0 < length == sample.response_length == len(mask) < len(tokens):
            return
        drawn = _Drawn(
            prompt=list(tokens[:-length]),
            answer=list(tokens[-length:][:TOKENS]),
            log_probs=[float(each) for each in log_probs[:TOKENS]],
            mask=[int(each) for each in mask[:TOKENS]],
            version=versions.pop(),
        )
        self._kept.append(drawn)

    async def _asked(self, kept: Sequence[_Drawn]) -> tuple[float, int] | None:
        """(nats a token, tokens); None where nobody answers, or nothing was updated meanwhile."""
        places = asyncio.Semaphore(AT_ONCE)
        try:
            async with aiohttp.ClientSession() as session, asyncio.timeout(LONGEST):
                found = await all_or_none(self._lost(session, places, drawn) for drawn in kept)
        except FAILURES as error:
            why = f"{type(error).__name__} {error}".strip()
            LOG.warning("how far the last update moved the policy is not known: %s", why)
            return None
        tokens = sum(count for _, count in found)
        lost = math.fsum(nats for nats, _ in found)
        return (lost / tokens, tokens) if tokens else None

    async def _lost(
        self, session: aiohttp.ClientSession, places: asyncio.Semaphore, drawn: _Drawn
    ) -> tuple[float, int]:
        """What the own tokens of an answer have lost together, in nats, and how many they are."""
        body = {
            "input_ids": [*drawn.prompt, *drawn.answer],
            "sampling_params": {"max_new_tokens": 0, "temperature": 1.0},
            "return_logprob": True,
            # The first token from here on has none.
            "logprob_start_len": len(drawn.prompt) - 1,
        }
        headers = {"Content-Type": "application/json"}
        async with places:
            if self._stopped():  # slime waits then until nobody sends any more
                raise ValueError("the rollout is being aborted")
            async with session.post(self._url, data=encoded(body), headers=headers) as response:
                response.raise_for_status()
                meta = decoded(await response.read())["meta_info"]
        if drawn.version == str(meta.get("weight_version")):
            return 0.0, 0
        _, *now = meta["input_token_logprobs"]
        nats = 0.0
        for before, entry, own in zip(drawn.log_probs, now, drawn.mask, strict=True):
            nats += before - entry[0] if own else 0.0
        if not math.isfinite(nats):
            raise ValueError("a log-probability that is not a finite number")
        return nats, sum(drawn.mask)


def keep(save: str | os.PathLike, move: Move) -> None:
    """Adds an update to those of the run, in place of those that were lost and are made again."""
    earlier = [each for each in kept_moves(save) if each.rollout < move.rollout]
    _write(save, [*earlier, move])


def kept_moves(save: str | os.PathLike, last: float = math.inf) -> list[Move]:
    """The updates of a run, up to that of rollout `last`. Raises DataError for a damaged file."""
    path = Path(save) / FILE
    if not path.exists():
        return []
    try:
        moves = [_MOVE.validate_python(item) for _, item in read_jsonl(path)]
    except ValidationError:
        raise DataError(f"{path}: not what a run keeps of its updates; remove the file") from None
    return [move for move in moves if move.rollout <= last]


def drop_moves(save: str | os.PathLike, start: int) -> None:
    """Drops the updates of rollouts from `start` on, which are made again."""
    moves = kept_moves(save, start - 1)
    if moves != kept_moves(save):
        _write(save, moves)


def _write(save: str | os.PathLike, moves: Sequence[Move]) -> None:
    write_jsonl(Path(save) / FILE, map(vars, moves), only_owner=True)


def large_moves(
    moves: Sequence[Move], evaluations: Sequence[Evaluation], limit: float
) -> list[Move]:
    """The updates that reach the limit, until two evaluations have said what came of them.

    That right after an update is none of the two: the next rollout measures it.
    """
    seen = evaluations[-2].last_rollout if len(evaluations) > 1 else -math.inf
    return [move for move in moves if move.rollout >= seen and move.nats >= limit]
