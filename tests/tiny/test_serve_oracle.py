"""The served oracle grades as the oracle does: an evaluation, the main grader, a teacher."""

import asyncio
import json
import random
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import self_reward_rm as hooks
from rubric_rl import ROOT
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.cpu.samples import Sample
from rubric_rl.data.schema import Criterion
from rubric_rl.evaluation import evaluate
from rubric_rl.evaluation.read_run import Run
from rubric_rl.grading.health import CHECK
from rubric_rl.grading.prompt import grader_prompt, verdict_opening
from rubric_rl.tiny.example_answers import graded_answer, mediocre_answer
from rubric_rl.tiny.oracle import true_score, truth
from rubric_rl.tiny.world import pair_of, rows

COMMAND = [sys.executable, "-m", "rubric_rl.tiny.oracle", "--serve"]
MODES = ("explain", "direct", "checklist")
ROWS = rows(held_out=True)


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def url_of(server: subprocess.Popen[str]) -> str:
    """The address in its one line, which comes when it is ready."""
    assert server.stdout
    line = server.stdout.readline()
    assert line.startswith("ready: http://127.0.0.1:")
    return line.split()[1]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = started("0")
    yield url_of(server)
    server.terminate()
    server.wait(10)


def answers_of_world() -> list[dict]:
    """An ordinary and a hostile answer to each held-out patient."""
    rng = random.Random(0)
    lines = []
    for row in ROWS:
        pair = pair_of(row)
        for make in (mediocre_answer, graded_answer):
            lines.append({"prompt_id": row.prompt_id, "answer": make(rng, pair)})
    return lines


def say(url: str, content: str, **more) -> requests.Response:
    body = {"model": "tiny-oracle", "messages": [{"role": "user", "content": content}]}
    return requests.post(f"{url}/v1/chat/completions", json=body | more, timeout=30)


def question(mode: str, answer: str = "Please see doctors.") -> str:
    messages = [{"role": "user", "content": "I have gout."}]
    return grader_prompt(mode, messages, answer, [Criterion("Recommends to see doctors", 5)])


class TestEvaluation:
    @pytest.mark.parametrize("mode", MODES)
    def test_has_the_oracle_s_own_verdicts_and_scores(self, url, mode, tmp_path, monkeypatch):
        write_jsonl(tmp_path / "rows.jsonl", [row.to_json() for row in ROWS])
        write_jsonl(tmp_path / "answers.jsonl", answers_of_world())
        words = f"--rows {tmp_path}/rows.jsonl --answers {tmp_path}/answers.jsonl"
        words += f" --out {tmp_path}/run --grader-api openai --grader-url {url}"
        words += f" --grader-model tiny-oracle --grader-mode {mode}"
        monkeypatch.setattr(sys, "argv", ["evaluate", *words.split()])
        assert evaluate.main() == 0
        records = list(Run(tmp_path / "run"))
        assert len(records) == 2 * len(ROWS)
        for record in records:
            assert record.answer is not None
            assert record.mets == truth(record.rubric, record.answer)
            assert record.score == pytest.approx(true_score(record.rubric, record.answer))
            assert record.unreadable_causes == {}
        verdicts = [met for record in records for met in record.mets]
        assert 0.1 < sum(verdicts) / len(verdicts) < 0.9


class TestTraining:
    @pytest.fixture
    def args(self, model_folder, tmp_path) -> Namespace:
        """As both trainers leave them; nothing listens at the router's address."""
        return Namespace(
            sglang_router_ip="127.0.0.1",
            sglang_router_port=1,
            hf_checkpoint=str(model_folder),
            reward_key=None,
            save=None,
            grader_records=str(tmp_path / "verdicts"),
        )

    def rewards(self, args) -> list[tuple[float, str]]:
        """(reward, name of the grader) of the world's answers; each must be the true score."""
        samples, expected = [], []
        for index, (row, line) in enumerate(zip(ROWS, answers_of_world()[::2], strict=True)):
            answer = line["answer"]
            metadata = row.to_json()["metadata"]
            completed = Sample.Status.COMPLETED
            one = Sample(index=index, group_index=index, metadata=metadata, status=completed)
            one.response = answer + "<|im_end|>"
            samples.append(one)
            expected.append(pytest.approx(true_score(row.rubric, answer)))

        async def graded() -> list[float]:
            try:
                return await hooks.reward(args, samples)
            finally:
                await hooks._graders_of_loop[asyncio.get_running_loop()].close()

        values = asyncio.run(graded())
        assert values == expected
        names = [one.metadata["grading"]["grader"] for one in samples]
        return list(zip(values, names, strict=True))

    @pytest.mark.parametrize("mode", MODES)
    def test_rewards_by_it_as_main_grader_are_true(self, url, args, mode):
        args.grader_url, args.grader_api, args.grader_mode = url, "openai", mode
        args.grader_model = "tiny-oracle"
        rewards = self.rewards(args)
        assert {name for _, name in rewards} == {"tiny-oracle"}
        assert len({value for value, _ in rewards}) > 3

    def test_rewards_by_it_as_teacher_are_true(self, url, args, tmp_path):
        settings = f"grader_api: openai\ngrader_url: {url}\ngrader_model: tiny-oracle\n"
        (tmp_path / "teacher.yaml").write_text(settings)
        args.grader_teacher, args.grader_teacher_share = str(tmp_path / "teacher.yaml"), 1.0
        assert {name for _, name in self.rewards(args)} == {"teacher"}


class TestReplies:
    @pytest.mark.parametrize("mode", MODES)
    def test_the_check_question_is_answered_rightly(self, url, mode):
        answer = "This sounds like migraine. Please see pediatricians. Please drink water."
        criteria = list(CHECK.rubric)
        batches = [criteria] if mode == "checklist" else [[criterion] for criterion in criteria]
        said = []
        for batch in batches:
            reply = say(url, grader_prompt(mode, CHECK.messages, answer, batch)).json()
            item = json.loads(reply["choices"][0]["message"]["content"])
            items = item["verdicts"] if mode == "checklist" else [item]
            said += [item["criteria_met"] for item in items]
        assert said == [True, False]

    def test_the_opened_verdict_is_continued_by_one_token_with_its_probability(self, url):
        messages = [
            {"role": "user", "content": question("direct", "Please avoid doctors.")},
            {"role": "assistant", "content": verdict_opening()},
        ]
        more = {"messages": messages, "continue_final_message": True, "max_tokens": 1}
        reply = say(url, "", **more, logprobs=True, top_logprobs=20).json()
        (choice,) = reply["choices"]
        assert choice["message"]["content"] == " false"
        (token,) = choice["logprobs"]["content"]
        top = [(entry["token"], entry["logprob"]) for entry in token["top_logprobs"]]
        assert top == [(" false", 0.0), (" true", -9999.0)]
        assert say(url, "", **more).json()["choices"][0]["logprobs"] is None

    def test_the_models_are_listed_as_openai_lists_them(self, url):
        listed = requests.get(f"{url}/v1/models", timeout=30).json()
        assert [model["id"] for model in listed["data"]] == ["tiny-oracle"]

    @pytest.mark.parametrize(
        "body, why",
        [
            ({"messages": [{"role": "user", "content": "Am I ill?"}]}, "is no grader prompt"),
            ({"messages": []}, "one user message"),
            ({"messages": [{"role": "user", "content": ["x"]}]}, "one user message"),
            ({"messages": [None]}, "one user message"),
            ({}, "messages is missing"),
            ([], "messages is missing"),
            ({"stream": True}, "leave out stream"),
            ({"n": 2}, "leave out stream and n"),
            ({"opening": "{"}, "can be continued"),
            ({"opening": "{", "continue_final_message": False}, "continue_final_message true"),
        ],
    )
    def test_what_is_not_asked_by_our_graders_is_refused_with_the_reason(self, url, body, why):
        asked = {"role": "user", "content": question("direct")}
        if isinstance(body, dict) and body and "messages" not in body:
            body = {"messages": [asked], "continue_final_message": True} | body
            if opening := body.pop("opening", ""):
                body["messages"].append({"role": "assistant", "content": opening})
        reply = requests.post(f"{url}/v1/chat/completions", json=body, timeout=30)
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert why in error["message"]
        assert error["type"] == "invalid_request_error"

    def test_a_criterion_of_another_world_is_refused(self, url):
        content = question("explain").replace("Recommends to see doctors", "Is polite")
        reply = say(url, content)
        assert reply.status_code == 400
        assert "not of the tiny world" in reply.json()["error"]["message"]

    def test_what_is_no_json_is_refused(self, url):
        for content in (b"{", b"\xff", b"[" * 200_000):
            reply = requests.post(f"{url}/v1/chat/completions", data=content, timeout=30)
            assert reply.status_code == 400
            assert reply.json()["error"]["message"] == "the request is no JSON"


class TestCommand:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ends_cleanly_by_a_signal(self, number):
        server = started("0")
        assert requests.get(url_of(server) + "/v1/models", timeout=30).ok
        server.send_signal(number)
        rest, _ = server.communicate(timeout=10)
        assert (server.returncode, rest) == (0, "")

    @pytest.mark.parametrize(
        "words, complaint",
        [
            (["TAKEN"], "cannot listen on 127.0.0.1 port TAKEN (address already in use); "),
            (["0", "--host", "256.0.0.1"], "cannot listen on 256.0.0.1 port 0 ("),
            (["70000"], "70000 is no port"),
        ],
    )
    def test_where_it_cannot_listen_one_line_says_so(self, url, words, complaint):
        taken = url.rpartition(":")[2]
        words = [word.replace("TAKEN", taken) for word in words]
        done = subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert complaint.replace("TAKEN", taken) in done.stderr
        assert done.stderr.count("\n") == 1


def test_it_needs_no_torch():
    code = "import sys, rubric_rl.tiny.serve_oracle; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(ROOT))
