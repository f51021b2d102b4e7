"""What runs say together: paired differences, intervals, the power, arms that were not run."""

import re

import pytest
from doubles.claims import result

from experiments import claims, figures, tables
from experiments.arms import ARMS, oracle_arm
from experiments.results import Result


def row_of(name: str, lines: list[str]) -> list[str]:
    (line,) = [line for line in lines if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_an_arm_that_was_not_run_is_said_not_to_be():
    lines = tables.arm_lines({"self": {1: result(0.5)}})
    assert row_of("oracle", lines)[1] == "not run"
    assert len(lines) == 2 + len(ARMS)


def test_an_arms_row_is_the_mean_of_its_seeds():
    of_seeds = {1: result(0.5, accuracy=0.9), 2: result(0.6, accuracy=0.8)}
    cells = row_of("self", tables.arm_lines({"self": of_seeds}))
    assert cells[1:5] == ["2", "0.200 -> 0.550", "0.071", "0.850"]
    assert cells[5] == "0.950, 0.930"
    assert cells[8:] == ["6.0", "3.0", "112"]  # medians; a rollout without a figure left out


def test_a_runs_result_is_the_mean_of_its_last_three_evaluations():
    found = result(0.5)
    found.evaluations[-1]["true"] = 0.8
    found.evaluations[0]["true"] = -9.0
    assert found.final("true") == pytest.approx(0.6)
    assert found.final("nothing") is None


def test_a_difference_is_paired_by_seed():
    ours = {1: result(0.50), 2: result(0.60), 3: result(0.70)}
    theirs = {1: result(0.40), 2: result(0.50), 9: result(0.0)}
    assert tables.differences(ours, theirs) == pytest.approx([0.10, 0.10])


def test_a_difference_is_paired_by_prompt():
    ours, theirs = result(0.5), result(0.4)
    ours.prompts = {"a": 1.0, "b": 0.0, "only ours": 0.0}
    theirs.prompts = {"a": 0.5, "b": 0.0, "only theirs": 1.0}
    assert tables.differences({1: ours}, {1: theirs}) == pytest.approx([0.25])


def comparison(selves: list[float], oracles: list[float]) -> list[str]:
    found = {
        "self": dict(enumerate(map(result, selves))),
        "oracle": dict(enumerate(map(result, oracles))),
    }
    return row_of("oracle", tables.comparison_lines(found))


def test_a_comparison_has_interval_and_power():
    cells = comparison([0.50, 0.50, 0.50], [0.55, 0.60, 0.65])
    # the mean 0.1, its error 0.05 / sqrt(3), Student's t of two degrees of freedom 4.303
    assert cells[3] == "+0.100 (-0.024 to +0.224)"
    # ((1.960 + 0.842) x 0.05 / 0.03)^2 + 1.921 = 23.7
    assert cells[5] == "24"


def test_a_wild_arm_at_the_higher_rate_leaves_the_power_of_the_others():
    found = {
        "self": dict(enumerate(map(result, [0.50, 0.50, 0.50]))),
        "oracle": dict(enumerate(map(result, [0.55, 0.60, 0.65]))),
        "self-fast": dict(enumerate(map(result, [0.10, 0.50, 0.60]))),
    }
    lines = tables.comparison_lines(found)
    assert row_of("oracle", lines)[5] == "24"
    assert int(row_of("self-fast", lines)[5]) > 500


def test_one_seed_has_no_interval():
    cells = comparison([0.5], [0.6])
    assert cells[3] == "+0.100 (one seed)" and cells[5] == "-"


def test_self_is_compared_with_no_arm_and_has_a_share_of_the_oracles_score():
    found = {"self": {1: result(0.45)}, "oracle": {1: result(0.5)}}
    cells = row_of("self", tables.comparison_lines(found))
    assert cells[1:] == ["-", "-", "-", "0.90 (one seed)", "-"]
    assert tables.comparison_lines({"self": {1: result(0.45)}}) == [
        "No two arms have a seed in common."
    ]


def test_an_arms_share_is_of_the_oracle_at_its_own_learning_rate():
    found = {
        "self": {1: result(0.5)},
        "oracle": {1: result(0.6)},
        "self-fast": {1: result(0.2)},
        "oracle-fast": {1: result(0.4)},
    }
    assert tables.shares("self", found) == pytest.approx([0.5 / 0.6])
    assert tables.shares("self-fast", found) == pytest.approx([0.5])
    assert tables.shares("oracle", found) == []
    assert tables.shares("weak", found) == []


@pytest.mark.parametrize(
    "name, best",
    [
        ("self", "oracle"),
        ("alarm-healthy", "practised-oracle"),
        ("alarm-fast", "practised-oracle-fast"),
        ("unpractised-frozen", "unpractised-oracle"),
        ("weak", None),
    ],
)
def test_an_arm_is_held_against_the_oracle_from_the_same_start(name, best):
    assert oracle_arm(name) == best


def test_an_alarm_is_told_by_arm_with_what_was_lost_by_then():
    silent, rang = result(0.5), result(0.5)
    for row in silent.evaluations:
        row["alarm"] = 0.0
    alarms = [(0.0, 0.3), (0.0, 0.6), (1.0, 0.55), (1.0, 0.2)]
    for row, (alarm, true) in zip(rang.evaluations, alarms, strict=True):
        row |= {"alarm": alarm, "true": true}
    found = {"self": {1: result(0.5)}, "alarm-fast": {1: silent, 2: rang}}
    _, _, *rows = tables.alarm_lines(found)
    assert rows == ["| alarm-fast | 1, 2 | never, 24 | -, 0.050 | 0.000, 0.400 |"]


def test_an_update_that_goes_too_far_rings_between_evaluations():
    rang = result(0.5)
    for row, true in zip(rang.evaluations, [0.3, 0.6, 0.55, 0.2], strict=True):
        row |= {"alarm": 0.0, "true": true}
    versions = [row["weight_version"] for row in rang.evaluations]
    rang.training["update"] = [None] + [0.01] * (versions[-1] - 1)
    rang.training["update"][versions[1] + 2] = 0.5
    rows = tables.alarm_lines({"alarm-fast": {1: rang}})
    assert rows[-1] == f"| alarm-fast | 1 | {versions[1] + 2} | 0.000 | 0.400 |"


def test_a_fall_is_told_beside_the_largest_update_before_it():
    steady, moved, older = result(0.5), result(0.5), result(0.5)
    versions = [row["weight_version"] for row in steady.evaluations]
    for found, far in ((steady, 0.001), (moved, 0.03)):
        found.training["moved"] = [far] * versions[-1]
        for row, true in zip(found.evaluations, [0.3, 0.6, 0.55, 0.2], strict=True):
            row["true"] = true
    moved.training["moved"][versions[1]] = 0.4  # the first rollout after the second evaluation
    found = {"self": {1: steady, 2: older}, "self-fast": {1: moved}}
    _, _, *rows = tables.update_lines(found)
    assert rows == [
        "| usual | up to 0.001 | 3 | -0.033 | 1 |",
        "| 1e-3 | 0.02 to 0.05 | 2 | -0.025 | 1 |",
        "| 1e-3 | from 0.1 on | 1 | -0.050 | 0 |",
    ]
    assert tables.update_lines({"self": {1: older}}) == [
        "No run has kept how far its updates moved the policy."
    ]


def test_a_large_update_warns_of_a_loss_that_comes_after_it():
    def run(true: list[float], large_at: int | None):
        found = result(0.5)
        versions = [row["weight_version"] for row in found.evaluations]
        found.training["moved"] = [0.01] * versions[-1]
        if large_at is not None:
            found.training["moved"][versions[large_at] - 1] = 0.1
        for row, score in zip(found.evaluations, true, strict=True):
            row["true"] = score
        return found

    falls, keeps = [0.3, 0.6, 0.5, 0.6], [0.3, 0.6, 0.6, 0.6]
    cases = [(falls, 2), (falls, 3), (falls, None), (keeps, 1), (keeps, None)]
    fast = {seed: run(*case) for seed, case in enumerate(cases)}
    found = {"self": {1: result(0.5), 2: run(keeps, None)}, "self-fast": fast}
    _, _, *rows = tables.warning_lines(found)
    assert rows == ["| usual | 1 | 0 | 0 | 0 |", "| 1e-3 | 5 | 3 | 1 | 1 |"]
    assert "No run has kept" in tables.warning_lines({"self": {1: result(0.5)}})[0]


def test_what_the_alarm_would_have_said_is_told_by_arm():
    silent, rang = result(0.5), result(0.5)
    silent.watched, rang.watched = [], [{"weight_version": 24, "rules": ["level"]}]
    for row, true in zip(rang.evaluations, [0.3, 0.6, 0.55, 0.2], strict=True):
        row["true"] = true
    found = {"self": {1: silent, 2: rang, 3: result(0.5)}, "oracle": {1: result(0.5)}}
    _, _, *rows = tables.watched_lines(found)
    assert rows == ["| self | 1, 2 | never, 24 | -, 0.050 | 0.000, 0.400 |"]


def test_a_figure_shows_where_the_alarm_first_rang_and_needs_its_first_arms(tmp_path):
    found = {}
    for name in ("alarm-healthy", "alarm-random"):
        found[name] = {1: result(0.5), 2: result(0.6)}
    assert figures.draw({"alarm-healthy": found["alarm-healthy"]}, tmp_path) == []
    assert figures.draw(found, tmp_path) == ["experiments_alarm.png"]
    silent = (tmp_path / "experiments_alarm.png").read_bytes()
    found["alarm-random"][1].evaluations[2]["alarm"] = 1.0
    figures.draw(found, tmp_path)
    assert (tmp_path / "experiments_alarm.png").read_bytes() != silent


def test_the_report_puts_tables_between_the_marks_alone(tmp_path, monkeypatch, capsys):
    page = tmp_path / "experiments.md"
    page.write_text(f"before\n{claims.BEGIN}\nstale\n{claims.END}\nafter\n")
    monkeypatch.setattr(claims, "PAGE", page)
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    (tmp_path / "asset").mkdir()
    assert claims.main(["--report", "--results", str(tmp_path / "none")]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert len(re.findall("not run", text)) == len(ARMS)
    again = text
    assert claims.main(["--report", "--results", str(tmp_path / "none")]) == 0
    assert page.read_text() == again


def test_a_result_needs_all_its_rows():
    with pytest.raises(ValueError):
        Result([{"kind": "run"}])
