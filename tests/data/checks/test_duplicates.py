"""Texts that repeat one another."""

import unicodedata
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.checks import duplicates
from rubric_rl.data.checks.duplicates import near_duplicates

VOCABULARY = ["alpha", "beta", "gamma", "delta", "café", "mañana"]
WORDS = st.lists(st.sampled_from(VOCABULARY), min_size=1)


@given(WORDS)
def test_case_unicode_forms_blanks_and_invisible_characters_make_no_difference(words):
    text = " ".join(words)
    other = unicodedata.normalize("NFD", "\u200b ".join(words)).upper() + "."
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


def test_typographic_marks_make_no_difference():
    plain = "Says 'rest' - the child's dose - and \"why\"..."
    typographic = (
        "Says \u2018rest\u2019 \u2013 the child\u2019s dose \u2014 and \u201cwhy\u201d\u2026"
    )
    assert near_duplicates([plain, typographic]) == [(0, 1)]


def test_a_word_more_makes_a_near_duplicate():
    texts = ["Explains clearly how vaccines train immune cells", "Names the river"]
    assert near_duplicates([*texts, texts[0] + " too"]) == [(0, 2)]


@st.composite
def alike_texts(draw: st.DrawFn) -> list[str]:
    """Texts of which many repeat another one, but for a word, a number or a quotation mark."""
    texts = draw(st.lists(WORDS.map(" ".join), min_size=1, max_size=6))
    for text in draw(st.lists(st.sampled_from(texts), max_size=12)):
        more = draw(
            st.sampled_from(["", " too", " not", " 5", " \u2013 \u201cyes\u201d", " without"])
        )
        texts.append(text + more)
    return draw(st.permutations(texts))


@given(alike_texts())
def test_many_texts_have_the_same_pairs_as_few(texts):
    few = near_duplicates(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "FEW", 0)
        assert near_duplicates(texts) == few


def test_a_thousand_copies_are_each_found_without_comparing_all():
    pairs = near_duplicates(["Names the river."] * 1000)
    assert {later for _, later in pairs} == set(range(1, 1000))
    assert len(pairs) < len(list(combinations(range(1000), 2))) / 5
