"""What is kept of evaluations survives every restart; lost rollouts leave nothing behind."""

import pytest
from doubles.records import made, said
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.common.errors import DataError
from rubric_rl.data.schema import Anchored
from rubric_rl.trust.evaluations import Evaluation, drop_after, evaluation_of, store, stored

HEADING = '{"rollout": 0, "weights": "1", "probe": null}\n'
ANSWER = (
    '{"dataset": "held", "prompt_id": "p", "score": %s, "anchor_score": null, "length": 1, '
    '"credits": %s}'
)


def evaluation(rollout: int, weights: int) -> Evaluation:
    return Evaluation(rollout, str(weights))


def kept(save, last: float = 9999) -> list[tuple[int, str]]:
    return [(each.rollout, each.weights) for each in stored(save, last)]


def test_holds_verdicts_and_lengths_but_no_text(tmp_path):
    record = made("p", (5, -4), (True, None), answer="SECRET", weights="7")
    record.anchored = Anchored("judge", said(False, False), 0.0)
    silent = made("q", (1,), (True,), weights="7")
    cut = made("r", (1,), (), status="truncated", weights="7")
    lost = made("s", (1,), (), status="ungraded", weights="7")
    store(
        tmp_path, evaluation_of(3, {"held": [record, cut, lost], "other": [silent]}, {"q0": [1, 2]})
    )
    (after,) = stored(tmp_path)
    assert (after.rollout, after.weights, after.probe) == (3, "7", {"q0": [1, 2]})
    assert after.datasets == ["held", "other"]
    answer, of_cut = after.of("held")
    assert (of_cut.score, of_cut.anchor_score, of_cut.credits) == (0.0, 0.0, {})
    assert (of_cut.is_graded, answer.is_graded, answer.is_judged) == (False, True, True)
    assert (answer.score, answer.anchor_score, answer.length) == (1 / 5, 0.0, 6)
    own, anchors = zip(*answer.credits.values(), strict=True)
    assert (own, anchors) == ((True, False), (False, True)), "an unreadable verdict is no credit"
    assert [list(credit) for credit in after.of("other")[0].credits.values()] == [[True, None]]
    text = next((tmp_path / "evaluations").iterdir()).read_text()
    assert "SECRET" not in text and "says" not in text


def test_the_first_one_is_told_from_that_after_rollout_zero(tmp_path):
    store(tmp_path, evaluation(0, 1))
    store(tmp_path, evaluation(0, 2))
    assert kept(tmp_path) == [(0, "1"), (0, "2")]


@pytest.mark.parametrize("first", [0, 1])
def test_the_start_is_known_by_where_the_trainer_counts_from(tmp_path, first):
    if first == 0:
        (tmp_path / "eval.jsonl").touch()
    for rollout, weights in ((0, first), (0, first + 1), (1, first + 2)):
        store(tmp_path, evaluation(rollout, weights))
    assert [each.last_rollout for each in stored(tmp_path)] == [-1, 0, 1]


def test_of_rollouts_that_are_made_again_the_later_one_counts(tmp_path):
    """slime: killed after rollout 59, resumed after 40, where weight versions begin anew."""
    for rollout, weights in ((0, 1), (19, 21), (39, 41), (59, 61)):
        store(tmp_path, evaluation(rollout, weights))
    store(tmp_path, evaluation(59, 20))
    assert kept(tmp_path) == [(0, "1"), (19, "21"), (39, "41"), (59, "20")]
    store(tmp_path, evaluation(19, 3))
    assert kept(tmp_path) == [(0, "1"), (19, "3")]
    store(tmp_path, evaluation(0, 1))
    assert kept(tmp_path) == [(0, "1")]


def test_an_anchor_is_known_also_where_it_failed(tmp_path):
    record = made("p", (5,), (True,), weights="7")
    assert evaluation_of(3, {"held": [record]}, None).anchor == ""
    record.anchored = Anchored("judge", error="HTTP 500")
    store(tmp_path, evaluation_of(3, {"held": [record]}, None))
    (after,) = stored(tmp_path)
    assert after.anchor == "judge"
    assert [answer.is_judged for answer in after.answers] == [False]


def test_a_verdict_of_the_anchor_that_nobody_can_read_rejects_nothing(tmp_path):
    record = made("p", (5, -4), (True, False), weights="7")
    record.anchored = Anchored("judge", said(None, None), -4 / 5)
    store(tmp_path, evaluation_of(3, {"held": [record]}, None))
    ((answer,),) = [each.answers for each in stored(tmp_path)]
    assert list(answer.credits.values()) == [(True, None), (True, None)]


def test_a_run_that_goes_on_drops_what_it_makes_again(tmp_path):
    for rollout, weights in ((0, 0), (3, 4), (7, 8)):
        store(tmp_path, evaluation(rollout, weights))
    drop_after(tmp_path, 7)
    assert kept(tmp_path) == [(0, "0"), (3, "4")]
    assert kept(tmp_path, last=2) == [(0, "0")]
    drop_after(tmp_path, 0)
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '{"rollout": "last", "weights": "1", "probe": null}',
        '{"rollout": 0, "weights": 1, "probe": null}',
        '{"rollout": 0, "weights": "1", "probe": []}',
        '{"rollout": 0, "weights": "1", "probe": {"q": [1]}}',
        '{"rollout": 0, "weights": "1", "probe": {"q": "right"}}',
        HEADING + '{"prompt_id": "p"}',
        HEADING + ANSWER % ("null", "{}"),
        HEADING + ANSWER % ("NaN", "{}"),
        HEADING + ANSWER % ("0.5", "[]"),
        HEADING + ANSWER % ("0.5", '{"c": [true]}'),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text):
    store(tmp_path, evaluation(0, 1))
    (path,) = (tmp_path / "evaluations").iterdir()
    path.write_text(text + "\n")
    with pytest.raises(DataError, match=f"{path.name}: not what a run keeps"):
        stored(tmp_path)


STEPS = st.lists(st.integers(0, 5), min_size=1, max_size=8)


@given(STEPS)
def test_what_is_kept_is_in_order_and_ends_with_the_last(tmp_path_factory, rollouts):
    save = tmp_path_factory.mktemp("run")
    for weights, rollout in enumerate(rollouts):
        store(save, evaluation(rollout, weights))
    found = kept(save)
    assert found == sorted(found, key=lambda each: (each[0], int(each[1])))
    assert found[-1] == (rollouts[-1], str(len(rollouts) - 1))
