"""The page of a training run: its curves, answers at their points, and its size."""

import re
from pathlib import Path

import pytest
from doubles.judged import HONEST, LENIENT, records
from doubles.records import made
from doubles.training_run import write_training_run

from rubric_rl.data.record_file import append_record
from rubric_rl.data.training_settings import PLAIN, RewardRule, Trust
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.report import __main__ as command
from rubric_rl.report import training_view
from rubric_rl.report.write_report import write_training_report
from rubric_rl.trust import alarm
from rubric_rl.trust.evaluations import evaluation_of, store


@pytest.fixture
def page(tmp_path) -> Path:
    return write_training_report(
        write_training_run(tmp_path / "run"), ScoringRule(), tmp_path / "page"
    )


def curve(blocks: dict, title: str, name: str) -> list[tuple[float, float]]:
    (chart,) = [chart for chart in blocks["curves"] if chart["title"].startswith(title)]
    (series,) = [series for series in chart["series"] if series["name"] == name]
    return [(point["x"], point["y"]) for point in series["points"]]


def test_curves_are_those_of_the_records(page, data):
    blocks = data(page)
    assert curve(blocks, "Score", "reward, training") == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert curve(blocks, "Score", "reward, held out") == [(0, 0.25), (3, 0.75)]
    assert curve(blocks, "Score", "anchor, held out") == [(0, 0.25), (3, 0.25)]
    assert curve(blocks, "Gap", "gap, held out") == [(0, 0.0), (3, 0.5)]
    assert curve(blocks, "Exploitation", "exploitation, held out") == [(3, 1.0)]
    assert curve(blocks, "Probe", "accuracy, held out") == [(0, 0.75), (3, 0.75)]
    assert curve(blocks, "Seconds per rollout", "step, training") == [(1, 9.0)]
    assert curve(blocks, "True score", "true score, training") == [(1, 0.25)]


def scores(blocks: dict) -> dict[str, list[tuple[float, float]]]:
    """The curves of the first chart, by name."""
    (chart,) = [chart for chart in blocks["curves"] if chart["title"] == "Score"]
    names = [series["name"] for series in chart["series"]]
    return {name: curve(blocks, "Score", name) for name in names}


COSTLY = RewardRule(length_cost=50.0)  # each of the ten characters takes off 1


def test_a_reward_by_another_rule_is_told_from_the_plain_score(tmp_path, data):
    run = write_training_run(tmp_path / "run", rule=COSTLY)
    page = write_training_report(run, ScoringRule(), tmp_path / "page")
    rewards, plain = [(0, 0.0), (1, 0.0), (2, 0.0)], [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert scores(data(page)) == {
        "reward, training": rewards,
        "plain score, training": plain,
        "plain score, held out": [(0, 0.25), (3, 0.75)],
        "anchor, held out": [(0, 0.25), (3, 0.25)],
    }
    assert "rewarded by: length_cost=50.0" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "rule, of_run, names",
    [
        (
            ScoringRule(recorded=True),
            COSTLY,
            ["reward, training", "plain score, held out"],
        ),
        (ScoringRule(recorded=True), PLAIN, ["reward, training", "reward, held out"]),
        (
            ScoringRule(clip=True),
            PLAIN,
            [
                "reward, training",
                "reward, held out",
                "score by clip, training",
                "score by clip, held out",
            ],
        ),
    ],
)
def test_a_curve_is_named_by_the_rule_that_made_it(tmp_path, data, rule, of_run, names):
    run = write_training_run(tmp_path / "run", rule=of_run)
    page = write_training_report(run, rule, tmp_path / "page")
    assert list(scores(data(page))) == [*names, "anchor, held out"]


@pytest.mark.parametrize(
    "trust, heading",
    [
        (Trust(alarm="stop"), "Alarm, by the limits of the run"),
        (None, "Alarm, by the default limits: the run kept none"),
        (Trust(alarm_exploitation=1.5, alarm_drop=1.5), ""),
    ],
)
def test_the_alarm_is_that_of_the_runs_own_limits(tmp_path, capsys, trust, heading):
    run = write_training_run(tmp_path / "run", trust=trust)
    text = write_training_report(run, ScoringRule(), tmp_path / "page").read_text(encoding="utf-8")
    assert heading in text
    alarm.main([str(run)])
    for said in (text, capsys.readouterr().out):
        assert ("can no longer be trusted" in said) == bool(heading)


@pytest.mark.parametrize("first", [0, 1])
def test_the_evaluations_around_the_first_rollout_are_two_points(tmp_path, data, first):
    """The trainer without a GPU, which writes eval.jsonl, counts weights from 0, slime from 1."""
    if first == 0:
        (tmp_path / "eval.jsonl").touch()
    append_record(tmp_path / "verdicts", made("p", (1,), (True,), split="train"))
    for rollout, weights, mets in ((0, first, HONEST), (0, first + 1, LENIENT)):
        judged = records(mets, str(weights))
        for record in judged["held"]:
            record.rollout, record.run = rollout, "r"
            append_record(tmp_path / "verdicts", record)
        store(tmp_path, evaluation_of(rollout, judged, {"q": [3, 4]}))
    blocks = data(write_training_report(tmp_path, ScoringRule(), tmp_path / "page"))
    assert curve(blocks, "Score", "reward, held out") == [(0, 0.25), (1, 0.75)]
    assert curve(blocks, "Probe", "accuracy, held out") == [(0, 0.75), (1, 0.75)]


def test_an_evaluation_that_was_made_again_takes_the_place_of_the_lost_one(tmp_path, data):
    """slime's weights have another version after a new start, and the start another run."""
    run = write_training_run(tmp_path / "run")
    judged = records(HONEST, "1")
    for record in judged["held"]:
        record.rollout, record.run = 2, "again"
        append_record(run / "verdicts", record)
    store(run, evaluation_of(2, judged, {"q": [3, 4]}))
    blocks = data(write_training_report(run, ScoringRule(), tmp_path / "page"))
    assert curve(blocks, "Score", "reward, held out") == [(0, 0.25), (3, 0.25)]
    shown = blocks["point_eval_3"]
    assert shown["heading"] == "evaluation after 3 rollouts: 4 of 30 answers"
    assert {item["answers"][0]["score"] for item in shown["items"]} == {0.25}


def test_a_point_shows_answers_with_both_verdicts(page, data):
    shown = data(page)["point_eval_3"]
    assert shown["heading"] == "evaluation after 3 rollouts: 4 of 30 answers"
    (answer,) = shown["items"][0]["answers"]
    assert [verdict["met"] for verdict in answer["verdicts"]] == list(LENIENT)
    assert [verdict["met"] for verdict in answer["anchor"]["verdicts"]] == list(HONEST)
    assert shown["items"][0]["messages"]


def test_says_what_is_left_out_and_the_alarm(page):
    text = page.read_text(encoding="utf-8")
    assert "20 of 96 answers are on this page: at 5 of 5 points, at most 4 each" in text
    assert "the reward can no longer be trusted" in text


def test_a_long_run_and_long_texts_make_no_large_page(tmp_path, monkeypatch, data):
    monkeypatch.setattr(training_view, "POINTS", 2)
    run = write_training_run(tmp_path / "run", hostile="x" * 100_000, rollouts=6)
    page = write_training_report(run, ScoringRule(), tmp_path / "page")
    points = [name for name in data(page) if name.startswith("point_train")]
    assert len(points) <= 2 and "point_train_5" in points, "the last rollout is among them"
    assert page.stat().st_size < 150_000
    assert "(cut)" in page.read_text(encoding="utf-8")


def test_hostile_text_is_data_and_nothing_from_outside_is_needed(tmp_path, hostile, without_data):
    run = write_training_run(tmp_path / "run", hostile)
    page = write_training_report(run, ScoringRule(), tmp_path / "page")
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 1 + 1 + 5
    outside = without_data(text)
    assert "onerror" not in outside
    assert not re.search("https?://(?!www.w3.org/2000/svg)", outside)
    assert "style=" not in text


def test_the_command_makes_it_of_a_save_path(tmp_path, monkeypatch, capsys):
    run = write_training_run(tmp_path / "run")
    monkeypatch.setattr("sys.argv", ["report", str(run)])
    assert command.main() == 0
    assert capsys.readouterr().out == f"wrote {run / 'report.html'}\n"
    monkeypatch.setattr("sys.argv", ["report", str(run), "--weights", "3"])
    assert command.main() == 0
    assert (run / "report.md").exists(), "the records of one policy, as before"


@pytest.mark.parametrize("line", ["5", '"step"', "[1]", "null"])
def test_a_damaged_log_is_one_line_that_names_it(tmp_path, monkeypatch, capsys, line):
    run = write_training_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as log:
        log.write(f"{line}\n")
    monkeypatch.setattr("sys.argv", ["report", str(run)])
    assert command.main() == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert f"{run / 'metrics.jsonl'}:2: no object of JSON; restore the file" in error


@pytest.mark.parametrize(
    "more, complaint",
    [
        (["--out", "."], "--out .: names no file"),
        (["--examples", "5"], "--examples changes nothing on the page of a training run"),
        (["--against-weights", "1"], "--against-weights changes nothing"),
    ],
)
def test_what_means_nothing_there_is_refused(tmp_path, monkeypatch, capsys, more, complaint):
    run = write_training_run(tmp_path / "run")
    monkeypatch.setattr("sys.argv", ["report", str(run), *more])
    assert command.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
