"""What a row says beside the fields that its reader takes: nothing of it is lost without a word."""

import json

import pytest
from doubles.rubric_sets import (
    DR_TULU,
    HEALTHBENCH,
    OPENRUBRICS,
    PRBENCH,
    PROFESSIONAL,
    RAR_MEDICINE,
    RUBRICHUB,
    SYNTHESIS,
    WILDCHECKLISTS,
)

import data_preprocess
from rubric_rl.common.errors import DataError
from rubric_rl.data.healthbench import to_row
from rubric_rl.data.readers.registry import reader_named
from rubric_rl.data.schema import Row
from rubric_rl.data.usable_rows import convert


def read(name: str, item: dict) -> Row:
    return to_row(convert(item, "f:1", reader_named(name), None), "f:1")


def of_dr_tulu(criterion: dict, **more) -> dict:
    good = {"description": "Names it", "weight": 2}
    return DR_TULU | {"ground_truth": json.dumps({"rubrics": [good, criterion]} | more)}


def of_rubrichub(criterion: dict) -> dict:
    rubrics = [{"criterion": "Names it", "points": 2}, criterion]
    return RUBRICHUB | {"reward_model": {"rubrics": rubrics}}


def of_autorubric(criterion: dict) -> dict:
    return {"prompt": "Why?", "rubric": [{"requirement": "Names it"}, criterion]}


def of_tinker(criterion: dict) -> dict:
    convo = [{"role": "user", "content": "Why?"}]
    return {"convo": convo, "rubric_items": [{"rubric_str": "Names it"}, criterion]}


def of_professional(criterion: dict) -> dict:
    items = [{"criterion_text": "Names it", "points": 2}, criterion]
    return PROFESSIONAL | {"rubric_items": items}


class TestCriteria:
    """A criterion of which another field says what it is worth."""

    @pytest.mark.parametrize(
        "name, item",
        [
            ("autorubric", of_autorubric({"requirement": "Invents it", "points": -5})),
            ("autorubric", of_autorubric({"requirement": "Invents it", "weight": 1, "score": -1})),
            ("tinker", of_tinker({"rubric_str": "Invents it", "points": "-3"})),
            ("dr_tulu", of_dr_tulu({"description": "Invents it", "weight": 1, "points": -1})),
            ("rubrichub", of_rubrichub({"criterion": "Invents it", "points": 3, "weight": -3})),
            (
                "healthbench_professional",
                of_professional({"criterion_text": "Invents it", "points": 3, "weight": -3}),
            ),
            ("plain", {"prompt": "Why?", "rubric": [{"text": "a", "points": 5, "weight": -5}]}),
            ("plain", {"prompt": "Why?", "rubric": [{"text": "a", "weight": 5, "score": -5}]}),
        ],
    )
    def test_with_two_worths_is_refused(self, name, item):
        with pytest.raises(DataError, match=r"a criterion has .*, and its points are its"):
            read(name, item)

    @pytest.mark.parametrize(
        "name, item",
        [
            ("autorubric", of_autorubric({"requirement": "Invents it", "type": "negative"})),
            ("tinker", of_tinker({"rubric_str": "Invents it", "is_negative": True})),
            ("dr_tulu", of_dr_tulu({"description": "x", "weight": 1, "type": "negative"})),
            ("rubrichub", of_rubrichub({"criterion": "x", "points": 3, "penalty": True})),
            (
                "healthbench_professional",
                of_professional({"criterion_text": "x", "points": 3, "kind": "pitfall"}),
            ),
        ],
    )
    def test_with_a_negative_mark_and_positive_points_is_refused(self, name, item):
        with pytest.raises(DataError, match="says that it is negative, and its points do not"):
            read(name, item)

    def test_may_say_the_same_twice(self):
        twice = {"text": "a", "points": "-2", "weight": -2.0, "importance": None}
        row = read("plain", {"prompt": "Why?", "rubric": [{"text": "b", "points": 1}, twice]})
        assert row.rubric[1].points == -2
        marked = {"description": "x", "weight": -1, "type": "negative", "score": -1.0}
        assert read("dr_tulu", of_dr_tulu(marked)).rubric[1].points == -1

    @pytest.mark.parametrize(
        "words, weight", [("Pitfall Criteria: Recommends it", 1), ("Essential Criteria: x", -5)]
    )
    def test_of_rar_whose_class_contradicts_the_sign_is_refused(self, words, weight):
        rubric = [
            {"title": "t", "description": "Essential Criteria: Names it", "weight": 5},
            {"title": "t", "description": words, "weight": weight},
        ]
        with pytest.raises(DataError, match=f"weighs {weight}, which contradicts that"):
            read("rar", RAR_MEDICINE | {"rubric": rubric})
        rubric[1]["weight"] = 0
        assert len(read("rar", RAR_MEDICINE | {"rubric": rubric}).rubric) == 1


class TestRows:
    @pytest.mark.parametrize(
        "name, item",
        [
            ("dr_tulu", of_dr_tulu({"description": "x", "weight": 1}, negative_rubrics=["y"])),
            ("rar", RAR_MEDICINE | {"negative_rubric": [{"description": "y", "weight": 1}]}),
            ("rubrichub_synthesis", SYNTHESIS | {"pitfalls": ["Invents it"]}),
            ("healthbench", HEALTHBENCH | {"negative_criteria": ["Invents it"]}),
            (
                "rubrichub",
                RUBRICHUB
                | {"reward_model": RUBRICHUB["reward_model"] | {"penalties": ["Invents it"]}},
            ),
        ],
    )
    def test_with_negative_criteria_in_a_list_of_their_own_are_refused(self, name, item):
        with pytest.raises(DataError, match="stands beside the criteria"):
            read(name, item)

    def test_with_two_rubrics_are_refused(self):
        item = {"prompt": "Why?", "rubrics": ["Says why"], "criteria": ["Says how"]}
        with pytest.raises(DataError, match="rubrics and criteria stand in one row"):
            read("plain", item)
        assert len(read("plain", item | {"criteria": ["Says why"]}).rubric) == 1

    @pytest.mark.parametrize(
        "more",
        [
            {"question": "Why is ice light?", "instruction": "Answer in French."},
            {
                "prompt": "Why?",
                "messages": [
                    {"role": "system", "content": "Answer in French."},
                    {"role": "user", "content": "Why?"},
                ],
            },
        ],
    )
    def test_with_more_of_the_prompt_in_another_field_are_refused(self, more):
        with pytest.raises(DataError, match="stands beside the prompt, which does not hold all"):
            read("plain", {"rubric": ["Says why"]} | more)

    def test_may_hold_the_prompt_twice_and_its_answer(self):
        messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
        item = {"prompt": "Answer: Why?", "question": "Why?", "messages": messages}
        row = read("plain", item | {"rubric": ["Says why"]})
        assert [message["content"] for message in row.messages] == ["Answer: Why?"]

    def test_of_healthbench_with_a_system_text_are_refused(self):
        with pytest.raises(DataError, match="has a system text beside the prompt"):
            read("healthbench", HEALTHBENCH | {"system": "Answer in French."})

    def test_keep_the_system_text_of_a_conversation_object(self):
        conversation = PROFESSIONAL["conversation"] | {"system": "Be brief."}
        row = read("healthbench_professional", PROFESSIONAL | {"conversation": conversation})
        assert row.messages[0] == {"role": "system", "content": "Be brief."}

    def test_of_prbench_have_all_their_turns(self):
        more = {f"prompt_{turn}": f"Turn {turn}?" for turn in range(1, 12)}
        more |= {f"response_{turn}": "Yes." for turn in range(11)}
        messages = read("prbench", PRBENCH | more).messages
        assert [messages[at]["content"] for at in (-3, -1)] == ["Turn 10?", "Turn 11?"]


class TestTexts:
    @pytest.mark.parametrize("words", ["None", "nan", " N/A. ", '"null"'])
    def test_that_say_nothing_are_no_rubric(self, words):
        with pytest.raises(DataError, match="the rubric says"):
            read("openrubrics", OPENRUBRICS | {"rubric": words})
        with pytest.raises(DataError, match="the rubric says"):
            read("wildchecklists", WILDCHECKLISTS | {"requirements": words})

    @pytest.mark.parametrize(
        "words",
        ["<rubric>\n1. A\n2. B\n</rubric>", "```text\n1. A\n2. B\n```", "\u2013 A\n\u2013 B"],
    )
    def test_lose_fences_tags_and_dashes(self, words):
        rubric = read("openrubrics", OPENRUBRICS | {"rubric": words}).rubric
        assert [criterion.text for criterion in rubric] == ["A", "B"]


class TestRepeatedKeys:
    """JSON that has a key twice: of its two values one would be lost."""

    LINE = '{"prompt": "%s?", "rubric": [{"criterion": "Names it", "points": 3}]}'
    TWICE = '{"prompt": "Why?", "rubric": [{"criterion": "a", "points": 3, "points": -3}, "b"]}'

    def split(self, folder, text: str, name: str = "rows.jsonl") -> int:
        (folder / name).write_text(text)
        words = [f"--source={folder / name}", f"--out={folder / 'out'}"]
        return data_preprocess.main([*words, "--hold-out=1", "--name=x", "--format=plain"])

    def test_refuse_their_line(self, tmp_path, capsys):
        lines = [self.LINE % "A", self.LINE % "B", self.TWICE]
        assert self.split(tmp_path, "\n".join(lines)) == 0
        (said,) = capsys.readouterr().err.splitlines()
        assert "rows.jsonl:3: broken JSON ('points' stands twice in an object" in said

    @pytest.mark.parametrize("form", ["[%s]", '{"rows": [%s]}'])
    def test_end_the_command_in_a_file_of_one_value(self, tmp_path, capsys, form):
        lines = [self.LINE % "A", self.LINE % "B", self.TWICE]
        assert self.split(tmp_path, form % ", ".join(lines), "rows.json") == 2
        assert "'points' stands twice in an object" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "rubric",
        [
            '{"Names it": 3, "Names it": -3}',
            '[{"text": "a", "points": 3, "points": -3, "tags": null}]',
            ["b", '{"text": "a", "points": 3, "points": -3, "tags": null}'],
        ],
    )
    def test_in_json_text_within_a_row_refuse_it(self, rubric):
        with pytest.raises(DataError, match=r"rubric: '.*' stands twice in an object"):
            read("plain", {"prompt": "Why?", "rubric": rubric})

    def test_with_one_value_do_no_harm(self, tmp_path):
        line = '{"prompt": "C?", "prompt": "C?", "rubric": ["Says so"]}'
        assert self.split(tmp_path, "\n".join([self.LINE % "A", line])) == 0


class TestFolders:
    LINE = '{"prompt": "%s?", "rubric": [{"criterion": "Names it", "points": 3}]}\n'

    def split(self, folder, *flags: str) -> int:
        words = [f"--source={folder}", f"--out={folder.parent / 'out'}", "--name=x"]
        return data_preprocess.main([*words, *flags])

    def folder(self, tmp_path, **texts: str):
        folder = tmp_path / "set"
        folder.mkdir()
        for name, text in texts.items():
            (folder / f"{name}.jsonl").write_text(text)
        return folder

    def test_may_hold_the_file_that_hard_names(self, tmp_path, capsys):
        folder = self.folder(tmp_path, rows=self.LINE % "A", hard=self.LINE % "B")
        assert self.split(folder, f"--hard={folder / 'hard.jsonl'}") == 0
        out = tmp_path / "out"
        assert "A?" in (out / "x_easy.jsonl").read_text()
        assert "B?" in (out / "x_hard.jsonl").read_text()
        assert "B?" not in (out / "x_easy.jsonl").read_text()

    def test_with_another_split_beside_that_file_are_refused(self, tmp_path, capsys):
        folder = self.folder(tmp_path, train=self.LINE % "A", test=self.LINE % "B")
        assert self.split(folder, f"--hard={folder / 'train.jsonl'}") == 2
        assert "is published in splits (test)" in capsys.readouterr().err

    def test_with_rows_packed_in_another_way_are_refused(self, tmp_path, capsys):
        """They would be missing without a word."""
        folder = self.folder(tmp_path, a=self.LINE % "A", b=self.LINE % "B")
        (folder / ".cache").mkdir()
        (folder / ".cache" / "c.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd")
        assert self.split(folder, "--hold-out=1") == 0
        (folder / "c.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd")
        assert self.split(folder, "--hold-out=1") == 2
        assert "c.jsonl.zst: is packed by another program than gzip" in capsys.readouterr().err
