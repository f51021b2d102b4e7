"""Records as JSON: nothing is lost on the way to the disk and back, in either form."""

import json
import math

import pytest
from doubles import old_form
from doubles.records import made
from doubles.texts import any_text
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import read_jsonl, write_jsonl
from rubric_rl.data.parse import record_from_json, row_from_metadata
from rubric_rl.data.schema import STATUSES, Criterion, Record, Row, TokenCounts, Verdict

TEXT = any_text()
TEXTS = st.lists(TEXT, max_size=2)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.builds(TokenCounts, *[st.integers(0, 10**9)] * 3)
VERDICTS = st.builds(
    Verdict,
    met=st.sampled_from([True, False, None]),
    probability=st.none() | st.floats(0, 1),
    explanation=TEXT,
)
CRITERIA = st.builds(
    Criterion,
    text=TEXT,
    points=st.integers(-10, 10) | FINITE,
    tags=TEXTS.map(tuple),
)
MESSAGES = st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": TEXT})


@st.composite
def records(draw) -> Record:
    """Any record that training, an evaluation or a meta-evaluation could leave."""
    status = draw(st.sampled_from(STATUSES))
    labels = draw(st.lists(st.booleans(), max_size=3))
    rubric = tuple(draw(st.lists(CRITERIA, max_size=3)))
    verdicts, score = [], st.just(0.0)
    if status == "graded":
        verdicts = [draw(VERDICTS) for _ in rubric]
        score = FINITE | st.just(math.nan) if labels else FINITE
    elif status == "ungraded":
        score = st.just(math.nan)
    return Record(
        prompt_id=draw(TEXT),
        rubric=rubric,
        status=status,
        answer=draw(st.none() | TEXT),
        score=draw(score),
        verdicts=verdicts,
        messages=tuple(draw(st.lists(MESSAGES, max_size=2))),
        theme=draw(TEXT),
        example_tags=tuple(draw(TEXTS)),
        split=draw(st.sampled_from(["train", "eval", "meta", ""])),
        index=draw(st.none() | st.integers(0)),
        weight_version=draw(TEXT),
        run=draw(TEXT),
        rollout=draw(st.none() | st.integers(0, 10**6)),
        time=draw(st.floats(0, 1e10)),
        grader=draw(TEXT),
        grader_versions=draw(TEXTS),
        first_tokens=draw(COUNTS),
        rest_tokens=draw(COUNTS),
        policy_tokens=draw(st.none() | COUNTS),
        calls=draw(st.integers(0, 100)),
        seconds=round(draw(st.floats(0, 1e6)), 4),
        error=draw(TEXT),
        category=draw(TEXT) if labels else "",
        labels=labels,
        physicians=draw(TEXTS) if labels else [],
    )


class TestJson:
    @given(st.lists(records(), max_size=3))
    def test_every_record_comes_back_from_the_disk_as_it_was(self, tmp_path_factory, written):
        path = tmp_path_factory.mktemp("records") / "records.jsonl"
        write_jsonl(path, (record.to_json() for record in written))
        assert [record_from_json(item) for _, item in read_jsonl(path)] == written

    def test_shows_a_verdict_per_criterion_and_no_parallel_lists(self):
        item = made("p", (5, -3), (True, None), explanation="because").to_json()
        of_no_probability = {"probability": None, "mass": None, "finished": False}
        assert item["verdicts"] == [
            {"met": True, "explanation": "because"} | of_no_probability,
            {"met": None, "explanation": "because"} | of_no_probability,
        ]
        assert not {"unreadable", "probabilities", "explanations", "weight_versions"} & item.keys()

    def test_shows_the_conversation(self):
        item = made("p", (5,), (True,), split="train").to_json()
        assert item["messages"] == [{"role": "user", "content": "question of p"}]

    def test_shows_labels_only_in_a_meta_evaluation(self):
        labelled = made("p", (5,), (True,), labels=[True], physicians=["a"], category="c")
        item = labelled.to_json()
        assert (item["labels"], item["physicians"], item["category"]) == ([True], ["a"], "c")
        assert "labels" not in made("p", (5,), (True,)).to_json()

    def test_has_no_number_that_json_lacks(self):
        item = made("p", (5,), (), status="ungraded").to_json()
        assert item["score"] is None
        json.dumps(item, allow_nan=False)
        assert math.isnan(record_from_json(item).score)


def test_the_record_of_a_row_keeps_what_the_row_says():
    metadata = {
        "prompt_id": "p",
        "messages": [{"role": "user", "content": "hi"}],
        "rubrics": [{"criterion": "Greets.", "points": 5}],
        "theme": "t",
        "example_tags": ["theme:t"],
    }
    row = row_from_metadata(metadata)
    record = Record.of(row, "no_answer", None, score=0.0, split="eval", index=2)
    assert Row(
        record.prompt_id, record.messages, record.rubric, record.theme, record.example_tags
    ) == Row(row.prompt_id, row.messages, row.rubric, row.theme, row.example_tags)
    assert (record.status, record.answer, record.score) == ("no_answer", None, 0.0)
    assert record.key == ("eval", 2, "", "p")


class TestKey:
    """Of two records with the same key the later one counts."""

    def key(self, split: str, version: str, run: str, index: int = 3) -> tuple:
        fields = {"split": split, "weights": version, "run": run, "index": index}
        return made("p", (5,), (True,), **fields).key

    def test_a_rollout_made_again_has_that_of_the_lost_one(self):
        assert self.key("train", "40", "first") == self.key("train", "1", "second")
        assert self.key("train", "40", "first") != self.key("train", "40", "first", index=4)

    def test_an_evaluation_has_that_of_its_run_and_weights(self):
        assert self.key("eval", "2", "first") == self.key("eval", "2", "first")
        assert self.key("eval", "2", "first") != self.key("eval", "2", "second")
        assert self.key("eval", "2", "first") != self.key("eval", "3", "first")

    def test_a_record_of_an_older_form_has_that_of_its_version(self):
        assert self.key("train", "2", "") == ("train", 3, "2", "p")
        assert self.key("eval", "2", "") == ("eval", 3, "2", "p")


GOOD = made("p", (5, -3), (True, None)).to_json()
VERDICT = {"met": True, "probability": None, "explanation": ""}


class TestRefusals:
    """What is no record is refused in one line that its reader completes with the place."""

    @pytest.mark.parametrize(
        "item",
        [
            None,
            [],
            {},
            "record",
            GOOD | {"status": "fine"},
            GOOD | {"status": None},
            GOOD | {"score": None},
            GOOD | {"score": "1"},
            GOOD | {"score": True},
            GOOD | {"verdicts": [VERDICT]},
            GOOD | {"verdicts": [VERDICT, {"met": True, "because": "x"}]},
            GOOD | {"verdicts": None},
            GOOD | {"rubrics": None},
            GOOD | {"rubrics": [{"criterion": "x"}]},
            GOOD | {"first_tokens": {"tokens": 1}},
        ],
    )
    def test_in_one_line(self, item):
        with pytest.raises(DataError, match=r"^not a verdict record; ") as error:
            record_from_json(item)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("name", ["prompt_id", "split", "index", "weight_version", "status"])
    def test_without_what_identifies_an_answer(self, name):
        with pytest.raises(DataError, match="not a verdict record"):
            record_from_json({key: value for key, value in GOOD.items() if key != name})


class TestFirstForm:
    def test_of_a_training_run(self):
        graded, truncated, ungraded, _ = map(record_from_json, old_form.TRAINING)
        assert graded.verdicts == [Verdict(True, 0.9), Verdict(None), Verdict(False, 0.25)]
        assert graded.rubric[2] == Criterion("says 2 (-4)", -4, ("axis:accuracy",))
        assert graded.key == ("train", 15, "1", "p0")
        assert (graded.grader, graded.grader_versions) == ("policy", ["0"])
        assert graded.first_tokens == TokenCounts(218, 3, 1)
        assert graded.policy_tokens is None
        assert graded.messages == ()
        assert (truncated.status, truncated.score, truncated.verdicts) == ("truncated", 0.0, [])
        assert ungraded.error.endswith("too long")
        assert math.isnan(ungraded.score)

    def test_of_an_evaluation(self):
        graded, no_answer, ungraded = map(record_from_json, old_form.EVALUATION)
        explanations = [verdict.explanation for verdict in graded.verdicts]
        assert explanations == ["because 0", "because 1", "because 2"]
        assert graded.messages == ({"role": "user", "content": "question 0"},)
        assert graded.policy_tokens == TokenCounts(100, 0, 7)
        assert graded.grader == ""
        assert (no_answer.answer, no_answer.score) == (None, 0.0)
        assert (ungraded.answer, ungraded.policy_tokens) == (None, None)

    @pytest.mark.parametrize("item", [*old_form.TRAINING, *old_form.EVALUATION])
    def test_is_the_same_record_in_the_present_form(self, item):
        record = record_from_json(item)
        assert record_from_json(record.to_json()) == record

    @pytest.mark.parametrize(
        "changes",
        [
            {"verdicts": [True, None]},
            {"probabilities": [0.9]},
            {"explanations": ["", "", "", ""]},
        ],
    )
    def test_with_lists_of_other_lengths_is_refused(self, changes):
        with pytest.raises(DataError, match="not a verdict record"):
            record_from_json(old_form.TRAINING[0] | changes)

    def test_may_lack_probabilities_and_explanations(self):
        item = {**old_form.TRAINING[0]}
        del item["probabilities"], item["explanations"]
        assert record_from_json(item).verdicts == [Verdict(True), Verdict(None), Verdict(False)]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_id": ["p"]},
        {"weight_version": None},
        {"index": {}},
        {"answer": 5},
        {"messages": [{"role": "user"}]},
        {"rubrics": [{"criterion": "a", "points": "6", "tags": []}]},
        {"rubrics": [{"criterion": "a", "points": float("nan"), "tags": []}]},
        {"rubrics": [{"criterion": "a", "points": 10**400, "tags": []}]},
        {"rubrics": [{"criterion": "a", "points": 6, "tags": [None]}]},
        {"verdicts": ["x"]},
        {"verdicts": [{"met": "true"}]},
        {"verdicts": [{"met": True, "probability": "0.9"}]},
        {"verdicts": [{"met": True, "certainty": 0.9}]},
        {"first_tokens": {"prompt": "1"}},
        {"seconds": "long"},
        {"run": None},
        {"rollout": "7"},
        {"time": "2026-11-22"},
        {"time": -1.0},
        {"time": 1e300},
        {"labels": ["yes"]},
    ],
    ids=str,
)
def test_a_record_with_a_field_of_another_type_is_none(change):
    good = Record("p", (Criterion("a", 6),), "graded", "Hi.", 1.0, [Verdict(True)]).to_json()
    assert record_from_json(good)
    with pytest.raises(DataError, match="not a verdict record"):
        record_from_json(good | change)
