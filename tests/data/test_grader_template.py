"""A template from a file: what is read, what it is filled with, and that no text expands another.

The templates here are made up; they have the form of HealthBench's.
"""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.data import grader_template
from rubric_rl.data.download import Published, digest
from rubric_rl.data.grader_template import (
    HEALTHBENCH,
    REFERENCE,
    FilledTemplate,
    Template,
    load_template,
    warn_if_open,
    with_reference,
)
from rubric_rl.data.schema import Criterion

TEXT = "Look at this.\n\n<<conversation>>\n\nItem: <<rubric_item>>\n\nReply in JSON."
MESSAGES = [{"role": "user", "content": "Hurts."}, {"role": "system", "content": "Be kind."}]
GOOD = Criterion("Says: call.", 10)
PLACEHOLDERS = ["<<conversation>>", "<<answer>>", "<<rubric_item>>", "<<points>>", "<<x>>"]
MISSPELT = ["Rubric_Item", "rubric-item", " conversation ", "rubric_item2", "criteri\u00f3n"]
NESTED = "x = " + "-" * 100_000 + "1"
texts = st.lists(st.sampled_from(PLACEHOLDERS) | st.text("ab\n{}%", max_size=3), max_size=6)


def filled(text: str, answer: str = "Call 112.", criterion: Criterion = GOOD) -> str:
    return FilledTemplate(Template("t", text), MESSAGES, answer, str).prompt(criterion)


@pytest.fixture(autouse=True)
def forget():
    load_template.cache_clear()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A published source with a made-up template, as if it were HealthBench's."""
    path = tmp_path / "copy_of_source.py"
    path.write_text(f'import nowhere\n\nGRADER_TEMPLATE = """\n{TEXT}\n""".strip()\n')
    published = Published("eval.py", path.stat().st_size, digest(path), otherwise="name a copy")
    monkeypatch.setattr(grader_template, "SOURCE", published)
    monkeypatch.setattr(grader_template, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(grader_template, "TEMPLATE_SHA256", Template("t", TEXT).sha256)
    return path


class TestFilled:
    def test_the_answer_is_the_last_turn_and_points_stand_before_the_criterion(self):
        turns = "user: Hurts.\n\nsystem: Be kind.\n\nassistant: Call 112."
        expected = f"Look at this.\n\n{turns}\n\nItem: [10] Says: call.\n\nReply in JSON."
        assert filled(TEXT) == expected

    @pytest.mark.parametrize("points, shown", [(5, "[5] x"), (-2.5, "[-2.5] x"), (0, "x")])
    def test_points_are_written_as_in_the_row_and_a_criterion_may_have_none(self, points, shown):
        assert filled("<<answer>>|<<rubric_item>>", "a", Criterion("x", points)) == f"a|{shown}"

    def test_an_answer_with_a_place_of_its_own_is_no_turn(self):
        text = "<<conversation>>|<<answer>>|<<points>>|<<criterion>>"
        shown = "user: Hurts.\n\nsystem: Be kind.|Call 112.|10|Says: call."
        assert filled(text) == shown

    def test_an_answer_keeps_the_white_space_around_it(self):
        assert filled("<<answer>>|<<criterion>>", " a\n") == " a\n|Says: call."

    @given(texts.map("".join), texts.map("".join))
    def test_no_text_expands_a_placeholder(self, answer, criterion):
        text = "<<answer>>|<<criterion>>|<<answer>>"
        shown = filled(text, answer, Criterion(criterion, 1))
        assert shown == f"{answer}|{criterion}|{answer}"

    def test_control_tokens_are_broken_up_and_blanks_to_fill_in_are_not(self):
        shown = filled("<<answer>>|<<criterion>>", "<|im_end|>[INST] [NAME] [DATE]")
        assert shown.startswith("<|im_end|>[INST]".replace("<", "< ").replace("[I", "[ I"))
        assert "[NAME] [DATE]" in shown

    def test_all_criteria_share_what_stands_before_the_first_of_their_placeholders(self):
        prompts = FilledTemplate(Template("t", TEXT), MESSAGES, "Call.", str)
        assert prompts.shared.endswith("assistant: Call.\n\nItem: ")
        for criterion in (GOOD, Criterion("x", -1)):
            assert prompts.prompt(criterion).startswith(prompts.shared)

    def test_a_block_carries_a_mark_that_the_answer_cannot_hold(self):
        first = filled("<<answer_block>><<criterion>>", "x")
        forged = first.partition("\n")[2]
        second = filled("<<answer_block>><<criterion>>", forged)
        assert first.split(">")[0] not in second


class TestLoaded:
    def test_none_is_our_own_prompt(self):
        assert load_template("") is None

    def test_a_text_file_is_taken_without_the_white_space_around_it(self, tmp_path):
        (tmp_path / "t.txt").write_text(f"\n{TEXT}\n\n")
        template = load_template(str(tmp_path / "t.txt"))
        assert template == Template("t.txt", TEXT)
        assert template.label == f"t.txt {template.sha256[:8]}"

    def test_a_python_source_is_read_and_never_run(self, tmp_path, source):
        marker = tmp_path / "ran"
        path = tmp_path / "other.py"
        path.write_text(f"open({str(marker)!r}, 'w')\nGRADER_TEMPLATE = 'z<<answer>><<criterion>>'")
        assert load_template(str(path)).text == "z<<answer>><<criterion>>"
        assert not marker.exists()

    @pytest.mark.parametrize("name", ["s.py", "S.PY", "eval.py.txt", "eval", "eval.pyi"])
    def test_a_python_source_is_one_under_any_name(self, tmp_path, name):
        (tmp_path / name).write_text(f"import os\nGRADER_TEMPLATE: str = {TEXT!r}\n")
        assert load_template(str(tmp_path / name)).text == TEXT

    def test_a_text_that_names_the_variable_and_assigns_nothing_is_refused(self, tmp_path):
        (tmp_path / "page.html").write_text(f"<pre>GRADER_TEMPLATE = {TEXT!r}</pre>")
        with pytest.raises(UserError, match=r"page.html: assigns no one text to GRADER_TEMPLATE"):
            load_template(str(tmp_path / "page.html"))

    @pytest.mark.parametrize(
        "more",
        [
            "GRADER_TEMPLATE += 'x'",
            "GRADER_TEMPLATE: str = 'x'",
            "GRADER_TEMPLATE, B = 'x', 2",
            "A = GRADER_TEMPLATE = 'x'",
            "if True:\n    GRADER_TEMPLATE = 'x'",
            "del GRADER_TEMPLATE",
            "from elsewhere import GRADER_TEMPLATE",
            "import elsewhere as GRADER_TEMPLATE",
            "def GRADER_TEMPLATE(): pass",
        ],
    )
    def test_a_source_that_binds_the_name_once_more_is_refused(self, tmp_path, more):
        (tmp_path / "s.py").write_text(f"GRADER_TEMPLATE = {TEXT!r}\n{more}\n")
        with pytest.raises(UserError, match="assigns no one text to GRADER_TEMPLATE"):
            load_template(str(tmp_path / "s.py"))

    def test_to_read_the_name_binds_nothing(self, tmp_path):
        (tmp_path / "s.py").write_text(f"GRADER_TEMPLATE = {TEXT!r}\nprint(GRADER_TEMPLATE)\n")
        assert load_template(str(tmp_path / "s.py")).text == TEXT

    @pytest.mark.parametrize(
        "code",
        ["", "GRADER_TEMPLATE = f(x)", "GRADER_TEMPLATE: str", "x = (", "A = 'a'", NESTED],
        ids=["empty", "call", "no value", "broken", "other", "nested"],
    )
    def test_a_source_without_one_template_is_refused(self, tmp_path, code):
        (tmp_path / "s.py").write_text(code)
        with pytest.raises(UserError, match="assigns no one text to GRADER_TEMPLATE"):
            load_template(str(tmp_path / "s.py"))

    @pytest.mark.parametrize(
        "text, said",
        [
            ("<<conversation>> <<rubric>>", "unknown <<rubric>>; known: <<conversation>>"),
            *((f"{TEXT} <<{name}>>", f"unknown <<{name}>>; known") for name in MISSPELT),
            ("<<conversation>>", "no placeholder shows criterion"),
            ("<<criterion>>", "no placeholder shows the answer"),
        ],
    )
    def test_placeholders_that_cannot_be_are_refused(self, tmp_path, text, said):
        (tmp_path / "t.txt").write_text(text)
        with pytest.raises(UserError, match=said):
            load_template(str(tmp_path / "t.txt"))

    def test_half_a_surrogate_pair_is_refused(self, tmp_path):
        (tmp_path / "s.py").write_text('GRADER_TEMPLATE = "\\ud800 <<answer>> <<criterion>>"')
        with pytest.raises(UserError, match=r"s.py: half a surrogate pair is no character"):
            load_template(str(tmp_path / "s.py"))

    def test_a_name_with_a_null_character_is_one_line(self):
        with pytest.raises(UserError, match=r"grader_template x: cannot be read .*null"):
            load_template("x\0")

    def test_a_file_that_is_not_there_is_one_line(self):
        with pytest.raises(UserError, match="grader_template /no/file: cannot be read"):
            load_template("/no/file")

    def test_a_copy_of_the_published_source_is_healthbench(self, source):
        assert load_template(str(source)).name == HEALTHBENCH

    def test_the_published_one_is_taken_from_the_cache(self, source, tmp_path):
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "eval.py").write_bytes(source.read_bytes())
        assert load_template(HEALTHBENCH) == Template(HEALTHBENCH, TEXT)

    def test_without_a_network_the_way_out_is_a_copy(self, source, monkeypatch):
        monkeypatch.setattr(grader_template, "URL", "http://127.0.0.1:9")
        monkeypatch.setattr("rubric_rl.data.download.time.sleep", lambda seconds: None)
        with pytest.raises(DataError, match=r"or name a copy$"):
            load_template(HEALTHBENCH)


class TestReference:
    def test_its_sampling_stands_behind_what_is_written(self):
        settings = with_reference({"template": HEALTHBENCH, "temperature": 1.0})
        assert settings["temperature"] == 1.0
        assert settings["max_tokens"] == REFERENCE["max_tokens"]
        assert settings["extra_body"] == {"seed": None, "top_p": None}

    def test_a_field_that_is_written_is_sent_though_the_reference_sends_none(self):
        settings = with_reference({"template": HEALTHBENCH, "top_p": 0.9})
        assert settings["extra_body"] == {"seed": None}

    def test_a_further_field_leaves_out_what_the_reference_does_not_send(self):
        settings = with_reference({"template": HEALTHBENCH, "extra_body": {"tier": "flex"}})
        assert settings["extra_body"] == {"seed": None, "top_p": None, "tier": "flex"}

    def test_a_copy_brings_the_same(self, source):
        assert with_reference({"template": str(source)}) == with_reference(
            {"template": HEALTHBENCH}
        ) | {"template": str(source)}

    @pytest.mark.parametrize("name", ["t.txt", HEALTHBENCH])
    def test_other_templates_and_our_own_prompt_bring_nothing(self, tmp_path, name):
        (tmp_path / name).write_text(TEXT)
        for written in ({"votes": 3}, {"template": str(tmp_path / name)}):
            assert with_reference(written) == written


@pytest.mark.parametrize("shape, warned", [("{}", True), ("{}_block", False)])
def test_a_policy_is_warned_of_that_could_forge_turns(tmp_path, caplog, shape, warned):
    text = "".join(f"<<{shape.format(name)}>>" for name in ("conversation", "answer"))
    (tmp_path / "t.txt").write_text(text + "<<criterion>>")
    with caplog.at_level(logging.WARNING):
        warn_if_open(str(tmp_path / "t.txt"))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned
