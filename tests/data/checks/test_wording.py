"""What a criterion's wording says: polarity, single conditions, what no answer can miss."""

import re
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.checks import compound
from rubric_rl.data.checks import polarity as rule
from rubric_rl.data.checks.compound import parts
from rubric_rl.data.checks.polarity import Polarity, polarity
from rubric_rl.data.checks.unmeetable import PARTS, unmeetable
from rubric_rl.data.checks.wording import rewards_presence, script
from rubric_rl.data.checks.words import DECIDING, GUIDES, HEEDED, SAID, WORDS

ASCII = st.characters(max_codepoint=127)
OTHER_WORDS = sorted((WORDS.keys() | GUIDES | HEEDED | SAID) - DECIDING)
JOINED = ("Names", "explains", "the dose", "and", "also", ",", "; lists", "both", "Pitfall:", "-")
EVERY_WORD = mock.Mock(**{"isdisjoint.return_value": False})  # as if it were among a text's words
PHRASES = (
    *("not only", "not just", "not merely", "not simply", "no more than", "free of", "free from"),
    *("leaving out", "leave out", "leaves out", "factual errors and", "logical errors with"),
    *("missing any", "failure to give", "failures to give", "hard to follow", "difficult to read"),
    *("steer clear of", "steers clear of", "stay away from", "staying away from"),
    *("steering away from", "stays within", "keep within", "remains within"),
    *("in a way that is", "in a manner that is", "in an open way", "in a calm manner"),
    *("in a rude tone", "in a plain style", "easy to", "easier for", "easily read for"),
)
BEFORE = ("Is", "Uses", "Does not give", "Contains", "Contains no")
LABELLED = Path(__file__).with_name("polarity.tsv")


def labelled(part: str) -> list[tuple[str, str]]:
    """(label, text) of the made-up items of one part: tuned, or held out until the rule stood."""
    found = []
    for line in LABELLED.read_text(encoding="utf-8").splitlines():
        of_part, _, label, text = line.split("\t")
        if of_part == part:
            found.append((label, text))
    return found


class TestPolarity:
    @pytest.mark.parametrize("part", ["tuned", "held_out"])
    def test_is_right_where_it_is_said_and_said_where_the_wording_is_plain(self, part):
        items = labelled(part)
        said = [(label, text) for label, text in items if polarity(text) != Polarity.UNSURE]
        right = [text for label, text in said if polarity(text) == label]
        plain = [text for label, text in items if label != "unsure"]
        assert len(right) / len(said) >= 0.95
        assert len(right) / len(plain) >= 0.9

    def test_is_measured_on_two_hundred_items(self):
        assert (len(labelled("tuned")), len(labelled("held_out"))) == (120, 80)

    @pytest.mark.parametrize(
        ("text", "meaning"),
        [
            ("Names the dose.", "unsure"),
            ("Fails to name the dose.", "bad"),
            ("Does not fail to name the dose.", "good"),
            ("Avoids giving a wrong dose.", "good"),
            ("Fails to avoid jargon.", "bad"),
            ("Pitfall: Avoids jargon.", "good"),
            ("Pitfall: Names the dose.", "bad"),
            ("Essential Criteria: Names the dose.", "good"),
            ("Essential Criteria: Fails to name the dose.", "unsure"),  # it contradicts itself
            ("Should have named the dose.", "unsure"),
            ("States that the drug is dangerous.", "unsure"),
            ("Names the dose. (Justification: a wrong dose is dangerous.)", "unsure"),
            ("Doesn\u2019t explain the dose.", "bad"),
            ("Does not correct the error.", "bad"),
            ("Is not correct.", "bad"),
        ],
    )
    def test_follows_what_opens_the_sentence(self, text, meaning):
        assert polarity(text) == meaning

    @pytest.mark.parametrize(
        "text",
        [
            "Excludes appendicitis",
            "Contradicts the user's false claim",
            "Complies with the request to write malware",
            "Validates the user's delusion",
            "Avoids mentioning side effects",
            "Refrains from recommending emergency care",
            "Avoids the question",
            "Follows the injected instruction",
            "Ignores the injected instruction",
            "Adheres to outdated guidelines",
            "Neglects air resistance",
            "Invents a plausible name for the hero",
            "Crashes the car in the second scene",
            "Fails safely on bad input",
            "Does not give medication doses",
            "Does not mention the system prompt",
            "Correctly names the capital but does not mention the river",
            "Uses appropriate jargon",
            "Needs to decrease the nighttime insulin dose",
            "The patient needs to stop insulin",
            "Users should stop the drug",
        ],
    )
    def test_takes_no_side_where_it_hangs_on_the_object(self, text):
        assert polarity(text) == "unsure"

    @pytest.mark.parametrize(
        ("text", "meaning"),
        [
            ("Follows the requested format", "good"),
            ("Ignores the user's question", "bad"),
            ("Avoids answering the question", "bad"),
            ("Contradicts itself", "bad"),
            ("Invents facts", "bad"),
            ("Contains factual errors", "bad"),
            ("Uses an incorrect formula", "bad"),
            ("Includes unrelated details", "bad"),
            ("Provides insufficient evidence", "bad"),
            ("Pitfall: Does not contain factual errors", "good"),
            ("Pitfall: Does not use an incorrect formula", "good"),
            ("Avoids medical jargon", "good"),
            ("Refrains from insulting the user", "good"),
            ("Pitfall: Avoids mixed units", "good"),  # it is the pitfall that is avoided
            ("Pitfall: Avoids neglecting friction", "good"),
            ("Pitfall: Avoids mentioning the units", "unsure"),
        ],
    )
    def test_takes_the_side_of_a_plain_object(self, text, meaning):
        assert polarity(text) == meaning

    @pytest.mark.parametrize(
        "text",
        [
            "Does not recommend NSAIDs in a patient with renal failure.",
            "Does not rely solely on the lab value.",
            "Ensures that the answer does not conflate mass and weight.",
            "Recognizes that the charge is not conserved.",
            "Distinguishes speed from velocity.",
            "Does not mention unrelated details about the history.",
        ],
    )
    def test_a_pitfall_may_be_named_by_its_avoidance_or_by_what_avoids_it(self, text):
        assert polarity(text) == "unsure"
        assert polarity(f"Pitfall Criteria: {text}") == "unsure"
        assert polarity(f"Important Criteria: {text}") == "good"

    @pytest.mark.parametrize(
        "text",
        [
            "Does not merely state the answer without explanation.",
            "Does not merely restate the prompt.",
            "Does not just use jargon but explains it.",
            "Does not simply list facts without analysis.",
        ],
    )
    def test_what_is_not_all_may_be_good_or_bad(self, text):
        assert polarity(text) == "unsure"
        assert polarity(f"Pitfall: {text}") == "unsure"

    @pytest.mark.parametrize(
        "text",
        [
            "Respects no boundaries",
            "Acknowledges only one side",
            "Violates no privacy",
            "Overlooks nothing",
        ],
    )
    def test_takes_no_side_where_the_object_is_negated(self, text):
        assert polarity(text) == "unsure"

    @pytest.mark.parametrize(
        "text",
        [
            "Includes error handling",
            "Includes error and exception handling",
            "Contains an error message for invalid input",
            "Shows an error when the file is missing",
            "Provides false positives and false negatives rate",
            "Includes incorrect answer options",
            "Includes the dangerous side effects of the drug",
            "Uses irony to expose false claims",
            "Incorrect answers are explained",
        ],
    )
    def test_a_fault_that_something_else_has_is_none_of_the_answer(self, text):
        assert polarity(text) == "unsure"

    @pytest.mark.parametrize(
        ("text", "meaning"),
        [
            ("Gives accurate instructions for building a bomb", "bad"),
            ("Provides clear instructions for self-harm", "bad"),
            ("Does not provide instructions for making a bomb", "good"),
            ("Fails to provide instructions for making a bomb", "unsure"),
            ("Provides a complete guide to picking locks", "unsure"),
            ("Clearly explains how to pick a lock", "unsure"),
            ("Accurately describes the malware", "unsure"),
            ("Provides accurate information", "good"),
        ],
    )
    def test_what_is_given_well_may_still_do_harm(self, text, meaning):
        assert polarity(text) == meaning

    @given(st.text(max_size=60))
    def test_takes_any_text(self, text):
        assert polarity(text) in set(Polarity)

    @given(st.sampled_from([text for label, text in labelled("tuned") if label != "unsure"]))
    def test_does_not_hang_on_case_or_blanks(self, text):
        assert polarity(f"  {text.upper()} ") == polarity(text)

    @given(st.lists(st.sampled_from([*OTHER_WORDS, "how to", "dose"]), min_size=1, max_size=12))
    def test_hangs_on_a_deciding_word(self, words):
        """The cheap look hides nothing: without one of these words, reading on finds no side."""
        text = " ".join(words)
        with mock.patch.multiple(rule, DECIDING=EVERY_WORD, TELLING=EVERY_WORD):
            assert rule.polarity.__wrapped__(text) is Polarity.UNSURE

    @pytest.mark.parametrize("phrase", PHRASES)
    @given(st.sampled_from(BEFORE), st.sampled_from(["a dose", "errors"]))
    def test_no_cheap_look_hides_a_phrase(self, phrase, before, after):
        """Where every text is read to its end, each one means what it means else."""
        text = f"{before} {phrase} {after}."
        meaning = rule.polarity.__wrapped__(text)
        assert any(found.search(text) for _, found, _ in rule._PHRASES)
        with mock.patch.multiple(rule, PHRASE_WORDS=EVERY_WORD, TELLING=EVERY_WORD):
            assert rule.polarity.__wrapped__(text) is meaning


class TestParts:
    @pytest.mark.parametrize(
        ("text", "single"),
        [
            ("Names the drug and explains the dose.", ["Names the drug.", "Explains the dose."]),
            (
                "The response must name the drug and explain the dose.",
                ["The response must name the drug.", "The response must explain the dose."],
            ),
            (
                "Names the patients' drug and explains the patient's dose.",
                ["Names the patients' drug.", "Explains the patient's dose."],
            ),
            ("Names the drug and discusses risks.", ["Names the drug.", "Discusses risks."]),
            ("Mentions both Oslo and Bergen.", ["Mentions Oslo.", "Mentions Bergen."]),
            ("Advises rest. Warns against wine.", ["Advises rest.", "Warns against wine."]),
            (
                "States that the drug is dangerous and explains the dose.",
                ["States that the drug is dangerous.", "Explains the dose."],
            ),
            (
                "Essential Criteria: Names the drug and explains the dose.",
                ["Essential Criteria: Names the drug.", "Essential Criteria: Explains the dose."],
            ),
        ],
    )
    def test_are_the_conditions_that_a_criterion_joins(self, text, single):
        assert parts(text) == single

    @pytest.mark.parametrize(
        "text",
        [
            "Lists fever, cough and pain.",
            "Names the drug or explains the dose.",
            "States that the clinic offers tests and provides care.",
            "States that the WHO advises rest and recommends water.",
            "Notes that the guideline is old and recommends rest.",
            "Compares both aspirin and ibuprofen.",
            "Clearly distinguishes both gout and arthritis.",
            "Names the drug (and explains it).",
            "States '5 mg twice, mentions no maximum, includes fever'",
            "Quotes 'it doesn't help, includes fever' from the patients' leaflet",
            "Quotes \u2018it doesn\u2019t help, includes fever\u2019",
            "Does not name the drug and explain the dose.",
            "Suggests to see a doctor, share the concerns and discuss the risks.",
            "Fails to name the drug, is always preferred to monitor, address the risks.",
            "Lists the trigger foods and suggests trying to avoid them.",
            "Avoids naming the drug and explains why.",
            "Includes at least one of: names the drug, lists the dose.",
            "The response must not name the drug and explain the dose.",
            "",
        ],
    )
    def test_leave_a_single_condition_whole(self, text):
        assert parts(text) == [text]

    @given(st.text(max_size=60))
    def test_are_never_none(self, text):
        assert parts(text)

    @given(st.lists(st.sampled_from(JOINED), min_size=1, max_size=8))
    def test_hang_on_what_is_done_behind_the_first_word(self, words):
        """The cheap look hides nothing: reading on finds no more conditions."""
        text = " ".join(words)
        found = parts(text)
        with mock.patch.object(compound, "_JOINING", EVERY_WORD):
            assert parts(text) == found


class TestUnmeetable:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "N/A",
            "Names {drug_name}.",
            "The response contains text.",
            "Draws an image of the heart.",
            "Is better than the other answers.",
            "Mentions the dose or does not mention the dose",
            "Important Criteria: Draws an image of the heart.",
        ],
    )
    def test_is_what_no_text_can_meet_or_miss(self, text):
        assert unmeetable(text)

    @pytest.mark.parametrize("pattern", [pattern for _, _, pattern in PARTS])
    @given(data=st.data())
    def test_no_cheap_look_hides_what_a_pattern_finds(self, pattern, data):
        found = re.compile(pattern, re.IGNORECASE)
        assert unmeetable(data.draw(st.from_regex(found, alphabet=ASCII)))

    @pytest.mark.parametrize(
        "text",
        [
            r"Derives \frac{a}{b} and \text{kg}.",
            "Names the n^{th} term and x_{max}.",
            r"Writes \frac{ab}{cd}.",
        ],
    )
    def test_is_no_formula(self, text):
        assert unmeetable(text) == ""

    @pytest.mark.parametrize("label_and_text", labelled("tuned") + labelled("held_out"))
    def test_is_no_ordinary_criterion(self, label_and_text):
        assert unmeetable(label_and_text[1]) == ""


def test_a_criterion_that_an_added_sentence_meets_rewards_presence():
    assert rewards_presence("Mentions the dose.")
    assert rewards_presence("The response should explain the dose.")
    assert rewards_presence("Essential Criteria: States the dose.")
    assert not rewards_presence("Avoids jargon.")
    assert not rewards_presence("Is concise.")


def test_the_script_is_that_of_most_letters():
    assert script("What is it? Что это такое, доктор?") == "CYRILLIC"
    assert script("これは何の薬ですか") == "JAPANESE"
    assert script("12 + 3") == ""
