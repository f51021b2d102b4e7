"""The peek command: one row graded with every step in sight."""

import asyncio
import subprocess
import sys

import pytest
from doubles.engine import Fail, FakeEngine, Say, chat_model, verdict

from rubric_rl import ROOT
from rubric_rl.commands.peek import main
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.schema import Criterion, Row

MODEL = str(ROOT / "rubric_rl" / "tiny" / "model")
RUBRIC = (Criterion("Greets.\nWarmly.", 6), Criterion("Insults.", -4))
ROWS = [
    Row(f"p{number}", ({"role": "user", "content": f"question {number}"},), RUBRIC)
    for number in range(2)
]


@pytest.fixture
def rows(tmp_path) -> str:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, (row.to_json() for row in ROWS))
    return str(path)


@pytest.fixture
def peek(tmp_path, rows):
    """Runs the command against an engine; returns (status, standard output, standard error)."""
    model = chat_model(tmp_path / "model")
    config = tmp_path / "grader.yaml"
    config.write_text("grader_retries: 0\ngrader_rereads: 0\n")

    async def run(engine: FakeEngine, *options: str):
        async with engine:
            command = [sys.executable, "-m", "rubric_rl.peek", "--rows", rows, "--url", engine.url]
            command += ["--config", str(config), "--tokenizer", model, "--answer", "Hello."]
            child = await asyncio.create_subprocess_exec(
                *command,
                *options,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            out, err = await child.communicate()
            return child.returncode, out.decode(), err.decode()

    return lambda engine, *options: asyncio.run(run(engine, *options))


def test_shows_prompt_reply_verdicts_and_how_the_score_comes_about(peek):
    engine = FakeEngine(lambda prompt: verdict("Greets" in prompt))
    status, out, err = peek(engine, "--prompt-id", "p1")
    assert (status, err) == (0, "")
    assert "question 1" in out
    assert '"criteria_met": true' in out
    assert "100 in the prompt" in out
    assert "       met     +6 of +6  Greets. Warmly." in out
    assert "   not met     +0 of -4  Insults." in out
    assert out.endswith("score 1.0000 = 6 of 6 points\n")


def test_shows_each_question_of_a_request_and_where_its_reply_begins(peek, tmp_path):
    config = tmp_path / "direct.yaml"
    config.write_text("grader_mode: direct\ngrader_warm_prefix: false\n")
    engine = FakeEngine()
    status, out, _ = peek(engine, "--config", str(config))
    assert (status, engine.requests) == (0, [2])
    assert out.count("PROMPT (seed 0)") == out.count('\n{"criteria_met":\n') == 2
    assert "Criterion: [6] Greets." in out and "Criterion: [-4] Insults." in out


def test_what_is_only_read_is_told_from_a_reply_that_is_cut(peek):
    _, out, _ = peek(FakeEngine())
    assert out.count("REPLY (none: the prompt is only read") == 1
    assert "cut at the token limit" not in out


def test_shows_what_could_not_be_read(peek):
    status, out, _ = peek(FakeEngine(Say("Well.", true=0.2, false=0.1)))
    assert status == 0
    assert "question 0" in out
    assert "UNREADABLE" in out
    assert "score -0.6667 = -4 of 6 points" in out


def test_an_ungraded_answer_is_a_failure_with_its_reason(peek):
    status, out, _ = peek(FakeEngine(Fail(400, "too long")))
    assert status == 1
    assert "p0: ungraded" in out
    assert "no score: " in out
    assert "HTTP 400: too long" in out
    assert "nan" not in out


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--prompt-id", "p7"), "no row has prompt_id p7; the first one is p0"),
        (("--rows", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--config", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("--tokenizer", "nowhere"), "no usable tokenizer"),
        ((), "--tokenizer is missing"),
        (("--tokenizer", MODEL, "--url", "ftp://x"), "grader_url must begin with http"),
        (("--url", "http://h:99999"), "--url http://h:99999: Port out of range"),
        (("--url", "http://[::1"), "--url http://[::1: Invalid IPv6 URL"),
        (("--wandb-key", "secret"), "--wandb-key: a key on a command line"),
    ],
)
def test_bad_input_is_one_line(rows, monkeypatch, capsys, options, complaint):
    config = str(ROOT / "configs" / "grader.yaml")
    command = ["peek", "--rows", rows, "--answer", "Hello.", "--url", "http://127.0.0.1:9"]
    monkeypatch.setattr(sys, "argv", [*command, "--config", config, *options])
    status = main()
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert complaint in err and "secret" not in err
    assert err.count("\n") == 1
