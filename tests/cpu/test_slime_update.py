"""The benchmark that sets slime's updates beside ours: a dump of our own agrees with itself."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rubric_rl import ROOT
from rubric_rl.cpu.actor import Actor


@pytest.fixture(scope="module")
def benchmark():
    file = ROOT / "tests" / "benchmarks" / "slime_update.py"
    spec = importlib.util.spec_from_file_location("slime_update", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(count: int) -> list[dict]:
    """As slime writes them down, all but their log-probabilities."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(count):
        length = 2 + i % 5
        made.append({
            "tokens": torch.randint(5, 1300, (12,), generator=generator),
            "response_lengths": length,
            "loss_masks": torch.ones(length, dtype=torch.int),
            "rewards": i % 4 - 1.5,
            "log_probs": torch.zeros(length),
        })  # fmt: skip
    return made


@pytest.fixture
def run(benchmark, tmp_path) -> Path:
    """A run of one rollout that slime might have made, made by the CPU trainer."""
    args = benchmark.settings()
    samples = answers(args.global_batch_size)
    dump = tmp_path / "train_0.pt"
    torch.save({"samples": samples}, dump)
    actor = Actor(args, 0, 1, tmp_path / "store")
    actor.load(str(benchmark.START))
    steps = benchmark.watched(actor)
    actor.train(0, benchmark.trained_on(dump))
    actor.export_hf(str(tmp_path / "hf_0"))
    actor.close()
    figures = {f"train/{name}": value for name, value in steps[0].items()}
    line = f"\x1b[36m(Actor pid=7)\x1b[0m [2026-01-01 00:00:00] model.py:918 - step 0: {figures}\n"
    (tmp_path / "train.log").write_text(line)
    return tmp_path


def test_the_same_updates_are_shown_as_the_same(benchmark, run, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["slime_update.py", str(run)])
    benchmark.main()
    shown = capsys.readouterr().out
    pairs = re.findall(r"(-?\d+\.\d{4}) / (-?\d+\.\d{4})", shown)
    assert len(pairs) == len(benchmark.COMPARED)
    assert all(slime == here for slime, here in pairs)
    # Adam's first step takes a rounding error of a gradient near zero for a direction.
    assert float(re.search(r"cosine (\d\.\d{4})", shown).group(1)) > 0.99
    assert "slime's distance 1.0000 of ours" in shown


def test_other_weights_and_log_probabilities_are_told_apart(benchmark, run, capsys, monkeypatch):
    weights = load_file(run / "hf_0" / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for tensor in weights.values():
        tensor += 3e-4 * torch.randn(tensor.shape, generator=generator)
    save_file(weights, run / "hf_0" / "model.safetensors")
    monkeypatch.setattr("sys.argv", ["slime_update.py", str(run)])
    benchmark.main()
    shown = capsys.readouterr().out
    cosine = float(re.search(r"cosine (\d\.\d{4})", shown).group(1))
    assert cosine < 0.9
    difference = float(re.search(r"differ by (\d+\.\d{4})", shown).group(1))
    assert difference > 1  # the dump says 0: every token certain


@pytest.mark.parametrize("missing", ["train_0.pt", "hf_0"])
def test_a_run_without_the_dumps_is_refused(benchmark, tmp_path, capsys, monkeypatch, missing):
    for made in {"train_0.pt", "hf_0"} - {missing}:
        (tmp_path / made).touch()
    monkeypatch.setattr("sys.argv", ["slime_update.py", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 2
    assert f"{tmp_path / missing} is missing" in capsys.readouterr().err
