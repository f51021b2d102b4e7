"""Serves the oracle of the tiny world as an OpenAI-compatible grader: teacher, anchor, perfect one.

    python -m rubric_rl.tiny.oracle --serve 30001      until Ctrl-C; 0 takes any free port

It answers this repository's grader prompts in every mode, and nothing else: any other request gets
HTTP 400 with the reason. A grader's settings for it:

    grader_api: openai
    grader_url: http://127.0.0.1:30001
    grader_model: tiny-oracle
"""

import json
from typing import Any

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.grading.prompt import verdict_opening
from rubric_rl.tiny.chat_server import (
    add_serve_flags,
    chat_choice,
    chat_completion,
    messages_of,
    run_server,
    seed_of,
)
from rubric_rl.tiny.example_replies import NOTHING, explanation
from rubric_rl.tiny.oracle import statement_asked_by, truth
from rubric_rl.tiny.read_prompt import GraderPrompt, read_prompt

MODEL = "tiny-oracle"  # any other name is answered too
NEVER = -9999.0  # how OpenAI writes the logarithm of 0


def completion(body: Any) -> dict:
    """The chat completion that answers the body of a request.

    Raises:
        UserError: for a request that is no question of this repository's graders, and for a
            criterion that is not of the tiny world.
    """
    content, opening = _question(body)
    asked = read_prompt(content)
    verdicts = truth(asked.criteria, asked.answer, seed_of(body))
    if not opening:
        choice = chat_choice(_reply(asked, verdicts), "stop")
    elif asked.mode != "checklist" and opening == verdict_opening():
        (is_met,) = verdicts
        choice = chat_choice(_word(is_met), "length")
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_token(is_met, body.get("top_logprobs"))]}
    else:
        raise UserError(f"only {verdict_opening()} of one criterion can be continued")
    return chat_completion(body.get("model", MODEL), choice)


def _question(body: Any) -> tuple[str, str]:
    """The user's message, and the beginning of the reply that is to be continued, or ""."""
    match messages_of(body):
        case [("user", str(content))]:
            return content, ""
        case [("user", str(content)), ("assistant", str(opening))]:
            if not body.get("continue_final_message"):
                raise UserError("an assistant's message needs continue_final_message true")
            return content, opening
    raise UserError("a grader prompt is one user message of text, and the reply's opening at most")


def _reply(asked: GraderPrompt, verdicts: list[bool]) -> str:
    """The JSON that the prompt asks for."""
    if asked.mode == "direct":
        (is_met,) = verdicts
        return json.dumps({"criteria_met": is_met})
    items = []
    for criterion, is_met in zip(asked.criteria, verdicts, strict=True):
        reason = _reason(criterion.text, asked.answer)
        items.append({"explanation": reason, "criteria_met": is_met})
    if asked.mode == "checklist":
        return json.dumps({"verdicts": items})
    (item,) = items
    return json.dumps(item)


def _reason(criterion: str, answer: str) -> str:
    """The place that decides; a criterion that asks for no single statement has none."""
    try:
        statement = statement_asked_by(criterion)
    except DataError:
        return NOTHING
    return explanation(answer, statement)


def _word(is_met: bool) -> str:
    return " true" if is_met else " false"


def _token(is_met: bool, number: Any) -> dict:
    """The token that was said, with the `number` likeliest ones: it has all probability."""
    said = _logprob(_word(is_met), 0.0)
    other = _logprob(_word(not is_met), NEVER)
    likeliest = [said, other]
    most = number if isinstance(number, int) else 0
    return said | {"top_logprobs": likeliest[:most]}


def _logprob(word: str, logprob: float) -> dict:
    return {"token": word, "logprob": logprob, "bytes": list(word.encode())}


def main(argv: list[str] | None = None) -> int:
    """Serves the oracle. Exit status: 0 after Ctrl-C or SIGTERM, 2 for something to fix."""
    parser = CommandParser("python -m rubric_rl.tiny.oracle", __doc__)
    add_serve_flags(parser)
    return exit_status(lambda: run_server(completion, MODEL, "grader", parser.parse_args(argv)))
