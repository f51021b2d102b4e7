"""What the first form of records and evaluation folders looked like, word for word."""

import hashlib
import json
from pathlib import Path

from rubric_rl.common.jsonl import write_jsonl

RUBRICS = [
    {"criterion": "says 0 (+5)", "points": 5, "tags": ["axis:accuracy"]},
    {"criterion": "says 1 (+3)", "points": 3, "tags": ["axis:completeness"]},
    {"criterion": "says 2 (-4)", "points": -4, "tags": ["axis:accuracy"]},
]
NO_TOKENS = {"prompt": 0, "cached": 0, "completion": 0}

# A training run's: graded, cut at the length limit, ungraded; then one of its evaluation.
TRAINING = [
    {
        "prompt_id": "p0",
        "theme": "t",
        "example_tags": ["theme:t"],
        "status": "graded",
        "score": 0.625,
        "answer": "answer 0",
        "rubrics": RUBRICS,
        "verdicts": [True, None, False],
        "unreadable": 1,
        "probabilities": [0.9, None, 0.25],
        "explanations": ["", "", ""],
        "first_tokens": {"prompt": 218, "cached": 3, "completion": 1},
        "rest_tokens": {"prompt": 434, "cached": 388, "completion": 2},
        "calls": 3,
        "seconds": 0.6799,
        "weight_versions": ["0"],
        "error": "",
        "split": "train",
        "index": 15,
        "weight_version": "1",
        "grader": "policy",
    },
    {
        "prompt_id": "p1",
        "theme": "t",
        "example_tags": ["theme:t"],
        "status": "truncated",
        "score": 0.0,
        "answer": "answer that was cut",
        "rubrics": RUBRICS,
        "verdicts": [],
        "unreadable": 0,
        "probabilities": [],
        "explanations": [],
        "first_tokens": NO_TOKENS,
        "rest_tokens": NO_TOKENS,
        "calls": 0,
        "seconds": 0.0,
        "weight_versions": [],
        "error": "",
        "split": "train",
        "index": 16,
        "weight_version": "1",
        "grader": "policy",
    },
    {
        "prompt_id": "p2",
        "theme": "t",
        "example_tags": ["theme:t"],
        "status": "ungraded",
        "score": None,
        "answer": "answer 2",
        "rubrics": RUBRICS,
        "verdicts": [],
        "unreadable": 0,
        "probabilities": [],
        "explanations": [],
        "first_tokens": {"prompt": 218, "cached": 3, "completion": 1},
        "rest_tokens": NO_TOKENS,
        "calls": 1,
        "seconds": 1.5,
        "weight_versions": ["0"],
        "error": "http://127.0.0.1:9/generate: HTTP 400: too long",
        "split": "train",
        "index": 17,
        "weight_version": "1",
        "grader": "teacher",
    },
    {
        "prompt_id": "p3",
        "theme": "",
        "example_tags": [],
        "status": "graded",
        "score": 1.0,
        "answer": "answer 3",
        "rubrics": RUBRICS,
        "verdicts": [True, True, False],
        "unreadable": 0,
        "probabilities": [0.9, 0.8, 0.1],
        "explanations": ["", "", ""],
        "first_tokens": {"prompt": 218, "cached": 3, "completion": 1},
        "rest_tokens": {"prompt": 434, "cached": 388, "completion": 2},
        "calls": 3,
        "seconds": 0.5,
        "weight_versions": ["1"],
        "error": "",
        "split": "eval",
        "index": 0,
        "weight_version": "1",
        "grader": "policy",
    },
]

# An evaluation's: graded, without a final answer, and one to which the policy gave none at all.
EVALUATION = [
    {
        "key": "p0#0",
        "prompt_id": "p0",
        "theme": "t",
        "example_tags": ["theme:t"],
        "status": "graded",
        "score": 0.125,
        "answer": "an answer",
        "rubrics": RUBRICS,
        "verdicts": [True, False, True],
        "unreadable": 0,
        "probabilities": [None, None, None],
        "explanations": ["because 0", "because 1", "because 2"],
        "first_tokens": {"prompt": 100, "cached": 90, "completion": 7},
        "rest_tokens": {"prompt": 200, "cached": 180, "completion": 14},
        "calls": 3,
        "seconds": 0.0793,
        "weight_versions": ["3"],
        "error": "",
        "split": "eval",
        "index": 0,
        "weight_version": "m",
        "messages": [{"role": "user", "content": "question 0"}],
        "policy_tokens": {"prompt": 100, "cached": 0, "completion": 7},
    },
    {
        "key": "p1#0",
        "prompt_id": "p1",
        "theme": "t",
        "example_tags": ["theme:t"],
        "status": "no_answer",
        "score": 0.0,
        "answer": None,
        "rubrics": RUBRICS,
        "verdicts": [],
        "unreadable": 0,
        "probabilities": [],
        "explanations": [],
        "first_tokens": NO_TOKENS,
        "rest_tokens": NO_TOKENS,
        "calls": 0,
        "seconds": 0.0,
        "weight_versions": [],
        "error": "",
        "split": "eval",
        "index": 0,
        "weight_version": "m",
        "messages": [{"role": "user", "content": "question 1"}],
        "policy_tokens": {"prompt": 100, "cached": 90, "completion": 7},
    },
    {
        "key": "p2#0",
        "prompt_id": "p2",
        "theme": "t",
        "example_tags": ["theme:t"],
        "status": "ungraded",
        "score": None,
        "answer": None,
        "rubrics": RUBRICS,
        "verdicts": [],
        "unreadable": 0,
        "probabilities": [],
        "explanations": [],
        "first_tokens": NO_TOKENS,
        "rest_tokens": NO_TOKENS,
        "calls": 0,
        "seconds": 0.0,
        "weight_versions": [],
        "error": "policy: http://127.0.0.1:9/v1/chat/completions: HTTP 400: gone",
        "split": "eval",
        "index": 0,
        "weight_version": "m",
        "messages": [{"role": "user", "content": "question 2"}],
        "policy_tokens": None,
    },
]

# A meta-evaluation's rows: met, unreadable, ungraded.
META = [
    {
        "key": "1",
        "prompt": "274c93caba7c863a",
        "category": "c",
        "labels": [True, True],
        "physicians": ["a", "b"],
        "verdict": True,
        "probability": 0.9,
        "explanation": "",
        "status": "graded",
        "error": "",
        "tokens": {"prompt": 100, "cached": 90, "completion": 7},
        "retry_tokens": NO_TOKENS,
        "calls": 1,
    },
    {
        "key": "2",
        "prompt": "dbf129e70f1d127d",
        "category": "c",
        "labels": [False, True],
        "physicians": [],
        "verdict": None,
        "probability": None,
        "explanation": "",
        "status": "graded",
        "error": "",
        "tokens": {"prompt": 100, "cached": 90, "completion": 7},
        "retry_tokens": {"prompt": 200, "cached": 180, "completion": 14},
        "calls": 3,
    },
    {
        "key": "4",
        "prompt": "070b76cd627dbe08",
        "category": "c",
        "labels": [False, True],
        "physicians": ["a", "b"],
        "verdict": None,
        "probability": None,
        "explanation": "",
        "status": "ungraded",
        "error": "http://127.0.0.1:9/v1/chat/completions: HTTP 400: bad",
        "tokens": NO_TOKENS,
        "retry_tokens": NO_TOKENS,
        "calls": 0,
    },
]

# The settings of a policy that grades itself, as they stood in settings.json.
POLICY = {
    "thinking": False,
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 20,
    "max_tokens": 6144,
    "seed": 0,
    "api": "openai",
    "url": "http://127.0.0.1:9",
    "model": "m",
    "tokenizer": "",
    "extra_body": {},
    "engine": "",
    "teacher": "",
    "teacher_share": 0.0,
}
GRADER = {
    "mode": "explain",
    "thinking": False,
    "votes": 1,
    "truncated": "zero",
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 20,
    "max_tokens": 1024,
    "seed": 0,
    "rereads": 2,
    "api": "openai",
    "url": "http://127.0.0.1:9",
    "model": "m",
    "tokenizer": "",
    "extra_body": {},
    "engine": "",
    "teacher": "",
    "teacher_share": 0.0,
}


def call(answer: str, role: str, content: str | list, text: str) -> dict:
    """A line of calls.jsonl: what `role` (grader or policy) said to `content`, with seed 0."""
    parts = json.dumps([role, answer, 0, content]).encode()
    reply = {
        "text": text,
        "complete": True,
        "probability": None,
        "prompt_tokens": 100,
        "cached_tokens": 90,
        "completion_tokens": 7,
        "weight_version": "3",
    }
    question = hashlib.blake2b(parts, digest_size=16).hexdigest()
    return {"answer": answer, "question": question, "reply": reply}


def write_old_training(folder: Path) -> Path:
    """A training run's folder of verdict records."""
    write_jsonl(folder / "weights_1.jsonl", TRAINING)
    return folder


def write_old_evaluation(folder: Path) -> Path:
    """What evaluate left in its --out."""
    write_jsonl(folder / "verdicts" / "verdicts.jsonl", EVALUATION)
    return folder


def write_old_meta_evaluation(folder: Path) -> Path:
    """What meta_eval left in its --out."""
    write_jsonl(folder / "meta" / "rows.jsonl", META)
    return folder
