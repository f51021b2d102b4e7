"""One token first, and words only where it is unsure."""

import pytest
from doubles.engine import TEMPLATE, VERDICT, FakeEngine, Say, chat_model, grader_settings
from doubles.grading import ROW, TRUTH, asked_for, graded

from rubric_rl.common.errors import UserError
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.settings import check_together
from rubric_rl.serving.client import Client

OPENING = '{"criteria_met":'


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


def unsure_of(beliefs: dict[str, float], in_words: dict[str, bool]):
    """Tokens by belief; asked in words, it says another thing."""

    def act(prompt: str) -> Say:
        belief = asked_for(prompt, beliefs)
        met = str(asked_for(prompt, in_words)).lower()
        return Say(VERDICT % met, true=belief, false=1 - belief)

    return act


def test_only_what_is_unsure_is_asked_again_in_words(model):
    beliefs = {"Greets.": 0.9, "Insults.": 0.4, "Advises.": 0.6}
    words = {"Greets.": False, "Insults.": True, "Advises.": False}
    engine = FakeEngine(unsure_of(beliefs, words))
    record = graded(engine, model, mode="cascade")
    assert record.mets == [True, True, False]
    told = [verdict.probability for verdict in record.verdicts]
    assert told == pytest.approx([0.9, 0.4, 0.6]), "the token's stays beside the words"
    assert engine.requests == [1, 2, 2]
    assert record.calls == 5


@pytest.mark.parametrize(
    "belief, low, high, asked",
    [
        (0.45, 0.3, 0.7, 3),
        (0.45, 0.5, 0.5, 0),
        (0.45, 0.0, 1.0, 3),
        (0.0, 0.0, 1.0, 3),  # the word is not among the likeliest
        (1.0, 0.0, 1.0, 3),
        (0.0, 0.01, 1.0, 0),
    ],
)
def test_the_limits_say_what_is_unsure(model, belief, low, high, asked):
    beliefs = dict.fromkeys(TRUTH, belief)
    engine = FakeEngine(unsure_of(beliefs, TRUTH))
    graded(engine, model, mode="cascade", cascade_low=low, cascade_high=high)
    assert len(engine.bodies) == 3 + asked


def test_both_questions_share_their_prompt_up_to_the_reply(model):
    engine = FakeEngine(unsure_of(dict.fromkeys(TRUTH, 0.45), TRUTH))
    graded(engine, model, mode="cascade")
    tokens = [prompt for prompt in engine.prompts if prompt.endswith(OPENING)]
    words = [prompt for prompt in engine.prompts if not prompt.endswith(OPENING)]
    assert sorted(prompt.removesuffix(OPENING) for prompt in tokens) == sorted(words)


def test_a_thinking_grader_says_its_token_without_thoughts(model):
    engine = FakeEngine(unsure_of(dict.fromkeys(TRUTH, 0.45), TRUTH))
    graded(engine, model, mode="cascade", thinking=True)
    tokens = [prompt for prompt in engine.prompts if prompt.endswith(f"</think>\n\n{OPENING}")]
    words = [prompt for prompt in engine.prompts if prompt.endswith("assistant\n")]
    assert len(tokens) == len(words) == len(ROW.rubric)


def test_a_token_that_cannot_be_read_is_not_asked_for_in_words(model):
    """Else to say nothing would buy a second draw."""
    engine = FakeEngine(Say(VERDICT % "true", true=0.3, false=0.3))
    record = graded(engine, model, mode="cascade")
    assert record.mets == [None] * len(ROW.rubric)
    assert len(engine.bodies) == 3


def test_thoughts_that_a_template_opens_and_nobody_closes_are_refused(tmp_path):
    always = TEMPLATE.replace("{% if not enable_thinking %}<think>\n\n</think>\n\n", "[THINK]")
    always = always.replace("{% endif %}{% endif %}", "{% endif %}")
    chosen = grader_settings(mode="cascade", thinking=True)
    client = Client(chosen.endpoint, "http://127.0.0.1:9", chat_model(tmp_path, always))
    with pytest.raises(
        UserError, match=r"opens the thoughts .*\[THINK\].*; use grader_mode explain"
    ):
        Grader(client, chosen.grading)


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"cascade_low": 0.6, "cascade_high": 0.9}, "cascade_low .*less than or equal to 0.5"),
        ({"cascade_low": 0.1, "cascade_high": 0.4}, "cascade_high .*greater than or equal to 0.5"),
        ({"api": "openai", "thinking": True, "model": "m"}, "needs grader_api sglang"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, complaint):
    with pytest.raises(UserError, match=complaint):
        chosen = grader_settings(mode="cascade", **settings)
        check_together(chosen.endpoint, chosen.grading)
