"""Prompts: errors that name file, line and prompt_id, templating, slime's order, exact resume."""

import json
import random

import pytest
from doubles.trainer import Words, make_args, row, write_rows

from rubric_rl.common.errors import DataError
from rubric_rl.cpu.samples import DataSource, Sample, load_prompts


def load(path, **more):
    settings = {"input_key": "prompt", "metadata_key": "metadata", "apply_chat_template": True}
    return load_prompts(str(path), Words(), **settings | more)


def source(tmp_path, *more, count=5) -> DataSource:
    return DataSource(make_args(*more), load(write_rows(tmp_path / "rows.jsonl", count)))


def ids(groups) -> list[str]:
    return [group[0].metadata["prompt_id"] for group in groups]


def test_template_and_its_arguments(tmp_path):
    (sample,) = load(
        write_rows(tmp_path / "rows.jsonl", 1), template_kwargs={"enable_thinking": False}
    )
    assert sample.prompt == "<user> patient 0 <assistant> enable_thinking=False"
    assert sample.metadata == row(0)["metadata"] and sample.status is Sample.Status.PENDING


def test_a_slice_of_the_file(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", 6)
    assert [s.metadata["prompt_id"] for s in load(f"{path}@[1:3]")] == ["p1", "p2"]
    assert [s.metadata["prompt_id"] for s in load(f"{path}@[-1:]")] == ["p5"]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda r: r["metadata"].update(rubrics=[]), "rows.jsonl:2, prompt_id p1"),
        (lambda r: r.update(metadata="x"), "rows.jsonl:2"),
        (
            lambda r: r.update(prompt="text"),
            "prompt_id p1: 'prompt' is not a list of chat messages",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, said):
    rows = [row(0), row(1)]
    change(rows[1])
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(DataError, match=said):
        load(path)


def test_broken_json_is_named(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", 1)
    path.write_text(path.read_text() + '{"prompt": [\n')
    with pytest.raises(DataError, match=r"rows.jsonl:2"):
        load(path)


def test_messages_need_a_template(tmp_path):
    with pytest.raises(DataError, match="--apply-chat-template"):
        load(write_rows(tmp_path / "rows.jsonl", 1), apply_chat_template=False)


def test_long_prompts_are_left_out(tmp_path):
    rows = [row(0), row(1)]
    rows[1]["prompt"] = [
        {"role": "user", "content": "a much longer question than the other one is"}
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert [s.metadata["prompt_id"] for s in load(path, max_length=6)] == ["p0"]
    with pytest.raises(DataError, match="longer than 1 tokens"):
        load(path, max_length=1)


def test_groups_hold_own_copies(tmp_path):
    (group,) = source(tmp_path).get_samples(1)
    group[0].metadata["grading"] = 1
    assert (
        "grading" not in group[1].metadata
        and [s.index for s in group] == [0, 1]
        and {s.group_index for s in group} == {0}
    )


def test_each_epoch_has_slimes_shuffle(tmp_path):
    data = source(tmp_path, "--rollout-shuffle", "--rollout-seed", "7")
    for epoch in range(3):
        order = list(range(5))
        random.seed(7 + epoch)  # slime: random.seed(seed + epoch_id); random.shuffle(permutation)
        random.shuffle(order)
        assert ids(data.get_samples(5)) == [f"p{i}" for i in order]


def test_a_batch_may_span_epochs(tmp_path):
    data = source(tmp_path)
    assert ids(data.get_samples(4)) + ids(data.get_samples(4)) == [
        "p0",
        "p1",
        "p2",
        "p3",
        "p4",
        "p0",
        "p1",
        "p2",
    ]
    assert ids(data.get_samples(12)) == ["p3", "p4"] + ["p0", "p1", "p2", "p3", "p4"] * 2


@pytest.mark.parametrize("before", [0, 1, 4, 5, 7])
def test_resume_is_exact(tmp_path, before):
    whole, first = (source(tmp_path, "--rollout-shuffle") for _ in range(2))
    whole.get_samples(before), first.get_samples(before)
    resumed = source(tmp_path, "--rollout-shuffle")
    resumed.restore(json.loads(json.dumps(first.state())))
    expected, found = whole.get_samples(9), resumed.get_samples(9)
    assert ids(found) == ids(expected)
    assert [[s.index for s in g] for g in found] == [[s.index for s in g] for g in expected]
