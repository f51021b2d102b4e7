"""Serves the oracle of the tiny world as an OpenAI-compatible grader: teacher, anchor, perfect one.

    python -m rubric_rl.tiny.oracle --serve 30001      until Ctrl-C; 0 takes any free port

It answers this repository's grader prompts in every mode, and nothing else: any other request gets
HTTP 400 with the reason. A grader's settings for it:

    grader_api: openai
    grader_url: http://127.0.0.1:30001
    grader_model: tiny-oracle
"""

import argparse
import asyncio
import json
import signal
from typing import Any

from aiohttp import web

from rubric_rl.common.command_line import CommandParser, count, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.grading.prompt import verdict_opening
from rubric_rl.tiny.example_replies import explanation
from rubric_rl.tiny.oracle import statement_asked_by, truth
from rubric_rl.tiny.read_prompt import GraderPrompt, read_prompt

MODEL = "tiny-oracle"  # any other name is answered too
NEVER = -9999.0  # how OpenAI writes the logarithm of 0
LARGEST_REQUEST = 2**25  # bytes
_MOST_PORTS = 65535


def completion(body: Any) -> dict:
    """The chat completion that answers the body of a request.

    Raises:
        UserError: for a request that is no question of this repository's graders, and for a
            criterion that is not of the tiny world.
    """
    content, opening = _question(body)
    asked = read_prompt(content)
    verdicts = truth(asked.criteria, asked.answer)
    if not opening:
        choice = _choice(_reply(asked, verdicts), "stop")
    elif asked.mode == "direct" and opening == verdict_opening():
        (is_met,) = verdicts
        choice = _choice(_word(is_met), "length")
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_token(is_met, body.get("top_logprobs"))]}
    else:
        raise UserError(f"only {verdict_opening()} of grader_mode direct can be continued")
    return {
        "id": "chatcmpl-oracle",
        "object": "chat.completion",
        "created": 0,  # the same question has the same answer
        "model": body.get("model", MODEL),
        "choices": [choice],
    }


def _question(body: Any) -> tuple[str, str]:
    """The user's message, and the beginning of the reply that is to be continued, or ""."""
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        raise UserError("the request is no chat completion: messages is missing")
    if body.get("stream") or body.get("n", 1) != 1:
        raise UserError("one reply as a whole is all there is; leave out stream and n")
    turns = []
    for message in messages:
        fields = message if isinstance(message, dict) else {}
        turns.append((fields.get("role"), fields.get("content")))
    match turns:
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
        statement = statement_asked_by(criterion.text)
        reason = explanation(asked.answer, statement)
        items.append({"explanation": reason, "criteria_met": is_met})
    if asked.mode == "checklist":
        return json.dumps({"verdicts": items})
    (item,) = items
    return json.dumps(item)


def _choice(text: str, finish_reason: str) -> dict:
    message = {"role": "assistant", "content": text}
    return {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}


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


def application() -> web.Application:
    """The two routes: /v1/chat/completions and /v1/models."""
    app = web.Application(client_max_size=LARGEST_REQUEST)
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_get("/v1/models", _models)
    return app


async def _chat(request: web.Request) -> web.Response:
    try:
        return web.json_response(completion(await request.json()))
    except UserError as error:
        why = str(error)
    except (ValueError, RecursionError):  # of the JSON, or of its encoding
        why = "the request is no JSON"
    error = {"message": why, "type": "invalid_request_error", "code": None, "param": None}
    return web.json_response({"error": error}, status=400)


async def _models(request: web.Request) -> web.Response:
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "rubric-rl"}
    return web.json_response({"object": "list", "data": [model]})


async def serve(host: str, port: int) -> None:
    """Serves until SIGINT or SIGTERM; port 0 means any, and a line says which.

    Raises:
        UserError: when it cannot listen there.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await _listen(runner, host, port)
        address, taken, *_ = runner.addresses[0]
        shown = f"[{address}]" if ":" in address else address
        print(f"ready: http://{shown}:{taken} (grader_model {MODEL}); Ctrl-C ends it", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        _, _, reason = str(error.strerror).rpartition(": ")  # asyncio puts the address before it
        why = f"cannot listen on {host} port {port} ({reason})"
        raise UserError(f"{why}; end what holds it, or give another --serve or --host") from None


def _port(text: str) -> int:
    """The type of a flag that takes a TCP port, or 0 for any."""
    number = count(text)
    if number > _MOST_PORTS:
        raise argparse.ArgumentTypeError(f"{text} is no port: those go to {_MOST_PORTS}")
    return number


def main(argv: list[str] | None = None) -> int:
    """Serves the oracle. Exit status: 0 after Ctrl-C or SIGTERM, 2 for something to fix."""
    parser = CommandParser("python -m rubric_rl.tiny.oracle", __doc__)
    add = parser.add_argument
    add("--serve", type=_port, required=True, metavar="PORT", help="port to listen on; 0: any")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    return exit_status(lambda: _serve(parser.parse_args(argv)))


def _serve(args: argparse.Namespace) -> int:
    asyncio.run(serve(args.host, args.serve))
    return 0
