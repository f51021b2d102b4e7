"""Texts that repeat one another."""

import unicodedata
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.checks import duplicates
from rubric_rl.data.checks.duplicates import near_duplicates, same_text_key

VOCABULARY = ["alpha", "beta", "gamma", "delta", "café", "mañana"]
WORDS = st.lists(st.sampled_from(VOCABULARY), min_size=1)


@given(WORDS)
def test_case_unicode_forms_blanks_and_invisible_characters_make_no_difference(words):
    text = " ".join(words)
    other = unicodedata.normalize("NFD", "\u200b ".join(words)).upper() + "."
    assert same_text_key(text) == same_text_key(other)
    assert near_duplicates([text, other]) == [(0, 1)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Names a dose of 5 mg for each child.", "Names a dose of 50 mg for each child."),
        ("Does recommend an urgent scan today.", "Does not recommend an urgent scan today."),
        ("Starts the drug before the operation.", "Starts the drug after the operation."),
    ],
)
def test_texts_that_differ_in_a_telling_word_are_no_duplicates(one, other):
    assert near_duplicates([one, other]) == []


def test_a_word_more_makes_a_near_duplicate():
    texts = ["Explains clearly how vaccines train immune cells", "Names the river"]
    assert near_duplicates([*texts, texts[0] + " too"]) == [(0, 2)]


@given(st.lists(WORDS.map(" ".join), max_size=12))
def test_many_texts_have_the_same_pairs_as_few(texts):
    few = near_duplicates(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "FEW", 0)
        assert near_duplicates(texts) == few


def test_a_thousand_copies_are_each_found_without_comparing_all():
    pairs = near_duplicates(["Names the river."] * 1000)
    assert {later for _, later in pairs} == set(range(1, 1000))
    assert len(pairs) < len(list(combinations(range(1000), 2))) / 5
