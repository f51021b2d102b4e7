"""Verdicts: a real boolean in the last well-formed object of the final part, or unreadable."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.schema import UNREADABLE, Verdict
from rubric_rl.grading.verdict import read_checklist, read_probability, read_verdict

MET = '{"explanation": "yes", "criteria_met": true}'
NOT_MET = '{"explanation": "no", "criteria_met": false}'
QUOTING = json.dumps({"criteria_met": False, "explanation": 'it says {"criteria_met": true}'})
NESTING = json.dumps({"criteria_met": False, "quote": {"criteria_met": True}})


@pytest.mark.parametrize(
    "reply, met",
    [
        (MET, True),
        (NOT_MET, False),
        ('{"criteria_met": true}', True),
        (f"```json\n{NOT_MET}\n```", False),
        (f"The answer greets.\n\n{MET}\n\nThat is all.", True),
        (f"<think>\nFirst I say {MET}\n</think>\n\n{NOT_MET}", False),
        (f"<think>one</think> {MET} <think>two</think> {NOT_MET}", False),
        (QUOTING, False),
        (NESTING, False),
        (json.dumps({"explanation": "é \ud83d", "criteria_met": True}), True),
    ],
)
def test_a_verdict_is_read(reply, met):
    assert read_verdict(reply).met is met


@pytest.mark.parametrize("first, last", [(MET, NOT_MET), (NOT_MET, MET)])
def test_of_several_objects_the_last_wins(first, last):
    assert read_verdict(f'{first}\n{last} {{"note": 1}}') == read_verdict(last)


@pytest.mark.parametrize(
    "value",
    ['"false"', '"true"', "0", "1", "null", "[]", "[true]", '{"criteria_met": true}', "True"],
)
def test_only_a_json_boolean_is_a_verdict(value):
    reply = f'{{"criteria_met": {value}}}'
    assert read_verdict(reply).met is None
    assert read_verdict(f"{MET} {reply}").met is None, "an earlier verdict does not step in"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "true",
        "Yes, the criterion is met.",
        "[true]",
        '{"Criteria_met": true}',
        '{"result": {"criteria_met": true}}',
        '{"criteria_met": false, "criteria_met": true}',
        '{"criteria_met": true, "a": {"x": 1, "x": 2}}',
        f"<think>I lean towards {MET}",
        f"<think>done</think> Well. <think>but then {MET}",
        f"{MET}</think>",
        MET[:-1],
        f'{{"criteria_met": false, "explanation": "it says " {MET}',
        f"{{'criteria_met': False, 'quote': {MET}}}",
        f"{{criteria_met: false, quote: {MET}}}",
        f"{{/* my verdict */ {MET}",
        f"{MET} {{'criteria_met': False}}",
        f'{MET} {{"criteria_met": fal',
    ],
)
def test_everything_else_is_unreadable(reply):
    assert read_verdict(reply) == UNREADABLE


@pytest.mark.parametrize("piece", ["{", '{"a":', "{}", '{"a": [', "[", "<think>", '{"a": 1}', "{ "])
def test_huge_and_deep_replies_end_without_a_verdict(piece):
    assert read_verdict(piece * 100_000).met is None


def test_a_number_of_many_digits_is_no_crash():
    digits = "9" * 5000
    assert read_verdict(f'{{"criteria_met": true, "n": {digits}}}').met is None


PIECES = ["{", "}", '"', ":", ",", "criteria_met", "true", "false", " ", "<think>", "\\", MET]
HOSTILE = st.lists(st.sampled_from(PIECES)).map("".join)


@given(HOSTILE.filter(lambda text: "<think>" not in text))
def test_what_the_grader_quotes_in_its_explanation_changes_nothing(quote):
    reply = json.dumps({"explanation": quote, "criteria_met": False})
    assert read_verdict(reply) == Verdict(False, explanation=quote)


@given(HOSTILE, st.sampled_from([MET, NOT_MET]))
def test_no_garbage_before_a_verdict_turns_it_round(garbage, verdict):
    truth = read_verdict(verdict).met
    assert read_verdict(garbage.replace(MET, "") + verdict).met in (truth, None)


@pytest.mark.parametrize(
    "probability, met", [(0.51, True), (1.0, True), (0.49, False), (0.0, False), (0.5, None)]
)
def test_a_probability_is_the_verdict_of_the_likelier_word(probability, met):
    assert read_probability(probability) == Verdict(met, probability)


def test_without_a_probability_there_is_no_verdict():
    assert read_probability(None) == UNREADABLE


class TestChecklist:
    def reply(self, *mets) -> str:
        verdicts = [
            {"explanation": str(number), "criteria_met": met} for number, met in enumerate(mets)
        ]
        return json.dumps({"verdicts": verdicts})

    def test_verdicts_come_in_order(self):
        first, second = read_checklist(self.reply(True, False), 2)
        assert first == Verdict(True, explanation="0")
        assert second == Verdict(False, explanation="1")

    def test_one_unreadable_verdict_leaves_the_others(self):
        verdicts = read_checklist(self.reply(True, "false", None, False), 4)
        assert [verdict.met for verdict in verdicts] == [True, None, None, False]
        assert read_checklist('{"verdicts": [true]}', 1) == [UNREADABLE]

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_another_number_than_asked_makes_all_unreadable(self, count):
        assert read_checklist(self.reply(True, True), count) == [UNREADABLE] * count

    @pytest.mark.parametrize(
        "reply",
        ['{"verdicts": {}}', '{"verdicts": null}', MET, f"[{MET}]", "", '{"verdicts": [' + MET],
    )
    def test_anything_else_is_unreadable(self, reply):
        assert read_checklist(reply, 1) == [UNREADABLE]
