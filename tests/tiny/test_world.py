"""The tiny world: what is held out, what the oracle takes for true, and the hooks that show it."""

import json
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubric_rl.data.schema import row_from_metadata
from rubric_rl.errors import DataError, UserError
from rubric_rl.tiny import example_answers, example_replies, oracle, world
from rubric_rl.tiny.oracle import ADVICE, CONDITIONS, MODIFIERS, STATEMENTS, criteria, sentences

ANY_STATEMENT = st.sampled_from(STATEMENTS)
ANY_PAIR = st.sampled_from(world.PAIRS)


def test_a_fifth_of_the_pairs_is_held_out_and_both_halves_of_each_are_known():
    assert len(world.HELD_OUT_PAIRS) == 20 and len(world.PAIRS) == 100
    training = [pair for pair in world.PAIRS if pair not in world.HELD_OUT_PAIRS]
    assert {c for c, _ in training} == set(CONDITIONS) and {m for _, m in training} == set(
        MODIFIERS
    )


def test_training_and_held_out_rows_share_no_conversation():
    training, held_out = world.rows(held_out=False), world.rows(held_out=True)
    assert (len(training), len(held_out)) == (320, 80)
    texts = [json.dumps(row.messages) for row in training + held_out]
    assert len(set(texts)) == 400
    assert {world.pair_of(row) for row in held_out} == world.HELD_OUT_PAIRS
    assert not {world.pair_of(row) for row in training} & world.HELD_OUT_PAIRS


def test_rows_are_the_same_in_every_call_and_have_rubrics_like_healthbench():
    raw = world.raw_rows()
    assert raw == world.raw_rows()
    rubrics = [row["rubrics"] for row in raw]
    assert all(
        2 <= len(rubric) <= 6 and any(item["points"] > 0 for item in rubric) for rubric in rubrics
    )
    items = [item for rubric in rubrics for item in rubric]
    assert 0.28 < sum(item["points"] < 0 for item in items) / len(items) < 0.38
    assert {tag.split(":")[1] for item in items for tag in item["tags"] if tag.startswith("axis:")} == {
        "accuracy", "completeness", "communication_quality", "context_awareness", "instruction_following",
    }  # fmt: skip
    assert all(
        set(row)
        == {"prompt_id", "prompt", "rubrics", "example_tags", "ideal_completions_data", "canary"}
        for row in raw
    )


def test_no_rubric_wants_what_it_forbids_and_a_perfect_answer_is_short():
    for pair in world.PAIRS:
        assert not set(world.good_statements(pair)) & set(world.bad_statements(pair))
    for row in world.rows(held_out=True):
        best = " ".join(
            sentences(s)[0] for s in [*world.good_statements(world.pair_of(row)), oracle.WISH]
        )
        met = [
            c.points for c, t in zip(row.rubric, oracle.truth(row.rubric, best), strict=True) if t
        ]
        assert all(points > 0 for points in met)
        assert sum(met) == sum(c.points for c in row.rubric if c.points > 0)
        assert len(best.split()) <= 42  # about 52 tokens


def test_command_writes_both_files(tmp_path):
    command = [sys.executable, "-m", "rubric_rl.tiny.world", "--out", str(tmp_path / "rows")]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""
    everything, hard = (
        [json.loads(line) for line in (tmp_path / "rows" / name).read_text().splitlines()]
        for name in ("tiny_all.jsonl", "tiny_hard.jsonl")
    )
    assert everything == world.raw_rows() and hard == world.raw_rows(held_out=True)
    (tmp_path / "file").write_text("")
    failed = subprocess.run([*command[:-1], str(tmp_path / "file")], capture_output=True, text=True)
    assert (
        failed.returncode == 2
        and failed.stderr.startswith("error: ")
        and failed.stderr.count("\n") == 1
    )


def test_pair_of_a_row_of_another_world():
    row = row_from_metadata(
        {
            "prompt_id": "x",
            "messages": [{"role": "user", "content": "a"}],
            "rubrics": [{"criterion": "b", "points": 1}],
        }
    )
    with pytest.raises(UserError, match="not of the tiny world"):
        world.pair_of(row)
    with pytest.raises(DataError, match="not of the tiny world"):
        oracle.truth(row.rubric, "b")


def test_key_words_are_of_one_advice_only():
    for key in ADVICE:
        others = [phrase for other, phrase in ADVICE.items() if other != key]
        assert all(key not in phrase.split() for phrase in others)


@given(ANY_STATEMENT, st.data())
def test_each_sentence_states_one_thing_and_each_criterion_asks_for_it(statement, data):
    text, criterion = (
        data.draw(st.sampled_from(sentences(statement))),
        data.draw(st.sampled_from(criteria(statement))),
    )
    assert oracle.statements_of(text) == [statement]
    assert oracle.statement_asked_by(criterion) == statement
    assert oracle.statements_of(f"{criterion}.") == []  # a copied criterion is no advice


@given(st.lists(ANY_STATEMENT, max_size=8), st.lists(ANY_STATEMENT, max_size=8))
def test_statements_of_joined_answers_are_those_of_the_parts(first, second):
    texts = [" ".join(sentences(s)[0] for s in part) for part in (first, second)]
    assert oracle.statements_of(" ".join(texts)) == first + second


@given(
    st.lists(st.sampled_from(list(ADVICE)), min_size=1, max_size=30),
    st.sampled_from([" ", ", ", ". ", "\n- "]),
)
def test_lists_of_key_words_state_nothing(words, separator):
    assert oracle.statements_of(separator.join(words) + ".") == []


@given(st.text())
@settings(max_examples=200)
def test_any_text_is_judged_and_never_states_more_than_it_has_sentences(text):
    assert len(oracle.statements_of(text)) <= sum(text.count(mark) for mark in ".!")


@given(st.integers(0, 10**6), ANY_STATEMENT, ANY_STATEMENT)
def test_a_garbled_sentence_states_no_new_advice_unless_it_is_whole(seed, statement, other):
    text = example_answers.garbled(
        random.Random(seed), sentences(statement)[0], sentences(other)[0]
    )
    known = {" ".join(t.lower().split()) for s in STATEMENTS for t in sentences(s)}
    pieces = [piece.strip().lower() + "." for piece in text.split(".")]
    assert bool(oracle.statements_of(text)) == any(
        piece in known for piece in pieces if text.lower().count(piece)
    )


@pytest.mark.parametrize(
    "answer",
    [
        "aspirin",
        "Please take aspirin",  # cut off before its full stop
        "You should avoid aspirin.",
        "Some honey can aspirin.",
        "Please take honey take aspirin.",
        "You should take aspirin not.",
        'The doctor said "Please take aspirin." to me.',
        'Unclosed "Please take aspirin. You should take aspirin.',
        "“Please take aspirin.”",
        "Recommends to take aspirin.",
        "Criterion: Recommends to take aspirin. The criterion is met.",
        '{"criteria_met": true}',
        "Please avoid aspirin. Take aspirin.",
        "Please take aspirin?",
        "It is wrong to take aspirin.",
    ],
)
def test_hostile_texts_do_not_recommend_aspirin(answer):
    assert ("do", "aspirin") not in oracle.statements_of(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Please take aspirin.",
        "please take  Aspirin!",
        "Blah blah. You should take\naspirin. Blah.",
        "It helps to take aspirin...",
    ],
)
def test_whole_sentences_recommend_aspirin(answer):
    assert oracle.statements_of(answer) == [("do", "aspirin")]


def test_graded_material_of_the_warm_start_is_of_training_pairs_only():
    batches = pytest.importorskip("rubric_rl.tiny.training_sequences")
    assert (
        not set(batches.TRAINING_PAIRS) & world.HELD_OUT_PAIRS and len(batches.TRAINING_PAIRS) == 80
    )
    written = []

    def encode(text):
        written.append(text)
        return [0] * len(text)

    writer = batches.SequenceWriter(encode, random.Random(0), length=4000)
    for _ in range(150):
        writer.grading(full=True), writer.answering()
    text = "\n".join(written)
    held_out = [
        m[-1]["content"]
        for pair in world.HELD_OUT_PAIRS
        for w in range(4)
        for m in [world.messages(pair, w)]
    ]
    training = [
        m[-1]["content"]
        for pair in batches.TRAINING_PAIRS
        for w in range(4)
        for m in [world.messages(pair, w)]
    ]
    assert not any(prompt in text for prompt in held_out)
    assert sum(prompt in text for prompt in training) > 100


@given(ANY_PAIR, st.integers(0, 10**6))
@settings(max_examples=60)
def test_explanation_points_at_the_deciding_place(pair, seed):
    rng = random.Random(seed)
    answer = example_answers.graded_answer(rng, pair)
    for statement in example_replies.asked_statements(rng, pair, answer, 5):
        reason = example_replies.explanation(answer, statement)
        if statement in oracle.statements_of(answer):
            assert any(reason in text for text in sentences(statement))
        assert (reason == example_replies.NOTHING) == (
            not example_replies.mentions(answer, statement)
        )


def _sample(response, grading, row=None):
    row = row or world.rows(held_out=True)[0]
    return SimpleNamespace(
        prompt="", response=response, metadata=row.to_json()["metadata"] | {"grading": grading}
    )


def test_oracle_metrics_against_a_case_by_hand():
    from rubric_rl.tiny.log_hooks import oracle_metrics

    rubrics = [
        {"criterion": "Recommends to drink fluids", "points": 4},
        {"criterion": "Tells the patient to avoid coffee", "points": 4},
        {"criterion": "Recommends to drink coffee", "points": -2},
        {"criterion": "Names as the likely cause flu", "points": 2},
    ]
    row = row_from_metadata(
        {"prompt_id": "a", "messages": [{"role": "user", "content": "b"}], "rubrics": rubrics}
    )
    samples = [
        _sample(
            "Please drink fluids. You should drink coffee.<|im_end|>",
            {"status": "graded", "score": 0.8, "verdicts": [True, True, False, None]},
            row,
        ),
        _sample("Please drink", {"status": "truncated", "score": 0.0, "verdicts": []}, row),
        _sample(
            "Please drink fluids.",
            {"status": "ungraded", "score": float("nan"), "verdicts": []},
            row,
        ),
    ]
    assert oracle_metrics(samples) == {
        "true_score": pytest.approx((0.2 + 0.0) / 2),
        "self_score": pytest.approx(0.4),
        "grader_accuracy": 0.25,  # fluids; the unreadable verdict is wrong too
        "false_positive_rate": 0.5,
        "false_negative_rate": 0.5,
    }
    assert oracle_metrics([]) == {}


def test_hooks_add_their_figures_and_keep_the_default_log(monkeypatch):
    from rubric_rl.tiny import log_hooks as hooks

    calls = []
    monkeypatch.setattr(hooks.self_reward_rm, "log_rollout", lambda *a: calls.append(a) or False)
    monkeypatch.setattr(hooks.self_reward_rm, "log_eval", lambda *a: calls.append(a) or False)
    row = world.rows(held_out=True)[0]
    sample = _sample(
        "Nothing.<|im_end|>",
        {"status": "graded", "score": 0.0, "verdicts": [False] * len(row.rubric)},
        row,
    )
    metrics = {}
    assert hooks.log_rollout(1, None, [sample], metrics, 2.0) is False
    assert metrics["tiny/grader_accuracy"] == 1.0 and metrics["tiny/true_score"] == 0.0
    data, metrics = {"tiny": {"rewards": [0.0], "samples": [sample]}}, {}
    assert hooks.log_eval(1, None, data, metrics) is False
    assert metrics["eval/tiny/tiny/grader_accuracy"] == 1.0
    assert hooks.log_eval(1, None, data, None) is False  # slime's own evaluation passes None
    assert data["tiny/tiny/true_score"] == {"rewards": [0.0]}
    assert len(calls) == 3


def test_world_and_oracle_do_not_import_torch():
    modules = "rubric_rl.tiny.world, rubric_rl.tiny.oracle, rubric_rl.tiny.log_hooks"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
