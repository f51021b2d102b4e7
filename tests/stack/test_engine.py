"""The real SGLang engine and router on the CPU do what the recipe relies on."""

import argparse
import asyncio
import json
import sys
import threading
import time

import psutil
import pytest
import requests
from doubles.processes import all_gone, listeners, wait_for

from rubric_rl.cpu import engine as cpu
from rubric_rl.cpu.process import ServerDied, ServerProcess
from rubric_rl.cpu.samples import Sample
from rubric_rl.trust.moved import Movement

pytestmark = pytest.mark.stack
WORDS = "the patient has a fever and should rest , drink water and see a doctor "
VERDICT = {
    "type": "object",
    "properties": {
        "explanation": {"type": "string", "maxLength": 20},
        "criteria_met": {"type": "boolean"},
    },
    "required": ["explanation", "criteria_met"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(engine):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(engine.model_dir)


@pytest.fixture
def generate(engine):
    """Function (prompt, extras, **sampling) -> answer of the router's /generate.

    The prompt is text or ids; extras go into the body, the rest are sampling parameters.
    """

    def call(prompt, extras=None, **sampling):
        key = "text" if isinstance(prompt, str) else "input_ids"
        return cpu.request(
            engine.router_url + "/generate",
            {key: prompt, "sampling_params": sampling, **(extras or {})},
        )

    return call


def transformers_logprobs(model_dir, ids):
    """[len(ids) - 1, vocabulary] log-probabilities of the next token by transformers in float32."""
    import torch
    from transformers import Qwen3ForCausalLM

    model = Qwen3ForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def test_sampled_logprobs_are_those_of_transformers(engine, tokenizer, generate):
    prompt = tokenizer.encode(WORDS)
    reply = generate(
        prompt, {"return_logprob": True}, max_new_tokens=24, temperature=1.0, ignore_eos=True
    )
    meta, ids = reply["meta_info"], reply["output_ids"]
    assert meta["prompt_tokens"] == len(prompt) and meta["completion_tokens"] == len(ids) == 24
    assert meta["finish_reason"] == {"type": "length", "length": 24}
    expected = transformers_logprobs(engine.model_dir, prompt + ids)[len(prompt) - 1 : -1]
    assert [token for _, token, _ in meta["output_token_logprobs"]] == ids
    for row, (logprob, token, _) in zip(expected, meta["output_token_logprobs"], strict=True):
        assert logprob == pytest.approx(row[token].item(), abs=2e-4)


def test_a_policy_that_has_not_moved_gives_its_answers_the_log_probabilities_they_had(
    engine, tokenizer, generate
):
    """And one whose answers had others has moved by the difference (trust/moved.py)."""
    prompt = tokenizer.encode(WORDS)
    samples = []
    for index in range(3):
        reply = generate(
            prompt, {"return_logprob": True}, max_new_tokens=24, temperature=1.0, ignore_eos=True
        )
        log_probs = [entry[0] for entry in reply["meta_info"]["output_token_logprobs"]]
        samples.append(drawn(index, prompt + reply["output_ids"], log_probs))
    assert moved_by(engine, samples) == pytest.approx(0.0, abs=2e-4)
    for one in samples:
        one.rollout_log_probs = [each + 0.3 for each in one.rollout_log_probs]
    assert moved_by(engine, samples) == pytest.approx(0.3, abs=2e-4)


def drawn(index: int, tokens: list[int], log_probs: list[float]) -> Sample:
    """An answer of earlier weights."""
    return Sample(
        index=index,
        tokens=tokens,
        response_length=len(log_probs),
        rollout_log_probs=log_probs,
        weight_versions=["earlier"],
    )


def moved_by(engine, samples: list[Sample]) -> float:
    """What the router's engine says of answers of the rollout before."""
    movement = Movement(engine.router_url, lambda: False, argparse.Namespace())

    async def main():
        for rollout, one in [*((0, one) for one in samples), (1, samples[0])]:
            async with movement.beside(one, rollout):
                pass
        return movement.take().nats

    return asyncio.run(main())


def test_the_likeliest_tokens_and_their_logprobs_are_those_of_transformers(
    engine, tokenizer, generate
):
    prompt = tokenizer.encode(WORDS)
    extras = {"return_logprob": True, "top_logprobs_num": 20}
    meta = generate(prompt, extras, max_new_tokens=1, temperature=1.0)["meta_info"]
    (found,) = meta["output_top_logprobs"]
    row = transformers_logprobs(engine.model_dir, prompt)[-1]
    expected = row.topk(20)
    assert {token for _, token, _ in found} == set(expected.indices.tolist())
    for logprob, token, _ in found:
        assert logprob == pytest.approx(row[token].item(), abs=2e-4)


def test_shared_prefix_is_cached_to_the_token(tokenizer, generate):
    shared = tokenizer.encode("never seen before : " + WORDS * 3)
    (a,), (b,) = (tokenizer.encode(letter) for letter in "ab")
    cached = [
        generate(shared + [t] * 5, max_new_tokens=1)["meta_info"]["cached_tokens"]
        for t in (a, b, b)
    ]
    assert cached[1:] == [
        len(shared),
        len(shared) + 4,
    ]  # page size 1; the last prompt token is always computed


def test_text_prompt_is_tokenized_as_transformers_does(tokenizer, generate):
    text = "<|im_start|>user\nis it so ?<|im_end|>\n"
    ids = tokenizer.encode(text)
    one, other = (generate(prompt, max_new_tokens=8, temperature=0) for prompt in (text, ids))
    assert (
        one["meta_info"]["prompt_tokens"] == len(ids) and one["output_ids"] == other["output_ids"]
    )


def test_schema_and_regex_are_enforced(generate):
    reply = generate(WORDS, max_new_tokens=400, temperature=1.0, json_schema=json.dumps(VERDICT))
    if reply["meta_info"]["finish_reason"]["type"] == "stop":
        # Not strict: the grammar lets raw control characters into a string, which JSON forbids.
        assert isinstance(json.loads(reply["text"], strict=False)["criteria_met"], bool)
    assert reply["text"].startswith(
        '{"explanation": "'
    )  # Python's own spacing, no other whitespace
    for _ in range(5):
        assert generate(WORDS, max_new_tokens=30, temperature=1.0, regex="( true| false)")[
            "text"
        ] in (
            " true",
            " false",
        )


def test_stop_token_is_kept_when_asked_for(tokenizer, generate):
    keep = {
        "skip_special_tokens": False,
        "no_stop_trim": True,
        "spaces_between_special_tokens": False,
    }
    reply = generate(WORDS, max_new_tokens=60, temperature=1.0, regex=" true", **keep)
    assert reply["text"] == " true" + tokenizer.decode(reply["output_ids"][-1:])
    assert (
        reply["output_ids"][-1]
        == tokenizer.eos_token_id
        == reply["meta_info"]["finish_reason"]["matched"]
    )


def test_chat_route_continues_the_assistants_turn(engine, tokenizer, generate):
    """As the generation prompt plus the opening, not as a finished turn of the assistant."""
    question, opening = {"role": "user", "content": "is it so ?"}, '{"criteria_met":'
    body = {
        "model": "policy",
        "messages": [question, {"role": "assistant", "content": opening}],
        "max_tokens": 1,
    }
    body |= {"continue_final_message": True, "add_generation_prompt": False, "temperature": 0}
    body |= {
        "logprobs": True,
        "top_logprobs": 5,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    cpu.request(engine.router_url + "/v1/chat/completions", body)
    reply = cpu.request(engine.router_url + "/v1/chat/completions", body)
    template = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    text = tokenizer.apply_chat_template([question], **template) + opening
    same = generate(
        text, {"return_logprob": True, "top_logprobs_num": 5}, max_new_tokens=1, temperature=0
    )["meta_info"]
    top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert [t["logprob"] for t in top] == pytest.approx(
        [row[0] for row in same["output_top_logprobs"][0]], abs=2e-4
    )
    assert reply["usage"]["prompt_tokens"] == same["prompt_tokens"]
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == same["prompt_tokens"] - 1


@pytest.mark.parametrize(
    "body",
    [
        {"input_ids": [3] * 100_000},
        {"text": "x", "sampling_params": {"temperature": -1}},
        {"text": "x", "sampling_params": {"json_schema": "{nope"}},
        {"text": "x", "sampling_params": {"regex": "((("}},
        {},
    ],
)
def test_bad_requests_are_400_and_do_not_shut_out_the_engine(engine, generate, body):
    for _ in range(15):
        with pytest.raises(cpu.RequestRefused, match="answered 400"):
            cpu.request(engine.router_url + "/generate", body)
    assert generate(WORDS, max_new_tokens=1)["output_ids"]


def in_flight(generate, results):
    thread = threading.Thread(
        target=lambda: results.append(generate(WORDS, max_new_tokens=700, ignore_eos=True))
    )
    thread.start()
    time.sleep(0.5)
    return thread


def test_aborted_request_says_so(engine, generate):
    results = []
    thread = in_flight(generate, results)
    cpu.request(engine.url + "/abort_request", {"abort_all": True})
    thread.join()
    assert results[0]["meta_info"]["finish_reason"]["type"] == "abort"
    assert len(results[0]["output_ids"]) < 700


def test_new_weights_change_answers_version_and_empty_the_cache(
    engine, other_weights, generate, tmp_path
):
    def ask():
        reply = generate(WORDS, {"return_logprob": True}, max_new_tokens=12, temperature=0)
        meta = reply["meta_info"]
        return (
            [row[0] for row in meta["output_token_logprobs"]],
            meta["weight_version"],
            meta["cached_tokens"],
        )

    before = cpu.request(engine.url + "/model_info")["weight_version"]
    ask()
    old, version, cached = ask()
    assert version == before and cached > 0
    try:
        results = []
        thread = in_flight(generate, results)
        cpu.update_weights(engine.urls, other_weights(engine.model_dir, tmp_path / "new"), "41")
        thread.join()
        assert (
            results[0]["meta_info"]["finish_reason"]["type"] == "abort"
        )  # no answer mixes two policies
        new, version, cached = ask()
        assert (version, cached) == ("41", 0) and new != pytest.approx(old, abs=1e-3)
        with pytest.raises(cpu.RequestRefused, match="nowhere"):
            cpu.update_weights(engine.urls, tmp_path / "nowhere", "42")
        assert ask()[1] == "41"  # goes on serving what it had
    finally:
        cpu.update_weights(engine.urls, engine.model_dir, before)
    again, version, cached = ask()
    assert (version, cached) == (before, 0) and again == pytest.approx(old, abs=2e-4)


def test_everything_listens_on_loopback_only(engine):
    sockets = listeners(psutil.Process().children(recursive=True))
    assert engine.router_port in {port for _, _, port in sockets}
    assert {address for _, address, _ in sockets} == {cpu.HOST}


def test_server_that_dies_at_start_shows_the_end_of_its_log(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    port = cpu.free_port()
    with (
        cpu.start_engine(tmp_path, port, tmp_path) as server,
        pytest.raises(ServerDied, match="no-such-model") as error,
    ):
        cpu.wait_healthy(f"http://{cpu.HOST}:{port}", server, 120)
    assert f"SGLang engine on port {port} ended with status 1" in str(error.value)


FAKE_WORKER = """
import http.server, json, sys
class Worker(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = {"model_path": "policy", "served_model_name": "policy"}
        body = json.dumps({"port": self.server.server_port, "text": "", **name}).encode()
        self.send_response(200); self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Worker).serve_forever()
"""


def test_routing_key_sticks_to_one_engine_and_moves_when_it_dies(tmp_path):
    """Real router, two stand-ins for engines that answer with their own port."""
    workers = {}
    for port in (cpu.free_port(), cpu.free_port()):
        command = [sys.executable, "-c", FAKE_WORKER, str(port)]
        workers[port] = ServerProcess.start(command, tmp_path / str(port), grace=0)
    first, second = workers
    urls = [f"http://{cpu.HOST}:{port}" for port in workers]
    router_port = cpu.free_port()
    try:
        for url, worker in zip(urls, workers.values(), strict=True):
            cpu.wait_healthy(url, worker, 30)
        with cpu.start_router(urls, router_port, tmp_path):
            router = f"http://{cpu.HOST}:{router_port}"
            assert cpu.healthy_engines(router) == set(urls)

            def worker_of(key: str) -> int:
                headers = {"X-SMG-Routing-Key": key}
                return requests.post(
                    router + "/generate", json={"text": "x"}, headers=headers, timeout=30
                ).json()["port"]

            chosen = {f"answer-{i}": worker_of(f"answer-{i}") for i in range(20)}
            assert set(chosen.values()) == {first, second}  # both are used
            for _ in range(3):
                assert {key: worker_of(key) for key in chosen} == chosen
            workers[first].stop()
            wait_for(lambda: cpu.healthy_engines(router) == {urls[1]}, 60)
            assert {worker_of(key) for key in chosen} == {second}
    finally:
        for worker in workers.values():
            worker.stop()


def test_an_engine_that_still_loads_dies_with_its_guard(tiny_model, tmp_path):
    """Its spawned processes import for seconds before SGLang itself ties them to their parent."""

    def family():
        return psutil.Process(server.pid).children(recursive=True)

    server = cpu.start_engine(tiny_model, cpu.free_port(), tmp_path)
    wait_for(lambda: sum("--multiprocessing-fork" in p.cmdline() for p in family()) >= 2, 300)
    members = family()
    psutil.Process(server.pid).kill()
    wait_for(lambda: all_gone(members), 60)
