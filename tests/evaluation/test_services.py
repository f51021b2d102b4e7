"""A whole evaluation against a stub of each service's manners, with the flags that it takes."""

import asyncio
import gzip
import json
from collections.abc import Callable

import pytest
from aiohttp import web
from doubles.engine import VERDICT, check_answer
from doubles.records import raw_rows

from rubric_rl.common.tokenizer import thinking_switch
from rubric_rl.evaluation.evaluate import EvaluationPlan, _parser
from rubric_rl.grading.health import CHECK

Reply = dict | web.Response


def said(body: dict) -> str:
    """A right verdict: the check question's, else met."""
    if CHECK.messages[0]["content"] in body["messages"][0]["content"]:
        return check_answer(body).text
    return VERDICT % "true"


def chat(content, finish="stop", usage=None, **message) -> dict:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content} | message,
        "finish_reason": finish,
    }
    return {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}


def refused(message: str, status: int = 400, **more) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None} | more
    return web.json_response({"error": error}, status=status)


def only(body: dict, *known: str) -> web.Response | None:
    """A strict server's refusal of every field that it does not know."""
    unknown = body.keys() - {"model", "messages", *known}
    return refused(f"Unrecognized request argument: {sorted(unknown)}") if unknown else None


def openai(request: web.Request, body: dict) -> Reply:
    if request.headers.get("Authorization") != "Bearer sk-1":
        return refused("You didn't provide an API key", 401)
    known = ("max_tokens", "temperature", "top_p", "seed", "response_format")
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": None}
    return only(body, *known) or chat(said(body), usage=usage, refusal=None)


def openai_reasoning(request: web.Request, body: dict) -> Reply:
    if "max_tokens" in body:
        return refused("Unsupported parameter: use 'max_completion_tokens' instead")
    known = ("max_completion_tokens", "response_format", "reasoning_effort")
    details = {"reasoning_tokens": 64}
    usage = {"prompt_tokens": 9, "completion_tokens": 99, "completion_tokens_details": details}
    return only(body, *known) or chat(said(body), usage=usage)


def azure(request: web.Request, body: dict) -> Reply:
    if request.query.get("api-version") != "2024-10-21":
        return refused("Resource not found", 404)
    if request.headers.get("api-key") != "sk-1" or "Authorization" in request.headers:
        return refused("Access denied due to invalid subscription key", 401)
    return chat(said(body), prompt_filter_results=[])


def gateway() -> Callable[[web.Request, dict], Reply]:
    """Errors inside HTTP 200, beside the choices and in one of them, now and then."""
    turns = iter(range(10**6))

    def act(request: web.Request, body: dict) -> Reply:
        turn = next(turns) % 4
        if turn == 0:
            return {"error": {"message": "Provider returned error", "code": 502}}
        if turn == 1:
            reply = chat("", finish="error")
            reply["choices"][0]["error"] = {"message": "overloaded", "code": 429}
            return reply
        return chat(said(body), native_finish_reason="STOP", reasoning=None)

    return act


def anthropic(request: web.Request, body: dict) -> Reply:
    known = ("max_tokens", "temperature", "top_p")
    return only(body, *known) or chat([{"type": "text", "text": said(body)}], "end_turn")


def mistral(request: web.Request, body: dict) -> Reply:
    known = ("max_tokens", "temperature", "top_p", "random_seed", "response_format")
    unknown = body.keys() - {"model", "messages", *known}
    if unknown:
        details = [{"type": "extra_forbidden", "loc": ["body", name]} for name in sorted(unknown)]
        return web.json_response({"object": "error", "message": {"detail": details}}, status=422)
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    return chat([thinking, {"type": "text", "text": said(body)}])


def vllm(request: web.Request, body: dict) -> Reply:
    usage = {"prompt_tokens": 9, "total_tokens": 12, "completion_tokens": 3}
    return chat(said(body), usage=usage, reasoning_content=None, tool_calls=[])


def tgi(request: web.Request, body: dict) -> Reply:
    usage = {"prompt_tokens": 9.0, "completion_tokens": "3"}
    return chat("\n" + said(body), "eos_token", usage=usage)


def reasoning_parser(request: web.Request, body: dict) -> Reply:
    """Thinks, and puts everything into its thoughts, unless it is told not to."""
    if body.get("chat_template_kwargs") == thinking_switch(False):
        return chat(said(body), reasoning_content=None)
    return chat(None, reasoning_content="so: " + said(body))


def proxy(request: web.Request, body: dict) -> Reply:
    content = b"\xef\xbb\xbf \n" + json.dumps(chat(said(body), None)).encode()
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=latin-1"}
    return web.Response(body=gzip.compress(content), headers=headers)


REASONING = {
    "max_tokens": None,
    "max_completion_tokens": 4096,
    "temperature": None,
    "top_p": None,
    "seed": None,
}
# service -> its manners, the path of its base URL, extra_body
SERVICES = {
    "OpenAI": (openai, "", {}),
    "OpenAI, a reasoning model": (openai_reasoning, "/v1", REASONING),
    "Azure": (azure, "/openai/deployments/x?api-version=2024-10-21", {}),
    "a gateway like OpenRouter's": (gateway(), "/api/v1", {}),
    "Anthropic's": (anthropic, "/v1", {"seed": None, "response_format": None}),
    "Mistral's": (mistral, "/v1", {"seed": None, "random_seed": 0}),
    "vLLM": (vllm, "/v1", {}),
    "TGI": (tgi, "/v1/chat/completions", {}),
    "SGLang with a reasoning parser": (reasoning_parser, "", {}),
    "a proxy like LiteLLM's": (proxy, "/proxy", {}),
}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_grades(service, tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICE_KEY", "sk-1")
    monkeypatch.setattr("rubric_rl.serving.client._pause_seconds", lambda *_: 0.0)
    manners, path, extra = SERVICES[service]
    route = path.partition("?")[0].removesuffix("/chat/completions") or "/v1"
    rows = raw_rows(tmp_path / "rows.jsonl", 4)
    lines = [json.dumps({"prompt_id": f"p{number}", "answer": "Rest."}) for number in range(4)]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))

    async def handle(request: web.Request) -> web.Response:
        reply = manners(request, await request.json())
        return reply if isinstance(reply, web.Response) else web.json_response(reply)

    async def main() -> EvaluationPlan:
        app = web.Application()
        app.router.add_post(f"{route}/chat/completions", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
        words = ["--rows", rows, "--answers", tmp_path / "answers.jsonl", "--out", tmp_path / "run"]
        words += ["--grader-api", "openai", "--grader-model", "m", "--grader-url", url]
        words += ["--grader-api-key-env", "SERVICE_KEY"]
        words += ["--grader-extra-body", json.dumps(extra)]
        plan = EvaluationPlan(_parser().parse_args([str(word) for word in words]))
        try:
            await plan.run()
        finally:
            await runner.cleanup()
        return plan

    plan = asyncio.run(main())
    result = plan.report()
    assert result["criteria"]["met"] == 12
    assert plan.complaint(result) == ""
