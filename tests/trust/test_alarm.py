"""The alarm: silent in healthy runs, soon in runs whose grader or policy goes wrong."""

import math
import random
from dataclasses import replace

import pytest
from doubles.simulated_runs import EVERY, ONSET, World, evaluations, first_alarm

from rubric_rl.data.training_settings import Trust
from rubric_rl.trust import alarm as command
from rubric_rl.trust.alarm import (
    alarm_of,
    anchor_levels,
    best_rollout,
    findings_at,
    paired_difference,
)
from rubric_rl.trust.evaluations import Evaluation, JudgedAnswer, store, stored

WARN = Trust(alarm="warn")
RISING = World(rise=0.4)
AT_ONSET = ONSET // EVERY  # the number of the last evaluation before it


@pytest.mark.parametrize("world", [World(), RISING], ids=["flat", "rising"])
def test_no_false_alarm_in_healthy_runs(world):
    assert [first_alarm(world, seed, WARN) for seed in range(5)] == [None] * 5


@pytest.mark.parametrize("mistakes", [0.03, 0.1])
@pytest.mark.parametrize("rise", [0.0, 0.4])
def test_no_false_alarm_where_grader_and_anchor_often_differ(mistakes, rise):
    """What is newly credited is rarely met, and so credited falsely more often than the rest."""
    world = World(rise=rise, mistakes=mistakes, rare=2)
    assert [first_alarm(world, seed, WARN) for seed in range(5)] == [None] * 5


@pytest.mark.parametrize("prompts", [1, 2, 3, 5])
def test_no_false_alarm_on_few_prompts(prompts):
    """Two prompts often change alike, which looks like no error at all."""
    few = {f"p{number}" for number in range(prompts)}
    for seed in range(5):
        seen = []
        for evaluation in evaluations(World(), seed):
            answers = [answer for answer in evaluation.answers if answer.prompt_id in few]
            probe = {prompt: evaluation.probe[prompt] for prompt in few}
            seen.append(replace(evaluation, answers=answers, probe=probe))
            assert alarm_of(seen, WARN) is None


def test_a_chance_too_small_for_a_number_fires_nothing():
    tiny = WARN.model_copy(update={"alarm_error": 1e-17})
    assert rules(World(fall=0.02), tiny) == set()


@pytest.mark.parametrize(
    "world",
    [
        replace(RISING, random_credit=1 / 3),
        World(random_credit=1 / 6),
        replace(RISING, quoting=0.2),
        replace(RISING, forgetting=0.06),
        World(fall=0.2),
        replace(RISING, pardons=True),
        replace(RISING, random_credit=1 / 3, mistakes=0.05, rare=2),
    ],
    ids=[
        *("random", "half of it, flat", "quoting", "forgetting", "falling", "pardons"),
        "random by a grader that errs",
    ],
)
def test_is_raised_within_two_evaluations(world):
    numbers = [first_alarm(world, seed, WARN) for seed in range(3)]
    assert all(number in (AT_ONSET + 1, AT_ONSET + 2) for number in numbers), numbers


def rules(world: World, trust: Trust = WARN) -> set[str]:
    alarm = alarm_of(list(evaluations(world, 0)), trust)
    return {finding.rule for finding in alarm.findings} if alarm else set()


def test_each_rule_sees_its_own():
    assert rules(World(fall=0.04)) == {"level"}
    assert rules(World(random_credit=0.4)) == {"exploitation"}
    assert rules(World(forgetting=0.03)) == {"probe"}


@pytest.mark.parametrize(
    "world, limits",
    [
        (World(fall=0.04), {"alarm_drop": 0.9}),
        (World(random_credit=0.4), {"alarm_exploitation": 0.9}),
        (World(forgetting=0.03), {"alarm_probe": 0.9}),
        (World(fall=0.04), {"alarm_error": 1e-15}),
    ],
)
def test_limits_are_those_of_the_settings(world, limits):
    assert rules(world, WARN.model_copy(update=limits)) == set()


def anchored_on(evaluation: Evaluation, prompts: set[str]) -> Evaluation:
    """The evaluation, had the anchor judged only the answers to these prompts."""
    answers = []
    for answer in evaluation.answers:
        if answer.prompt_id not in prompts:
            credits = {key: (own, None) for key, (own, _) in answer.credits.items()}
            answer = replace(answer, anchor_score=None, credits=credits)
        answers.append(answer)
    return replace(evaluation, answers=answers)


def firing(rule: str, seen: list[Evaluation]) -> list[int]:
    """The numbers of the evaluations at which the rule fires."""
    numbers = []
    for number in range(len(seen)):
        findings = findings_at(seen[: number + 1], WARN)
        if rule in [finding.rule for finding in findings]:
            numbers.append(number)
    return numbers


@pytest.mark.parametrize("number, prompts", [(0, 2), (1, 1), (1, 2), (2, 5), (4, 2)])
def test_an_evaluation_with_few_words_of_the_anchor_misleads_nobody(number, prompts):
    seen = list(evaluations(World(fall=0.04), 0))
    whole = firing("level", seen)
    easiest = sorted(anchor_levels(seen[number].answers).items(), key=lambda level: -level[1][0])
    seen[number] = anchored_on(seen[number], {prompt for prompt, _ in easiest[:prompts]})
    found = firing("level", seen)
    assert set(found) <= set(whole) and found[-2:] == whole[-2:]
    best = best_rollout(seen)
    assert best is not None and best != seen[number].rollout


def test_a_probe_that_was_cut_once_still_sees_a_later_fall():
    seen = list(evaluations(World(forgetting=0.03), 0))
    whole = firing("probe", seen)
    right = {prompt: pairs for prompt, pairs in seen[1].probe.items() if pairs == [1, 1]}
    seen[1].probe = dict(list(right.items())[:3])
    assert firing("probe", seen) == whole


def by_hand(rollout: int, scores: dict[str, float]) -> Evaluation:
    """An evaluation with the anchor's scores by prompt."""
    credits = {"c": (True, True)}
    answers = [
        JudgedAnswer("held", prompt, score, score, 100, credits) for prompt, score in scores.items()
    ]
    return Evaluation(rollout, str(rollout), answers)


def test_any_earlier_evaluation_will_do_as_the_reference():
    """The best one stands on half of the prompts alone, on which nothing has fallen."""
    easy = {f"easy {number}": 0.9 for number in range(20)}
    hard = {f"hard {number}": 0.5 for number in range(20)}
    fallen = {prompt: 0.1 + number / 100 for number, prompt in enumerate(hard)}
    parts = [easy | hard, easy, easy | fallen, easy | fallen]
    seen = [by_hand(number, part) for number, part in enumerate(parts)]
    assert firing("level", seen) == [3]


def cut(answer: JudgedAnswer) -> JudgedAnswer:
    """The answer, had it been cut at the length limit."""
    return replace(answer, score=0.0, anchor_score=0.0, credits={})


def test_answers_that_are_cut_lower_the_level():
    seen = list(evaluations(World(), 0))
    for evaluation in seen[6:]:
        answers = evaluation.answers
        evaluation.answers = [cut(each) if n % 2 else each for n, each in enumerate(answers)]
    assert firing("level", seen) == [7, 8, 9]
    for evaluation in seen[6:]:
        evaluation.answers = [cut(answer) for answer in evaluation.answers]
    assert firing("level", seen) == [6, 7, 8, 9]
    assert best_rollout(seen) in [evaluation.rollout for evaluation in seen[:6]]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_an_anchor_that_fails_leaves_no_level_of_cut_answers_alone(share):
    """A tenth of the answers are cut throughout; later the anchor judges a share of the rest."""
    for seed in range(3):
        seen = list(evaluations(World(), seed))
        for number, evaluation in enumerate(seen):
            answers = []
            for place, answer in enumerate(evaluation.answers):
                is_silent = number > 3 and place % 10 >= 10 * share
                credits = {key: (own, None) for key, (own, _) in answer.credits.items()}
                if (place + number) % 10 == 9:
                    answer = cut(answer)
                elif is_silent:
                    answer = replace(answer, anchor_score=None, credits=credits)
                answers.append(answer)
            evaluation.answers = answers
        assert firing("level", seen) == []


def test_an_anchor_without_a_verdict_is_called_blind(tmp_path):
    seen = [replace(each, anchor="judge") for each in evaluations(World(), 0)]
    assert firing("blind", seen) == []
    for number in (0, 1, 2, 5, 7, 8):
        seen[number] = anchored_on(seen[number], set())
    assert firing("blind", seen) == [1, 2, 8]
    alarm = alarm_of(seen[:3], WARN)
    assert alarm is not None and not alarm.ends_a_run
    assert alarm.since == seen[1].rollout
    text = alarm.text(tmp_path)
    assert "the anchor is blind" in text and "bring the anchor back" in text
    assert "no verdict of the anchor, judge, in the last two evaluations" in text
    assert "can no longer be trusted" not in text


def credited_again(seen: list[Evaluation], share: float) -> list[Evaluation]:
    """The run, had its grader come to credit this share of what it credited a prompt with once."""
    once = {}
    for answer in seen[0].answers:
        of_prompt = once.setdefault(answer.prompt_id, set())
        of_prompt.update(key for key, (own, _) in answer.credits.items() if own)
    rng = random.Random(0)
    changed = []
    for number, evaluation in enumerate(seen):
        answers = []
        for answer in evaluation.answers:
            credits = dict(answer.credits)
            for key, (own, anchors) in credits.items():
                believes = key in once[answer.prompt_id] and rng.random() < share
                credits[key] = (own or (number > AT_ONSET and believes), anchors)
            answers.append(replace(answer, credits=credits))
        changed.append(replace(evaluation, answers=answers))
    return changed


def test_a_grader_that_comes_to_believe_what_it_credited_at_times_is_seen():
    """Nothing is newly credited then."""
    for seed in range(3):
        seen = list(evaluations(World(), seed))
        assert firing("exploitation", credited_again(seen, 0.0)) == []
        assert firing("exploitation", credited_again(seen, 0.33))[0] == AT_ONSET + 1


def unanimous(evaluation: Evaluation, credited: bool) -> Evaluation:
    """The evaluation, had the anchor said the same of everything."""
    answers = []
    for answer in evaluation.answers:
        credits = {key: (own, credited) for key, (own, _) in answer.credits.items()}
        answers.append(replace(answer, anchor_score=float(credited), credits=credits))
    return replace(evaluation, answers=answers)


@pytest.mark.parametrize("credited", [False, True])
def test_an_anchor_that_says_the_same_of_everything_is_called_blind(tmp_path, credited):
    seen = [replace(each, anchor="judge") for each in evaluations(RISING, 0)]
    alike = [unanimous(evaluation, credited) for evaluation in seen]
    assert firing("blind", alike) == list(range(len(seen)))
    assert firing("level", alike) == firing("exploitation", alike) == []
    alarm = alarm_of(alike, WARN)
    assert alarm is not None and not alarm.ends_a_run
    assert "the anchor, judge, says the same of all answers" in alarm.text(tmp_path)


@pytest.mark.parametrize("credited", [False, True])
@pytest.mark.parametrize("answers", [1, 2])
def test_an_anchor_that_comes_to_say_the_same_of_everything_ends_no_run(credited, answers):
    """At the first such evaluation, and also after it sees again."""
    seen = [replace(each, anchor="judge") for each in evaluations(RISING, 0)]
    for evaluation in seen:
        evaluation.answers = evaluation.answers[:: 3 - answers]
    for number in (4, 7, 8):
        seen[number] = unanimous(seen[number], credited)
    assert firing("blind", seen) == [4, 7, 8]
    assert firing("level", seen) == firing("exploitation", seen) == []
    assert best_rollout(seen) not in [seen[number].rollout for number in (4, 7, 8)]


def stricter(evaluation: Evaluation) -> Evaluation:
    """The evaluation by another anchor, which rejects every third answer as a whole."""
    answers = []
    for number, answer in enumerate(evaluation.answers):
        if number % 3 == 0:
            credits = {key: (own, False) for key, (own, _) in answer.credits.items()}
            answer = replace(answer, anchor_score=0.0, credits=credits)
        answers.append(answer)
    return replace(evaluation, answers=answers, anchor="another")


def test_another_anchor_is_held_against_its_own_past_alone():
    """Taken where the first one was blind, as the alarm advises; the level and credit are its."""
    for seed in range(3):
        seen = [replace(each, anchor="judge") for each in evaluations(World(), seed)]
        seen[5:] = [stricter(evaluation) for evaluation in seen[5:]]
        assert all(firing(rule, seen) == [] for rule in ("level", "exploitation", "blind"))
        assert best_rollout(seen) in [evaluation.rollout for evaluation in seen[5:]]
        same = [replace(evaluation, anchor="judge") for evaluation in seen]
        assert firing("exploitation", same)[0] == 5
    alone = [replace(each, anchor="judge") for each in evaluations(World(), 0)]
    alone[4], alone[5] = anchored_on(alone[4], set()), anchored_on(stricter(alone[5]), set())
    assert firing("blind", alone) == [], "each has failed once"


def test_an_alarm_stands_since_its_first_rule_also_where_another_anchor_came_later():
    seen = [replace(each, anchor="judge") for each in evaluations(World(random_credit=0.4), 0)]
    sunk = {prompt: (0.0, whole) for prompt, (_, whole) in seen[-1].probe.items()}
    seen[-1] = replace(seen[-1], anchor="another", probe=sunk)
    alarm = alarm_of(seen, WARN)
    assert alarm is not None
    assert [finding.rule for finding in alarm.findings] == ["probe"]
    assert alarm.since == seen[firing("exploitation", seen)[0]].rollout < seen[-2].rollout


def test_an_anchor_that_judges_less_than_three_quarters_is_called_blind(tmp_path):
    """As where the answers that fool the policy make the anchor refuse, or run out of time."""
    seen = [replace(each, anchor="judge") for each in evaluations(World(), 0)]
    most = {f"p{number}" for number in range(61)}
    few = {f"p{number}" for number in range(55)}
    assert firing("blind", [anchored_on(each, most) for each in seen]) == []
    seen[5:7] = [anchored_on(each, few) for each in seen[5:7]]
    assert firing("blind", seen) == [6]
    alarm = alarm_of(seen[:7], WARN)
    assert alarm is not None and not alarm.ends_a_run
    assert "the anchor, judge, judged 220 of 320 answers" in alarm.text(tmp_path)


def test_an_anchor_that_nobody_could_ask_is_not_blind():
    seen = [anchored_on(evaluation, set()) for evaluation in evaluations(World(), 0)]
    assert firing("blind", seen) == [], "a run with a probe alone"
    seen = [replace(each, anchor="judge") for each in evaluations(World(), 0)]
    for evaluation in seen[2:4]:
        evaluation.answers = [cut(answer) for answer in evaluation.answers]
        evaluation.anchor = ""  # was asked about none of them
    assert firing("blind", seen) == []


def test_cut_answers_alone_are_no_level_without_an_anchor():
    seen = [anchored_on(evaluation, set()) for evaluation in evaluations(World(), 0)]
    seen[2].answers = [cut(answer) for answer in seen[2].answers]
    assert best_rollout(seen) is None


def test_a_first_evaluation_of_cut_answers_is_no_reference_for_new_credit():
    seen = list(evaluations(World(random_credit=0.4), 0))
    whole = firing("exploitation", seen)
    seen[0].answers = [cut(answer) for answer in seen[0].answers]
    assert firing("exploitation", seen) == whole


def test_new_credit_is_held_against_the_first_evaluation_with_the_anchors_verdicts():
    seen = list(evaluations(World(random_credit=0.4), 0))
    whole = firing("exploitation", seen)
    assert whole[0] == AT_ONSET + 1
    for prompts in (set(), {"p0", "p1"}):
        seen[0] = anchored_on(seen[0], prompts)
        assert firing("exploitation", seen) == whole


def test_an_alarm_that_stands_reads_each_evaluation_no_more_than_twice(monkeypatch):
    """Once for the rules, once for the best; for each of those since when it stands is too long."""
    read = []
    levels = command.anchor_levels
    monkeypatch.setattr(command, "anchor_levels", lambda some: read.append(1) or levels(some))
    seen = list(evaluations(World(random_credit=0.33), 0))
    alarm = alarm_of(seen, WARN)
    assert alarm is not None and alarm.since == seen[AT_ONSET + 1].rollout
    assert len(read) <= 2 * len(seen)


def test_says_since_when_and_the_best_and_what_to_do(tmp_path):
    seen = list(evaluations(World(random_credit=0.4, fall=0.05), 0))
    alarm = alarm_of(seen, WARN)
    assert alarm is not None
    assert alarm.rollout == seen[-1].rollout
    assert alarm.since == seen[AT_ONSET + 1].rollout
    assert alarm.best is not None and alarm.best <= seen[AT_ONSET].rollout
    text = alarm.text(tmp_path)
    assert "seen: held: of " in text
    assert f"since: the evaluation after rollout {alarm.since}\n" in text
    assert f"best by the anchor: after rollout {alarm.best}" in text
    assert "grader_alarm: warn" in text and "rubric_rl.report" in text


@pytest.mark.parametrize(
    "number, best",
    [(0, "before the first rollout: the start"), (1, "after rollout 3 (no checkpoint")],
)
def test_the_best_may_be_the_start(tmp_path, number, best):
    seen = list(evaluations(World(random_credit=0.4), 0))
    perfect = [replace(answer, anchor_score=1.0) for answer in seen[number].answers]
    seen[number].answers = perfect
    for evaluation in seen:
        store(tmp_path, evaluation)
    alarm = alarm_of(stored(tmp_path), WARN)
    assert alarm is not None
    assert f"best by the anchor: {best}" in alarm.text(tmp_path)


def test_names_a_checkpoint_that_is_there(tmp_path):
    assert "no checkpoint" in command.checkpoint_before(tmp_path, 9)
    (tmp_path / "iter_0000004").mkdir()
    assert command.checkpoint_before(tmp_path, 9) == str(tmp_path / "iter_0000004")


def test_the_command_asks_the_rules_of_a_stored_run(tmp_path, capsys):
    for evaluation in evaluations(World(random_credit=0.4), 0):
        store(tmp_path, evaluation)
    assert command.main([str(tmp_path)]) == 3
    assert "the anchor rejects" in capsys.readouterr().out
    config = tmp_path / "grader.yaml"
    config.write_text("grader_alarm_exploitation: 0.9\n")
    assert command.main([str(tmp_path), "--grader-config", str(config)]) == 0


def test_the_command_refuses_a_folder_without_evaluations(tmp_path, capsys):
    assert command.main([str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr().err
    assert "nowhere: no evaluations are kept there; name the SAVE_PATH" in said


def test_an_evaluation_alone_or_without_an_anchor_says_nothing():
    seen = list(evaluations(World(random_credit=0.9), 0))
    assert alarm_of([], WARN) is None
    assert alarm_of(seen[-1:], WARN) is None
    for evaluation in seen:
        evaluation.probe = None
        unjudged = []
        for one in evaluation.answers:
            credits = {key: (own, None) for key, (own, _) in one.credits.items()}
            unjudged.append(replace(one, anchor_score=None, credits=credits))
        evaluation.answers = unjudged
    assert alarm_of(seen, WARN) is None


def test_the_difference_is_paired_by_prompt():
    """What makes one prompt harder than another cancels out."""
    first = {f"p{number}": (float(number), 1) for number in range(9)}
    second = {prompt: (part - 0.25, whole) for prompt, (part, whole) in first.items()}
    difference, error, prompts = paired_difference(first, second | {"other": (9.0, 1)})
    assert difference == pytest.approx(0.25)
    assert error == pytest.approx(0, abs=1e-9)
    assert prompts == 9
    assert paired_difference(first, {"p0": (1.0, 1)})[1] == math.inf
