"""The checks on rows, what they change, and their flags in data_preprocess.py."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.engine import Fail, FakeEngine, Say
from doubles.rubric_sets import RAR_SCIENCE

import data_preprocess
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.data.checks.ask_model import ask_polarities
from rubric_rl.data.checks.change import (
    Changes,
    flip_polarity,
    split_compound,
    split_criterion,
)
from rubric_rl.data.checks.check import NAMED, Findings, check, report_lines
from rubric_rl.data.checks.polarity import polarity
from rubric_rl.data.parse import LEAST_POINTS, row_from_metadata
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.schema import Criterion, Row
from rubric_rl.serving.endpoint import Endpoint


def row(*criteria: tuple[str, float], prompt_id: str = "p", asks: str = "What helps?") -> Row:
    rubric = tuple(Criterion(text, points, ("axis:a",)) for text, points in criteria)
    return Row(prompt_id, ({"role": "user", "content": asks},), rubric)


GOOD = ("Names the drug.", 5)
RUSSIAN = "Что мне принять от боли?"


def kinds(*training: Row, held_out: tuple[Row, ...] = (), refused: tuple[str, ...] = ()) -> set:
    return set(check(training, held_out, refused).places)


class TestCheck:
    @pytest.mark.parametrize(
        ("criterion", "kind"),
        [
            (("Avoids jargon.", -2), "polarity"),
            (("Fails to name the dose.", 4), "polarity"),
            (("Names the dose and explains the risk.", 4), "compound"),
            (("N/A", 1), "unmeetable"),
            (("names  the DRUG", 3), "duplicates"),
        ],
    )
    def test_finds_a_suspect_criterion(self, criterion, kind):
        assert kinds(row(GOOD, criterion)) == {kind}

    def test_counts_a_criterion_once_however_many_it_repeats(self):
        found = check([row(GOOD, ("names the DRUG", 3), ("Names the drug!", 1))], [])
        places = [
            "prompt_id p, criterion 2: as criterion 1",
            "prompt_id p, criterion 3: as criterion 1",
        ]
        assert (found.counts["duplicates"], found.places["duplicates"]) == (2, places)

    def test_names_the_first_and_counts_all(self):
        rubric = row(*[(f"Avoids jargon in part {number}.", -2) for number in range(9)])
        found = check([rubric], [])
        assert (found.counts["polarity"], len(found.places["polarity"])) == (9, NAMED)

    def test_many_rows_are_checked_by_several_processes_as_by_one(self, monkeypatch):
        suspect = [("Fails to ask.", 3), ("Avoids jargon.", -2), ("names it", 1), ("Names it!", 2)]
        rows = [replace(row(GOOD, each), prompt_id=f"p{n}") for n in range(4) for each in suspect]
        alone = check(rows, rows[:5], judge=lambda text: polarity(text))
        monkeypatch.setattr("rubric_rl.data.checks.check.PIECE", 3)
        assert check(rows, rows[:5]) == alone
        assert alone.counts["polarity"] > NAMED

    def test_says_whether_a_model_decided(self):
        assert "by wording alone" in report_lines(Findings())[0]
        assert "by wording and what Qwen says of it" in report_lines(Findings(), "Qwen")[0]

    def test_finds_nothing_in_an_ordinary_rubric(self):
        assert kinds(row(GOOD, ("Fails to ask for the age.", -4), ("Avoids jargon.", 2))) == set()

    def test_finds_points_that_dwarf_the_rest(self):
        others = [("Names the drug.", 2), ("Asks for the age.", 2)]
        assert kinds(row(*others, ("Recommends rest.", 5))) == {"points"}
        assert kinds(row(*others, ("Recommends rest.", 4))) == set()

    def test_finds_a_training_prompt_that_repeats_a_held_out_one(self):
        asks = "How long should a child of six stay at home with mumps?"
        held = row(GOOD, prompt_id="h", asks=asks)
        again = row(GOOD, prompt_id="t", asks=asks.upper() + " Please.")
        found = check([again], [held])
        assert found.places["prompts"] == ["prompt_id t: as held-out prompt h"]
        assert kinds(held_out=(held, again)) == set()  # those stand as published

    @pytest.mark.parametrize("shown", ["{}", "\u200b{} "])
    def test_finds_a_training_conversation_that_begins_as_a_held_out_one(self, shown):
        asks = "How much ibuprofen may I take?"
        system = {"role": "system", "content": "You are kind and say what you know, in short."}
        user = {"role": "user", "content": shown.format(asks)}
        more = {"role": "user", "content": "Thanks, and what of paracetamol, for a child of six?"}
        answer = {"role": "assistant", "content": "At most 400 mg at a time."}
        held = row(GOOD, prompt_id="h", asks=asks)
        for messages in ((system, user), (user, answer, more), (system, user, answer, more)):
            found = check([replace(held, prompt_id="t", messages=messages)], [held])
            assert found.places["prompts"] == ["prompt_id t: begins as held-out prompt h"]
            again = check([held], [replace(held, prompt_id="t", messages=(system, user))])
            assert again.counts["prompts"] == 1
        longer = replace(held, messages=(user, answer, more))  # as the shorter one begins
        assert kinds(row(GOOD, prompt_id="t", asks=asks), held_out=(longer,)) == set()

    def test_finds_a_rubric_in_another_script(self):
        assert kinds(row(GOOD, asks=RUSSIAN)) == {"language"}

    def test_finds_a_prompt_in_another_script_than_most(self):
        same = row(("Называет лекарство.", 5), prompt_id="r", asks=RUSSIAN)
        others = [row(GOOD, prompt_id=f"p{n}", asks=f"What helps with {n}?") for n in range(2)]
        found = check([same, *others], [])
        assert found.places["language"] == ["prompt_id r: CYRILLIC, most are LATIN"]
        assert check([same], []).counts["language"] == 0

    def test_finds_rows_whose_last_turn_is_the_assistants(self):
        messages = [{"role": "assistant", "content": "Rest."}]
        rubrics = [{"criterion": "Names the drug.", "points": 5}]
        metadata = {"prompt_id": "p", "messages": messages, "rubrics": rubrics}
        with pytest.raises(DataError) as refusal:
            row_from_metadata(metadata, "a.jsonl:3")
        assert kinds(row(GOOD), refused=(str(refusal.value),)) == {"last-turn"}
        assert kinds(row(GOOD), refused=("a.jsonl:3: no prompt_id",)) == set()


class TestChanges:
    def test_splitting_keeps_the_points_of_the_rubric(self):
        changes = Changes()
        old = row(("Names the drug and explains the dose.", 5), ("Recommends rest.", 5))
        new = split_compound(old, changes)
        assert [(c.text, c.points, c.tags) for c in new.rubric] == [
            ("Names the drug.", 2.5, ("axis:a",)),
            ("Explains the dose.", 2.5, ("axis:a",)),
            ("Recommends rest.", 5, ("axis:a",)),
        ]
        (entry,) = changes.log
        assert entry["change"] == "split" and entry["was"] == old.rubric[0].to_json()
        assert entry["became"] == [c.to_json() for c in new.rubric[:2]]

    def test_a_part_that_another_criterion_says_is_in_neither_row_nor_log(self):
        changes = Changes()
        compound = ("Names the drug and explains the dose.", 4)
        again = ("Explains the dose and names the drug.", 6)
        new = split_compound(row(compound, GOOD, again), changes)
        told = [(c.text, c.points) for c in new.rubric]
        assert told == [("Explains the dose.", 2), ("Names the drug.", 5)]
        became = [[part["criterion"] for part in entry["became"]] for entry in changes.log]
        assert became == [["Explains the dose."], []]
        assert changes.repeated == 3

    @pytest.mark.parametrize("said", ["Recommends tea", "recommends tea.", "Recommends  tea ."])
    def test_a_part_is_said_already_whatever_its_case_and_period(self, said):
        rubric = row(("Mentions rest and recommends tea", 6), (said, 3))
        told = [(c.text, c.points) for c in split_compound(rubric, Changes()).rubric]
        assert told == [("Mentions rest.", 3), (said, 3)]

    def test_a_row_that_could_not_be_scored_without_a_part_stays_whole(self):
        changes = Changes()
        old = row(("Names the drug and explains the dose.", 4), ("Names the drug.", -1))
        only = row(("Names the drug and names the drug.", 4), ("Names the drug.", -1))
        assert len(split_compound(old, changes).rubric) == 2
        assert split_compound(only, Changes()) == only

    def test_flipping_turns_only_what_contradicts_its_wording(self):
        changes = Changes()
        old = row(GOOD, ("Avoids jargon.", -2), ("Fails to ask.", -3), ("Recommends rest.", -1))
        new = flip_polarity(old, changes)
        assert [c.points for c in new.rubric] == [5, 2, -3, -1]
        assert [entry["was"]["criterion"] for entry in changes.log] == ["Avoids jargon."]
        assert kinds(new) == set()

    def test_flipping_leaves_a_row_that_could_not_be_scored_any_more(self):
        changes = Changes()
        old = row(("Fails to ask.", 3))
        assert flip_polarity(old, changes) == old
        assert changes.kept == 1 and changes.log == []


@pytest.fixture
def preprocess(tmp_path):
    """Runs the command on two rows, of which one has a wrong sign and a compound criterion."""
    rubrics = [
        {"criterion": "Names the drug and explains the dose.", "points": 4},
        {"criterion": "Avoids jargon.", "points": -2},
    ]
    lines = []
    for name in ("one", "two"):
        prompt = [{"role": "user", "content": f"Number {name}?"}]
        lines.append(json.dumps({"prompt_id": name, "prompt": prompt, "rubrics": rubrics}) + "\n")
    source = tmp_path / "raw.jsonl"
    source.write_text("".join(lines))

    def run(*flags: str) -> int:
        places = ["--source", str(source), "--out", str(tmp_path / "out"), "--name", "x"]
        fixed = ["--hold-out", "1", "--allow-subset"]
        return data_preprocess.main([*places, *fixed, *flags])

    return run


def split_rows(folder: Path, rubrics: list[dict], *flags: str) -> int:
    """Runs the command on two rows with this rubric, of which one is held out."""
    lines = []
    for name in ("one", "two"):
        item = {"prompt_id": name, "prompt": f"Number {name}?", "rubrics": rubrics}
        lines.append(json.dumps(item) + "\n")
    source = folder / "raw.jsonl"
    source.write_text("".join(lines))
    places = ["--source", str(source), "--out", str(folder / "out"), "--name", "x"]
    return data_preprocess.main([*places, "--hold-out", "1", *flags])


class TestCommand:
    def test_shows_findings_and_goes_on(self, preprocess, capsys):
        assert preprocess() == 0
        report = capsys.readouterr().out
        assert "polarity: 2 criteria" in report and "compound: 1 compound criteria" in report

    def test_strict_writes_nothing_and_names_the_rows(self, preprocess, capsys, tmp_path):
        assert preprocess("--strict") == 2
        assert "prompt_id one, criterion 2" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_strict_may_name_the_checks(self, preprocess, capsys):
        assert preprocess("--strict", "duplicates,points") == 0
        assert preprocess("--strict", "grammar") == 2
        assert "there are polarity" in capsys.readouterr().err

    def test_changes_are_made_and_logged(self, preprocess, tmp_path, capsys):
        assert preprocess("--split-compound", "--flip-polarity", "--strict") == 0
        text = (tmp_path / "out" / "x_changes.jsonl").read_text()
        log = [json.loads(line) for line in text.splitlines()]
        assert sorted(entry["change"] for entry in log) == ["flip", "flip", "split"]
        sample = json.loads((tmp_path / "out" / "x_hard_sample.jsonl").read_text())
        points = [item["points"] for item in sample["metadata"]["rubrics"]]
        assert points == [4, 2]  # held out: its sign is mended, its criteria are as published
        assert "changed 2 criteria: flip" in capsys.readouterr().out

    def test_a_part_that_the_rubric_says_already_is_left_out(self, tmp_path, capsys):
        rubrics = [
            {"criterion": "Names the drug.", "points": 3},
            {"criterion": "Names the drug and explains the dose.", "points": 4},
        ]
        assert split_rows(tmp_path, rubrics, "--split-compound") == 0
        (row,) = read_rows(tmp_path / "out" / "x_easy.jsonl")
        found = [(each.text, each.points) for each in row.rubric]
        assert found == [("Names the drug.", 3), ("Explains the dose.", 2)]
        report = capsys.readouterr().out
        assert "left out 1 repeated criteria of training prompts" in report
        assert "duplicates" not in report

    def test_the_other_sign_for_the_same_words_is_counted_apart(self, tmp_path, capsys):
        rubrics = [
            {"criterion": "Names the drug.", "points": 3},
            {"criterion": "Names the  drug.", "points": 2},
            {"criterion": "Names the drug.", "points": -3},
        ]
        assert split_rows(tmp_path, rubrics) == 0
        report = capsys.readouterr().out
        assert "left out 1 repeated criteria of training prompts" in report
        assert "left out 1 criteria that an equal one before them gives the other sign" in report

    def test_a_part_keeps_at_least_the_points_that_a_criterion_may_have(self):
        tiny = Criterion("Names the drug and explains the dose.", 1.5 * LEAST_POINTS)
        assert split_criterion(tiny) == [tiny]
        assert len(split_criterion(Criterion(tiny.text, 2 * LEAST_POINTS))) == 2

    def test_the_words_of_strict_may_stand_apart(self, preprocess, capsys):
        assert preprocess("--strict", "polarity , duplicates") == 2
        assert "no such check" not in capsys.readouterr().err
        assert preprocess("--strict", " ,") == 2
        assert "--strict ' ,': names no check; there are polarity," in capsys.readouterr().err

    def test_a_set_with_mixed_signs_wants_a_decision(self, tmp_path, capsys):
        source = tmp_path / "science.jsonl"
        lines = []
        for number in range(2):
            item = RAR_SCIENCE | {"question": f"Number {number}?"}
            lines.append(json.dumps(item) + "\n")
        source.write_text("".join(lines))
        words = ["--source", str(source), "--out", str(tmp_path / "out"), "--hold-out", "1"]
        assert data_preprocess.main(words) == 2
        complaint = capsys.readouterr().err
        assert "in 2 places" in complaint and "--flip-polarity" in complaint
        assert not (tmp_path / "out").exists()
        assert data_preprocess.main([*words, "--keep-polarity"]) == 0
        assert data_preprocess.main([*words, "--flip-polarity"]) == 0
        assert data_preprocess.main([*words, "--flip-polarity", "--keep-polarity"]) == 2

    def test_a_model_is_named_with_its_endpoint(self, preprocess, capsys):
        assert preprocess("--check-with", "http://127.0.0.1:1") == 2
        assert "--check-model" in capsys.readouterr().err


class TestAskedModel:
    @pytest.fixture
    def asked(self, tmp_path):
        """Function (act, *texts) -> what a model that acts so says, and how often it is asked.

        The replies of all calls are kept in one file.
        """

        async def ask(act, texts: tuple[str, ...], model: str) -> tuple[dict, int]:
            acts = act if isinstance(act, list) else [act]
            async with FakeEngine(*acts, checked=False) as engine:
                endpoint = Endpoint(
                    api="openai", url=engine.url, model=model, retries=0, concurrency=1
                )
                kept = tmp_path / "out" / "x_check.jsonl"
                found = await asyncio.to_thread(ask_polarities, texts, endpoint, kept)
                return found, len(engine.bodies)

        return lambda act, *texts, model="m": asyncio.run(ask(act, texts, model))

    def test_decides_where_the_rule_is_unsure_and_is_asked_once_per_text(self, asked):
        found, questions = asked(Say("Worse."), "Recommends wine.", "Recommends wine.")
        assert found == {"Recommends wine.": "bad"} and questions == 1

    def test_that_contradicts_a_plain_wording_leaves_it_unsure(self, asked):
        texts = ("Avoids jargon.", "Avoids errors.")
        found, _ = asked([Say("worse"), Say("unclear")], *texts)
        assert found == {texts[0]: "unsure", texts[1]: "good"}

    @pytest.mark.parametrize(
        "reply", [Say("better or worse"), Say(""), Say("better", reason="length")]
    )
    def test_that_says_something_else_says_nothing(self, asked, reply):
        assert asked(reply, "Recommends wine.")[0] == {"Recommends wine.": "unsure"}

    def test_that_gives_no_reply_is_an_error(self, asked):
        with pytest.raises(UserError, match=r"--check-with: .*run the same command again"):
            asked(Fail(400), "Recommends wine.")

    def test_is_not_asked_again_what_it_has_said(self, asked):
        texts = ("Recommends wine.", "Recommends beer.", "Recommends rest.")
        with pytest.raises(UserError):
            asked([Say("worse"), Say("worse"), Fail(400)], *texts)
        found, questions = asked(Say("better"), *texts)
        assert list(found.values()) == ["bad", "bad", "good"] and questions == 1
        assert asked(Fail(400), *texts) == (found, 0)
        assert asked(Say("unclear"), texts[0], model="another") == ({texts[0]: "unsure"}, 1)

    def test_whose_file_was_cut_by_a_kill_is_asked_for_the_rest(self, asked, tmp_path):
        texts = ("Recommends wine.", "Recommends beer.")
        asked(Say("worse"), *texts)
        kept = tmp_path / "out" / "x_check.jsonl"
        kept.write_bytes(kept.read_bytes()[:-9])
        assert asked(Say("worse"), *texts) == (dict.fromkeys(texts, "bad"), 1)
        assert kept.read_bytes().count(b"\n") == 2

    def test_has_no_replies_in_a_file_of_something_else(self, asked, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "x_check.jsonl").write_text('["mine"]\n')
        with pytest.raises(UserError, match="holds something else than replies; move it away"):
            asked(Say("worse"), "Recommends wine.")
