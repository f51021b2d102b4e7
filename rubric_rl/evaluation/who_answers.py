"""Who answers and who grades in an evaluation, by its flags."""

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.data.grader_template import with_reference
from rubric_rl.data.row_file import RowFile
from rubric_rl.evaluation.answers import AnswerFile
from rubric_rl.evaluation.comparable import published_grader
from rubric_rl.evaluation.endpoint_flags import RETRIES, given, settings_from
from rubric_rl.evaluation.run_command import written_settings
from rubric_rl.grading.settings import Grading, Scoring, check_together
from rubric_rl.serving.endpoint import Endpoint

ANSWER_TOKENS = 6144  # limit of a policy's answer, as in training


def policy_from(args: argparse.Namespace) -> Endpoint | None:
    """The policy that answers; None with an answers file."""
    if args.answers:
        return None
    defaults = {"retries": RETRIES, "max_tokens": ANSWER_TOKENS}
    policy = settings_from(args, "policy", Endpoint, defaults)
    if not policy.url:
        hint = "give --answers FILE, or --policy-url for a model that answers"
        raise UserError(f"nothing to grade: {hint}")
    return policy


def grader_from(
    args: argparse.Namespace, policy: Endpoint | None
) -> tuple[Endpoint, Grading, Scoring]:
    """Who grades and how.

    Flags win over --grader-config, which wins over --reference, or else over the policy itself.
    """
    told = written_settings(args.grader_config)
    told |= given(args, "grader", Endpoint, Grading, Scoring)
    defaults: dict = {"retries": RETRIES}
    if args.reference:
        told = published_grader(told)
    elif policy and not told.get("url"):  # the policy grades itself
        for name in ("url", "api", "model", "tokenizer", "api_key_env"):
            defaults[name] = getattr(policy, name)
    defaults |= with_reference(told)
    endpoint = Endpoint.of(defaults, "grader_")
    grading = Grading.of(defaults, "grader_")
    scoring = Scoring.of(defaults, "grader_")
    check_together(endpoint, grading)
    return endpoint, grading, scoring


def answers_name(args: argparse.Namespace) -> str:
    """Whose answers they are, as tables say it."""
    if args.name:
        return args.name
    if args.answers:
        return Path(args.answers).stem
    model = args.policy_model or args.policy_tokenizer
    if not model:
        return "policy"
    return Path(model).name


def recorded_grader(grader: Endpoint, policy: Endpoint | None) -> str:
    """Who grades, as records say it."""
    if policy and _place(policy) == _place(grader) and policy.model == grader.model:
        return "policy"
    return grader.shown_name


def _place(endpoint: Endpoint) -> str:
    """Host and port, in one form."""
    return urlsplit(endpoint.url).netloc.replace("localhost", "127.0.0.1")


def repeats_of(
    args: argparse.Namespace, rows: RowFile, answers: AnswerFile | None
) -> dict[str, int]:
    """How many answers to each prompt are graded.

    Drops the rows without an answer, if --allow-missing permits.
    """
    if answers is None:
        asked: int = max(args.repeats, 1)
        return dict.fromkeys(rows.criteria, asked)
    counts = answers.counts
    total = len(rows.criteria)
    missing = [prompt_id for prompt_id in rows.criteria if not counts[prompt_id]]
    count = len(missing)
    if count == total or (missing and not args.allow_missing):
        found = f"no answer to {count} of {total} prompts, e.g. {missing[0]}"
        hint = "add --allow-missing to leave them out"
        raise DataError(f"{args.answers}: {found}; {hint}")
    rows.keep(counts)
    repeats = {}
    for prompt_id in rows.criteria:
        there = counts[prompt_id]
        wanted: int = args.repeats or there
        repeats[prompt_id] = min(there, wanted)
    return repeats
