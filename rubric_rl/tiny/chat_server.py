"""A rule of the tiny world served as an OpenAI-compatible chat endpoint, until Ctrl-C.

What the rule cannot answer gets HTTP 400 with the reason.
"""

import argparse
import asyncio
import signal
from collections.abc import Callable
from typing import Any

from aiohttp import web

from rubric_rl.common.command_line import CommandParser, count
from rubric_rl.common.errors import UserError

Completion = Callable[[Any], dict]  # the body of a request -> the chat completion
LARGEST_REQUEST = 2**25  # bytes
_MOST_PORTS = 65535


def messages_of(body: Any) -> list[tuple[Any, Any]]:
    """The (role, content) of a request's messages. Raises UserError for no chat completion."""
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        raise UserError("the request is no chat completion: messages is missing")
    if body.get("stream") or body.get("n", 1) != 1:
        raise UserError("one reply as a whole is all there is; leave out stream and n")
    turns = []
    for message in messages:
        fields = message if isinstance(message, dict) else {}
        turns.append((fields.get("role"), fields.get("content")))
    return turns


def seed_of(body: dict) -> int:
    """The request's seed, 0 without one."""
    seed = body.get("seed")
    return seed if isinstance(seed, int) else 0


def chat_choice(text: str, finish_reason: str) -> dict:
    """The one choice of a completion."""
    message = {"role": "assistant", "content": text}
    return {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}


def chat_completion(model: str, choice: dict) -> dict:
    """A completion of one choice; the same question has the same one."""
    return {
        "id": f"chatcmpl-{model}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [choice],
    }


def application(completion: Completion, model: str) -> web.Application:
    """The two routes: /v1/chat/completions and /v1/models."""

    async def chat(request: web.Request) -> web.Response:
        try:
            return web.json_response(completion(await request.json()))
        except UserError as error:
            why = str(error)
        except (ValueError, RecursionError):  # of the JSON, or of its encoding
            why = "the request is no JSON"
        error = {"message": why, "type": "invalid_request_error", "code": None, "param": None}
        return web.json_response({"error": error}, status=400)

    async def models(_: web.Request) -> web.Response:
        listed = {"id": model, "object": "model", "created": 0, "owned_by": "rubric-rl"}
        return web.json_response({"object": "list", "data": [listed]})

    app = web.Application(client_max_size=LARGEST_REQUEST)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    return app


def run_server(completion: Completion, model: str, who: str, args: argparse.Namespace) -> int:
    """Serves the rule where `add_serve_flags` says, as the model of `who`; the exit status."""
    app = application(completion, model)
    asyncio.run(serve(app, args.host, args.serve, f"{who}_model {model}"))
    return 0


async def serve(app: web.Application, host: str, port: int, name: str) -> None:
    """Serves until SIGINT or SIGTERM; port 0 means any, and a line says which, and the `name`.

    Raises:
        UserError: when it cannot listen there.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await _listen(runner, host, port)
        address, taken, *_ = runner.addresses[0]
        shown = f"[{address}]" if ":" in address else address
        print(f"ready: http://{shown}:{taken} ({name}); Ctrl-C ends it", flush=True)
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


def add_serve_flags(parser: CommandParser) -> None:
    """--serve PORT and --host."""
    add = parser.add_argument
    add("--serve", type=_port, required=True, metavar="PORT", help="port to listen on; 0: any")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")


def _port(text: str) -> int:
    """The type of a flag that takes a TCP port, or 0 for any."""
    number = count(text)
    if number > _MOST_PORTS:
        raise argparse.ArgumentTypeError(f"{text} is no port: those go to {_MOST_PORTS}")
    return number
