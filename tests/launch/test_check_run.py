"""What is found before Ray starts, each finding one line."""

import asyncio
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from doubles.engine import Fail, FakeEngine
from doubles.launch_world import ROOT, WEIGHTS, planned_run, row, script

import data_preprocess
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.grading.health import CHECK
from rubric_rl.launch import check_inputs, check_run
from rubric_rl.launch.check_inputs import RunInputs
from rubric_rl.launch.shared_checks import prompt_lengths
from rubric_rl.launch.slime_flags import CommandLine

SHAPE = (
    "--num-layers 36 --hidden-size 4096 --ffn-hidden-size 12288 --num-attention-heads 32 "
    "--num-query-groups 8 --kv-channels 128 --vocab-size 151936 "
    "--untie-embeddings-and-output-weights"
)


class Good:
    """A run that nothing is wrong with, on a machine with eight free GPUs of 80 GB."""

    def __init__(self, path):
        self.path = path
        self.gpus = ["81559, 1"] * 8  # as nvidia-smi prints them
        self.flags = f"""
            {SHAPE} --hf-checkpoint {path}/hf --ref-load {path}/hf --load {path}/run
            --save {path}/run --save-interval 10 --prompt-data {path}/healthbench_easy.jsonl
            --eval-prompt-data hard {path}/healthbench_hard.jsonl
            --custom-config-path {path}/grader.yaml --rollout-batch-size 32
            --n-samples-per-prompt 4 --global-batch-size 32 --num-rollout 10
            --rollout-max-response-len 6144 --tensor-model-parallel-size 2
            --actor-num-nodes 1 --actor-num-gpus-per-node 4 --rollout-num-gpus 4
            --max-tokens-per-gpu 16384 --recompute-granularity full --sequence-parallel
            --custom-rm-path self_reward_rm.reward
            """.split()
        self.run = planned_run(slime_dir=path / "slime", megatron_dir=path / "mega")

    def find(self, *more: str) -> list[str]:
        """What is found when these flags are added."""
        return list(check_run.check(replace(self.run, command=[*self.flags, *more])))


@pytest.fixture
def good(tmp_path, monkeypatch):
    for folder in ("hf", "slime", "mega/megatron"):
        (tmp_path / folder).mkdir(parents=True)
    config = json.loads((ROOT / "rubric_rl/tiny/model/config.json").read_text())
    config["max_position_embeddings"] = 40960
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    (tmp_path / "hf" / "tokenizer.json").write_text("{}")
    (tmp_path / "hf" / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "slime" / "train.py").write_text("")
    (tmp_path / "slime" / "setup.py").write_text('setup(version="0.3.1",)')
    write_jsonl(tmp_path / "healthbench_easy.jsonl", map(row, range(32)))
    write_jsonl(tmp_path / "healthbench_hard.jsonl", map(row, range(100, 104)))
    (tmp_path / "grader.yaml").write_text("grader_max_tokens: 1024\n")
    good = Good(tmp_path)
    run = subprocess.run

    def nvidia_smi(command, **how):
        if command[0] != "nvidia-smi":
            return run(command, **how)
        return SimpleNamespace(stdout="\n".join(good.gpus))

    monkeypatch.setattr(check_run.subprocess, "run", nvidia_smi)
    # tests/contracts runs slime's parser; importing the hooks takes seconds and has its own test.
    monkeypatch.setattr(check_run, "check_flags", lambda run: iter(()))
    monkeypatch.setattr(check_run, "check_hooks", lambda run: iter(()))
    monkeypatch.setattr(check_run.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**13))
    template = SimpleNamespace(
        render=lambda messages, thinking: "x",
        count=lambda text: 100,
    )
    monkeypatch.setattr(check_inputs, "ChatTokenizer", lambda folder: template)
    return good


def test_nothing_is_found_where_nothing_is_wrong(good):
    assert good.find() == []


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--hf-checkpoint", "/nowhere"], "set HF_CKPT_PATH"),
        (["--ref-load", "/nowhere"], "set DIST_CKPT_PATH"),
        (["--save", "/proc/run"], "set SAVE_PATH"),
        (["--global-batch-size", "48"], "--global-batch-size 48 does not divide 128 answers"),
        (["--global-batch-size", "1"], "no multiple of 2, the data parallel size"),
        (["--n-samples-per-prompt", "1"], "a group of one has no advantage"),
        (["--num-steps-per-rollout", "3"],
         "--num-steps-per-rollout 3 x --global-batch-size 32 is not 128"),
        (["--over-sampling-batch-size", "16"], "below --rollout-batch-size"),
        (["--tensor-model-parallel-size", "3"], "4 training GPUs are no multiple of tensor 3"),
        (["--rollout-num-gpus", "8"], "12 GPUs are asked for, but 1 node(s) of 8 have 8"),
        (["--actor-num-gpus-per-node", "16", "--tensor-model-parallel-size", "16"],
         "8 key-value heads cannot be shared by 16 GPUs"),
        (["--pipeline-model-parallel-size", "8", "--tensor-model-parallel-size", "1",
          "--actor-num-gpus-per-node", "8"],
         "36 layers cannot be shared by 8"),
        (["--rollout-max-response-len", "40900"], "exceed the context of 40960"),
        (["--max-tokens-per-gpu", "5000", "--use-dynamic-batch-size"],
         "below the longest sample, 100 + 6144"),
        (["--max-tokens-per-gpu", "65536"],
         "GPU 0, 1, 2, 3, 4, 5, 6, 7: 86 GB, training needs about"),
        (["--sglang-mem-fraction-static", "0.2"],
         "but an engine needs 16 for its weights and 1 for one"),
        (["--apply-chat-template-kwargs", "[]"], "-kwargs []: not a JSON object"),
        (["--num-rollout", "1e3"], "--num-rollout 1e3: not a whole number"),
        (["--sglang-mem-fraction-static", "nan"], "--sglang-mem-fraction-static nan: not a number"),
        (["--num-rollout", "0", "--num-epoch", "2", "--rollout-batch-size", "64"],
         "32 prompts make no rollout of --rollout-batch-size 64; lower it"),
        (["--partial-rollout"], "--partial-rollout"),
        (["--group-rm"], "--group-rm"),
        (["--rollout-temperature", "0"], "must be above 0"),
        (["--prompt-data", "/nowhere.jsonl"], "/nowhere.jsonl: no such file"),
        (["--load", "/elsewhere"], "would not go on with the run"),
        (["--num-rollout", "0"], "give --num-rollout or --num-epoch"),
        (["--num-rollout", "2", "--lr-warmup-iters", "8"],
         "8 optimizer steps of warm-up are not below the run's 8"),
    ],
)  # fmt: skip
def test_each_failure_is_one_line(good, flags, message):
    lines = good.find(*flags)
    assert any(message in line for line in lines), lines
    assert not any("\n" in line for line in lines)


def test_one_folder_given_twice_is_one_finding(good):
    lines = good.find("--hf-checkpoint", "/nowhere", "--ref-load", "/nowhere")
    assert [line for line in lines if "no such folder" in line] == [
        "--hf-checkpoint /nowhere: no such folder; set HF_CKPT_PATH to a checkpoint"
    ]


@pytest.mark.parametrize(
    "flags",
    [
        "--n-samples-per-prompt 2",
        "--max-tokens-per-gpu 5000",  # without --use-dynamic-batch-size it is not read
        # + 100 prompt, 100 criterion, 600 instructions, 1,024 verdict = 40,960
        "--rollout-max-response-len 39136",
    ],
)
def test_what_just_fits_is_no_finding(good, flags):
    assert good.find(*flags.split()) == []
    (line,) = good.find("--rollout-max-response-len", "39137")
    assert "grading may take 100 + 39137 + 100 + 600 + 1024 tokens, the context is 40960" in line


@pytest.mark.parametrize("prefix, findings", [(sys.prefix, 0), ("/another/place", 1)])
def test_the_ray_on_path_must_be_that_of_the_python(tmp_path, monkeypatch, prefix, findings):
    """Ray starts the workers with the interpreter of its own command, whatever PYTHON is."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/bash\necho {prefix}\n")
    (tmp_path / "ray").write_text(f"#!{interpreter}\n")
    for file in (interpreter, tmp_path / "ray"):
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    lines = list(check_run.check_ray_command(planned_run()))
    assert len(lines) == findings
    assert all("/another/place, which lacks what PYTHON has" in line for line in lines)
    assert list(check_run.check_ray_command(planned_run(running_ray=True))) == []


def test_a_ray_whose_python_does_not_run_is_named(tmp_path, monkeypatch):
    (tmp_path / "ray").write_text("#!/nowhere/python\n")
    (tmp_path / "ray").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (line,) = check_run.check_ray_command(planned_run())
    assert "its Python does not run" in line and "put the folder of PYTHON's own ray first" in line


def test_only_flags_that_name_hooks_are_imported(monkeypatch):
    """A settings file in this folder looks like a dotted name, a folder does not."""
    monkeypatch.chdir(ROOT)
    flags = "--custom-rm-path self_reward_rm.reward --custom-config-path grader.yaml"
    flags += " --dynamic-sampling-filter-path self_reward_rm.keep --data-path /a/b.c"
    (line,) = check_run.check_hooks(planned_run(command=flags.split()))
    assert line.startswith("hook self_reward_rm.keep cannot be imported (AttributeError")


def test_hard_prompts_in_the_training_file_are_refused(good):
    write_jsonl(good.path / "healthbench_easy.jsonl", map(row, [1, 2, 101]))
    assert any(
        "1 prompts of" in line and "training on the test set" in line for line in good.find()
    )


def test_hard_prompts_are_found_in_the_hard_file_beside_a_sample_too(good):
    write_jsonl(good.path / "healthbench_easy.jsonl", map(row, [1, 2, 101]))
    write_jsonl(good.path / "sample.jsonl", [row(100)])
    assert any(
        "training on the test set" in line
        for line in good.find("--eval-prompt-data", "hard", str(good.path / "sample.jsonl"))
    )


def test_hard_prompts_are_found_in_raw_rows_beside_them_too(good):
    write_jsonl(good.path / "raw_hard.jsonl", [{"prompt_id": "id5", "prompt": [], "rubrics": []}])
    (line,) = good.find()
    assert (
        "1 prompts of" in line
        and "raw_hard.jsonl, e.g. id5: that is training on the test set" in line
    )


def test_hard_prompts_are_found_under_another_prompt_id_too(good):
    raw = {
        "prompt_id": "another",
        "prompt": [{"role": "user", "content": " ask  5\n"}],
        "rubrics": [],
    }
    write_jsonl(
        good.path / "raw_hard.jsonl",
        [raw, raw | {"prompt": "ask 6"}, raw | {"prompt": [{"role": "user"}]}],
    )
    (line,) = good.find()
    assert (
        "1 prompts of" in line
        and "raw_hard.jsonl, e.g. id5: that is training on the test set" in line
    )


def test_hard_prompts_are_found_in_the_files_of_the_eval_config(good, tmp_path):
    (tmp_path / "far").mkdir()
    write_jsonl(tmp_path / "far" / "held.jsonl", [row(1)])
    config = tmp_path / "eval.yaml"
    config.write_text(
        f"eval:\n  datasets:\n    - name: held\n      path: {tmp_path}/far/held.jsonl\n"
    )
    (line,) = good.find("--eval-config", str(config))
    assert "1 prompts of" in line and "far/held.jsonl" in line


def test_the_tiny_rows_pass_with_the_raw_ones_beside_them(tmp_path, monkeypatch):
    """As run_qwen3_tiny.sh makes them; raw and finished hard rows have the same kind of name."""
    run = [sys.executable, "-m", "rubric_rl.tiny.world", "--out", str(tmp_path)]
    subprocess.run(run, cwd=ROOT, check=True, capture_output=True)
    raw = [
        f"--{flag}={tmp_path}/tiny_{part}.jsonl"
        for flag, part in (("source", "all"), ("hard", "hard"))
    ]
    assert data_preprocess.main([*raw, f"--out={tmp_path}", "--allow-subset"]) == 0
    monkeypatch.setenv("EVAL_DATA_PATH", str(tmp_path / "healthbench_hard.jsonl"))
    easy = str(tmp_path / "healthbench_easy.jsonl")
    dry = script("run_qwen3_tiny.sh", BACKEND="slime", DRY_RUN="1", PROMPT_DATA_PATH=easy)
    inputs = RunInputs(CommandLine(shlex.split(dry.stdout)[2:]))
    assert len(inputs.training_rows) == 320
    assert [*check_inputs.check_rows(inputs), *check_inputs.check_lengths(inputs)] == []


def test_a_row_that_slime_would_leave_out_is_named(good):
    path = good.path / "healthbench_easy.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[1] = "\ufeff" + lines[1]  # as where two files of Windows were joined
    path.write_text("".join(lines), encoding="utf-8")
    (line,) = good.find()
    assert line.startswith(f"{path}:2: a byte order mark begins the line, which slime leaves out")


def test_rows_without_rubrics_are_refused(good):
    write_jsonl(
        good.path / "healthbench_easy.jsonl",
        [
            {
                "prompt": "x",
                "metadata": {"prompt_id": "a", "messages": [{"role": "user", "content": "x"}]},
            }
        ],
    )
    assert any("easy.jsonl:1, prompt_id a: rubrics is not a list" in line for line in good.find())


def test_weights_that_a_download_left_unfinished(good):
    hf = good.path / "hf"
    for broken in (
        WEIGHTS[:-1],
        b"version https://git-lfs.github.com/spec/v1",
        b"",
        (2).to_bytes(8, "little") + b"[]",
    ):
        (hf / "model.safetensors").write_bytes(broken)
        (line,) = good.find()
        assert "model.safetensors: is cut short, or a pointer of git-lfs" in line
    (hf / "model.safetensors").unlink()
    (line,) = good.find()
    assert "holds no *.safetensors weights" in line
    (hf / "model-1.safetensors").write_bytes(WEIGHTS)
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (hf / "model.safetensors.index.json").write_text(json.dumps(shards))
    (line,) = good.find()
    assert "lacks 1 of 2 weight files, e.g. model-2.safetensors; finish the download" in line


@pytest.mark.parametrize(
    "word, folder, message",
    [
        ("7", "iter_0000006", "names iter_0000007, which is not there"),
        ("7", "iter_0000007", ""),
        ("release", "release", ""),
        ("", "iter_0000007", "holds '', no iteration"),
    ],
)
def test_a_checkpoint_that_is_named_must_be_there(good, word, folder, message):
    (good.path / "run" / folder).mkdir(parents=True)
    (good.path / "run" / "latest_checkpointed_iteration.txt").write_text(word)
    lines = good.find()
    assert len(lines) == bool(message) and all(message in line for line in lines)


def test_machine_and_checkouts(good, monkeypatch):
    good.gpus = ["81559, 1"] * 3 + ["40000, 1", "81559, 9000"]
    lines = good.find()
    assert any("5 GPUs here, not 8" in line for line in lines) and any(
        "GPU 3: 42 GB" in line for line in lines
    )
    assert any("GPU 4: in use" in line for line in lines)
    monkeypatch.setattr(check_run.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**11))
    (good.path / "slime" / "setup.py").write_text('version="0.2.9"')
    good.run = replace(good.run, megatron_dir=good.path)
    lines = good.find()
    assert any("1 checkpoints of 115 GB are to come, 100 GB are free" in line for line in lines)
    assert any("version 0.2.9, but 0.3.1 or later" in line for line in lines) and any(
        "MEGATRON_DIR" in line for line in lines
    )


def test_a_grader_that_needs_more_context_than_there_is(good):
    (good.path / "grader.yaml").write_text("grader_max_tokens: 40000\n")
    assert any("lower grader_max_tokens" in line for line in good.find())


@pytest.mark.parametrize(
    "settings, engines, message",
    [
        ("grader_engine: grader", None,
         "grader_engine grader: no such model is served; give --sglang-config"),
        ("grader_engine: judge", "configs/frozen_grader.yaml",
         "serves policy, grader; name one of these"),
        ("", "configs/frozen_grader.yaml", "serves grader, which nothing asks; set grader_engine"),
        ("grader_engine: b", "{sglang: [{name: a, server_groups: [{num_gpus: 2}]}, {name: b}]}",
         "add up to 2, but 4 GPUs serve"),
        ("grader_engine: b", "{sglang: [{name: a, server_groups: [{num_gpus: 4}]}, {name: b}]}",
         "would get the policy's weights; write update_weights: false"),
        ("grader_engine: b", "{models: []}", "not of slime's form"),
        ("grader_engine: b", "{sglang: [{name: a, server_groups: [{gpus: 4}]}, {name: b}]}",
         "not of slime's form"),
        ("grader_engine: b", "{sglang: [a, b]}", "not of slime's form"),
        ("grader_engine: b", "{sglang: [", "broken YAML"),
        ("grader_engine: b", "/nowhere.yaml", "cannot be read (No such file or directory)"),
        ("grader_url: http://h\ngrader_api: openai\ngrader_model: m\n"
         "grader_api_key_env: NO_KEY_HERE", None,
         "grader.yaml: grader_api_key_env must name an environment variable that holds the key"),
        ("grader_teacher: configs/teacher.yaml\ngrader_teacher_share: 0.1", None,
         "configs/teacher.yaml: grader_api_key_env must name an environment variable"),
        ("grader_mode: direct\ngrader_threshold: 0.8\ngrader_teacher: configs/teacher.yaml\n"
         "grader_teacher_share: 0.1", None,
         "configs/teacher.yaml: grader_threshold and grader_reward probability need"),
        ("grader_engine: grader", "configs/frozen_grader.yaml", ""),
        ("grader_anchor: {folder}/frozen.yaml", "configs/frozen_grader.yaml", ""),
        ("grader_probe: /nowhere.jsonl", None, "grader_probe: /nowhere.jsonl: "),
        ("grader_anchor: configs/teacher.yaml", None,
         "configs/teacher.yaml: grader_api_key_env must name an environment variable"),
    ],
)  # fmt: skip
def test_a_grader_that_could_not_be_asked_is_found_before_the_gpus_wait_for_it(
    good, monkeypatch, settings, engines, message
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(ROOT)
    (good.path / "frozen.yaml").write_text("grader_engine: grader\n")
    settings = settings.format(folder=good.path)
    (good.path / "grader.yaml").write_text(f"grader_max_tokens: 1024\n{settings}\n")
    if engines and engines.startswith("{"):
        (good.path / "engines.yaml").write_text(engines)
        engines = str(good.path / "engines.yaml")
    lines = good.find(*(["--sglang-config", engines] if engines else []))
    assert any(message in line for line in lines) if message else lines == []
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    good.run = replace(good.run, running_ray=True)  # has the keys in its own environment
    if "key" in message:
        assert good.find() == []


def test_a_grader_outside_of_the_run_answers_its_check_question_before_the_gpus_wait(
    good, monkeypatch, capsys
):
    def preflight(engine: FakeEngine) -> tuple[int, str]:
        """Exit status and complaint of the command, with the engine as its grader."""
        settings = f"grader_url: {engine.url}\ngrader_api: openai\ngrader_model: m\n"
        (good.path / "grader.yaml").write_text(settings + "grader_max_tokens: 1024\n")
        run = replace(good.run, command=good.flags)
        monkeypatch.setattr(check_run, "_planned_run", lambda: run)
        return check_run.main(), capsys.readouterr().err

    async def both(engine: FakeEngine) -> tuple[int, str]:
        async with engine:
            return await asyncio.to_thread(preflight, engine)

    assert asyncio.run(both(FakeEngine())) == (0, "")
    status, said = asyncio.run(both(FakeEngine(Fail(404, "no such model"), checked=False)))
    assert status == 2
    assert "grader.yaml: the grader cannot be asked: " in said
    assert "no such model" in said


def test_a_slime_that_tells_no_version_is_not_refused_and_it_is_said(good, monkeypatch, capsys):
    (good.path / "slime" / "setup.py").unlink()
    assert good.find() == []
    monkeypatch.setattr(check_run, "_planned_run", lambda: replace(good.run, command=good.flags))
    assert check_run.main() == 0
    assert "SLIME_DIR tells no version of slime; its own parser said" in capsys.readouterr().out


def test_fully_asynchronous_training_needs_gpus_apart_from_the_engines(good):
    (line,) = good.find("--flush-cache-interval", "2", "--colocate")
    assert line.endswith("on GPUs apart from the engines'; leave out --colocate")
    assert good.find("--flush-cache-interval", "1", "--colocate") == []


@pytest.mark.parametrize("flags", ["--wandb-key secret", "--wandb-key=secret"])
def test_a_key_among_the_flags_is_refused_and_not_repeated(flags, monkeypatch, capsys):
    own = "--slime-dir s --megatron-dir m --nodes 1 --gpus-per-node 1 --"
    monkeypatch.setattr(check_run.sys, "argv", ["check_run", *own.split(), *flags.split()])
    assert check_run.main() == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: --wandb-key: a key") and err.endswith("WANDB_API_KEY instead\n")
    assert "secret" not in out + err and err.count("\n") == 1


def test_a_mistake_in_the_checks_own_flags_is_one_line_and_2(monkeypatch, capsys):
    monkeypatch.setattr(check_run.sys, "argv", ["check_run", "--nodes", "two"])
    assert check_run.main() == 2
    said = "argument --nodes: 'two' is no whole number of 0 or more"
    hint = "see python -m rubric_rl.launch.check_run --help"
    assert capsys.readouterr() == ("", f"error: {said}; {hint}\n")


def test_a_defect_of_ours_shows_its_traceback_and_is_no_mistake_of_the_users(good, monkeypatch):
    flags = "--slime-dir s --megatron-dir m --nodes 1 --gpus-per-node 1 -- --lr 1"
    monkeypatch.setattr(check_run.sys, "argv", ["check_run", *flags.split()])
    monkeypatch.setattr(check_run, "check_paths", lambda run: iter([][0]))
    with pytest.raises(IndexError):
        check_run.main()


@pytest.mark.parametrize(
    "options, thinking",
    [({}, True), ({"enable_thinking": False}, False), ({"thinking": False}, False)],
)
def test_prompts_are_measured_with_the_thoughts_that_the_template_is_told(options, thinking):
    seen = []

    class Template:
        def render(self, messages, thinking):
            seen.append(thinking)
            return ""

        def count(self, text):
            return 1

    prompt_lengths(
        "a file", [CHECK], Template(), template_options=options, max_prompt=None, limit="", answer=0
    )
    assert seen[0] is thinking
