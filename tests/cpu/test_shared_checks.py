"""The same bad input through both trainers, on one command line: both say the same line."""

import json
import shutil
import socket
from types import SimpleNamespace
from typing import ClassVar

import pytest
from doubles.launch_world import NO_TORCH, ROOT, WEIGHTS, row

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.cpu import check_machine, flags
from rubric_rl.cpu.check_machine import hooks_of
from rubric_rl.launch import check_run, shared_checks
from rubric_rl.launch.check_run import PlannedRun, check_flags, check_hooks

# A slime that knows the flags of the trainer without a GPU.
PARSER = """
from rubric_rl.cpu.flags import build_parser
def parse_args():
    parser = build_parser()
    parser.add_argument("--num-layers")   # by which Megatron's parser, the last one, is known
    parser.parse_known_args()
"""
ENGINE_FLAGS = "--actor-num-nodes 1 --actor-num-gpus-per-node 2 --rollout-num-gpus 1"
TRAINING_FLAGS = """
    --input-key prompt --apply-chat-template --rollout-batch-size 4 --n-samples-per-prompt 4
    --global-batch-size 8 --num-epoch 2 --rollout-max-response-len 64
    --custom-rm-path self_reward_rm.reward --attention-dropout 0 --hidden-dropout 0
"""


class Both:
    """A command line that both trainers take, and what each says of it."""

    def __init__(self, path):
        self.path = path
        self.model = path / "model"
        self.command = [
            *f"--hf-checkpoint {self.model} --save {path}/run --load {path}/run".split(),
            *f"--ref-load {self.model} --custom-config-path {path}/grader.yaml".split(),
            *f"--prompt-data {path}/rows.jsonl --eval-prompt-data held {path}/held.jsonl".split(),
            *TRAINING_FLAGS.split(),
            *ENGINE_FLAGS.split(),
        ]

    def without(self, flag: str) -> None:
        """Takes a flag and its value out of the command line."""
        position = self.command.index(flag)
        del self.command[position : position + 2]

    def run(self, *more: str, **fields) -> PlannedRun:
        """The slime run of this command line."""
        machine = {
            "slime_dir": self.path / "slime",
            "megatron_dir": self.path / "slime",
            "nodes": 1,
            "gpus_per_node": 4,
            "ports": [],
            "running_ray": False,
        }
        return PlannedRun(command=[*self.command, *more], **machine | fields)

    def gpu(self, *more: str, **fields) -> list[str]:
        """What the check before a slime run says."""
        return list(check_run.check(self.run(*more, **fields)))

    def cpu(self, *more: str) -> list[str]:
        """What the trainer without a GPU says before it starts a process."""
        try:
            args = flags.parse([*self.command, *more])
            check_machine.check(args)
        except UserError as error:
            return [str(error)]
        return []

    def line(self, *more: str) -> str:
        """The one line that both say."""
        (line,) = self.cpu(*more)
        assert line in self.gpu(*more)
        assert "\n" not in line
        return line


@pytest.fixture
def both(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "rubric_rl/tiny/model", tmp_path / "model")
    (tmp_path / "grader.yaml").write_text("grader_mode: direct\ngrader_max_tokens: 96\n")
    write_jsonl(tmp_path / "rows.jsonl", map(row, range(8)))
    write_jsonl(tmp_path / "held.jsonl", map(row, range(100, 104)))
    slime = tmp_path / "slime"
    for folder in (slime / "slime" / "utils", slime / "megatron"):
        folder.mkdir(parents=True)
    (slime / "slime" / "utils" / "arguments.py").write_text(PARSER)
    (slime / "setup.py").write_text('setup(version="0.3.1",)')
    (slime / "torch.py").write_text(NO_TORCH)
    (slime / "train.py").touch()

    # This machine has no GPU, and may lack memory.
    monkeypatch.setattr(check_run, "check_gpus", lambda run: iter(()))
    monkeypatch.setattr(check_machine, "require_memory", lambda gigabytes, what: None)
    # Processes that most tests need not start.
    monkeypatch.setattr(check_run, "check_flags", lambda run: iter(()))
    monkeypatch.setattr(check_run, "check_hooks", lambda run: iter(()))
    monkeypatch.setattr(check_machine, "hooks_of", lambda args: [])
    return Both(tmp_path)


def test_both_take_what_is_right(both):
    assert both.gpu() == [] and both.cpu() == []


@pytest.mark.parametrize(
    "more, said",
    [
        ("--n-samples-per-prompt 1", "a group of one has no advantage"),
        ("--global-batch-size 3", "--global-batch-size 3 does not divide 16 answers"),
        ("--global-batch-size 1", "no multiple of 2, the data parallel size"),
        ("--global-batch-size 0", "--global-batch-size is missing; 16 makes one optimizer step"),
        ("--num-steps-per-rollout 3", "--num-steps-per-rollout 3 x --global-batch-size 8 is not"),
        ("--over-sampling-batch-size 3", "3 is below --rollout-batch-size 4; raise it"),
        ("--num-epoch 0", "give --num-rollout or --num-epoch"),
        ("--num-rollout 0 --num-epoch 0", "give --num-rollout or --num-epoch"),
        ("--rollout-batch-size 16", "8 prompts make no rollout of --rollout-batch-size 16"),
        ("--num-rollout 2 --lr-warmup-iters 4", "4 optimizer steps of warm-up are not below"),
        ("--partial-rollout", "--partial-rollout: a half-written answer"),
        ("--group-rm", "--group-rm: the hook grades one answer at a time"),
        ("--rollout-temperature 0", "--rollout-temperature 0 must be above 0"),
    ],
)
def test_flags_at_odds(both, more, said):
    assert said in both.line(*more.split())


def test_an_optimizer_step_that_no_flag_gives(both):
    both.without("--global-batch-size")
    assert "--global-batch-size is missing" in both.line()
    for check in (both.gpu, both.cpu):
        assert check("--num-steps-per-rollout", "2") == []


@pytest.mark.parametrize(
    "setting, said",
    [
        ("grader_probe: /nowhere.jsonl", "grader_probe: /nowhere.jsonl: "),
        ("grader_anchor: {path}/judge.yaml", "judge.yaml: grader_api_key_env must name"),
    ],
)
def test_a_probe_or_an_anchor_that_cannot_be_used(both, setting, said):
    judge = "grader_api: openai\ngrader_url: http://127.0.0.1:9/v1\ngrader_model: judge\n"
    (both.path / "judge.yaml").write_text(f"{judge}grader_api_key_env: NO_SUCH_KEY\n")
    settings = f"grader_mode: direct\n{setting.format(path=both.path)}\n"
    (both.path / "grader.yaml").write_text(settings)
    assert said in both.line("--eval-interval", "2")


@pytest.mark.parametrize(
    "more, said",
    [
        ("--rolout-batch-size 3", "which slime would ignore; did you mean --rollout-batch-size?"),
        ("--xyzzy=3", "--xyzzy is an unknown flag, which slime would ignore; leave it out"),
        ("--rollout-batch 3", "--rollout-batch is an abbreviation; write --rollout-batch-size"),
        ("--use-slime-router", "--use-slime-router was removed from slime"),
        ("--slime-router-port=1", "--slime-router-port was removed from slime"),
        ("--lr 1 2", "'2' belongs to no flag; flags begin with --"),
    ],
)
def test_words_that_slime_would_drop(both, more, said):
    (line,) = both.cpu(*more.split())
    assert said in line
    assert list(check_flags(both.run(*more.split()))) == [line]


class TestHooks:
    @pytest.mark.parametrize(
        "name, reason",
        [
            ("self_reward_rm.rewards", "AttributeError: module 'self_reward_rm' has no attribute"),
            ("nowhere.reward", "ModuleNotFoundError: No module named 'nowhere'"),
        ],
    )
    def test_that_cannot_be_imported(self, both, monkeypatch, name, reason):
        monkeypatch.setattr(check_run, "check_hooks", check_hooks)
        monkeypatch.setattr(check_machine, "hooks_of", hooks_of)
        line = both.line("--custom-reward-post-process-path", name)
        assert line.startswith(f"hook {name} cannot be imported ({reason}")

    def test_all_are_named(self, tmp_path, monkeypatch):
        (tmp_path / "noisy.py").write_text("print('loading')\nhook = print\n")
        (tmp_path / "ends.py").write_text("raise SystemExit('no GPU here')\n")
        monkeypatch.syspath_prepend(tmp_path)
        names = ["noisy.hook", "ends.hook", "plain", "noisy.hook"]
        lines = list(shared_checks.check_hooks(names))
        assert [line.split()[1] for line in lines] == ["ends.hook", "plain"]
        assert "SystemExit: no GPU here" in lines[0] and "no module is named" in lines[1]

    def test_whose_import_kills_the_process(self, tmp_path, monkeypatch):
        (tmp_path / "crash.py").write_text("import os, signal\nos.kill(os.getpid(), 9)\n")
        monkeypatch.syspath_prepend(tmp_path)
        (line,) = shared_checks.check_hooks(["crash.hook"])
        assert line.startswith("the hooks crash.hook: signal 9 ended their import")

    def test_a_defect_of_the_check_is_none_of_theirs(self, monkeypatch):
        failed = SimpleNamespace(returncode=1, stdout="", stderr="Traceback: ours")
        monkeypatch.setattr(shared_checks.subprocess, "run", lambda *_, **__: failed)
        with pytest.raises(RuntimeError, match="Traceback: ours"):
            list(shared_checks.check_hooks(["self_reward_rm.reward"]))


class TestHeldOutPrompts:
    def said(self, both, file: str, prompt_id: str) -> str:
        path = both.path
        return (
            f"1 prompts of {path}/rows.jsonl are held out for evaluation in {path}/{file}, "
            f"e.g. {prompt_id}: that is training on the test set; "
            "make the rows again with data_preprocess.py"
        )

    def test_by_their_prompt_id(self, both):
        other = row(1) | {"prompt": [{"role": "user", "content": "another question"}]}
        other["metadata"]["messages"] = other["prompt"]
        write_jsonl(both.path / "held.jsonl", [other])
        assert both.line() == self.said(both, "held.jsonl", "id1")

    def test_by_their_conversation(self, both):
        other = row(1)
        other["metadata"]["prompt_id"] = "another"
        write_jsonl(both.path / "held.jsonl", [other])
        assert both.line() == self.said(both, "held.jsonl", "id1")

    def test_in_a_file_of_hard_rows_beside_them(self, both):
        """The evaluation may be a sample of it; this one holds raw rows."""
        raw = {"prompt_id": "another", "prompt": [{"role": "user", "content": " ask  5\n"}]}
        write_jsonl(both.path / "raw_hard.jsonl", [raw])
        assert both.line() == self.said(both, "raw_hard.jsonl", "id5")

    def test_in_a_data_set_of_the_eval_config(self, both):
        (both.path / "far").mkdir()
        write_jsonl(both.path / "far" / "held.jsonl", [row(3)])
        text = f"eval: {{datasets: [{{name: a, path: {both.path}/far/held.jsonl}}]}}\n"
        (both.path / "eval.yaml").write_text(text)
        line = both.line("--eval-config", f"{both.path}/eval.yaml")
        assert line == self.said(both, "far/held.jsonl", "id3")

    def test_slices_of_one_file_share_none(self, both):
        """Also where its name says that it holds hard rows."""
        write_jsonl(both.path / "all_hard.jsonl", map(row, range(20, 30)))
        file = both.path / "all_hard.jsonl"
        more = ["--prompt-data", f"{file}@[:6]", "--eval-prompt-data", "held"]
        assert both.gpu(*more, f"{file}@[6:]") == both.cpu(*more, f"{file}@[6:]") == []
        assert "1 prompts of" in both.line(*more, f"{file}@[5:]")

    def test_a_hard_row_that_cannot_be_read_is_named(self, both):
        (both.path / "raw_hard.jsonl").write_text("{\n")
        assert "raw_hard.jsonl:1: broken JSON" in both.line()


class TestWeights:
    def test_no_folder(self, both):
        line = both.line("--hf-checkpoint", f"{both.path}/nowhere")
        folder = both.path / "nowhere"
        assert line == f"--hf-checkpoint {folder}: no such folder; set HF_CKPT_PATH to a checkpoint"

    def test_no_tokenizer(self, both):
        (both.model / "tokenizer.json").unlink()
        assert "holds no tokenizer.json; get the checkpoint again" in both.line()

    @pytest.mark.parametrize(
        "content",
        [
            WEIGHTS[:-1],
            b"version https://git-lfs.github.com/spec/v1",
            b"",
            (2).to_bytes(8, "little") + b"[]",
            (6).to_bytes(8, "little") + b'{"a":1',
            (7).to_bytes(8, "little") + b'{"a":1}',
        ],
    )
    def test_cut_short(self, both, content):
        (both.model / "model.safetensors").write_bytes(content)
        line = both.line()
        assert line.endswith(
            "model.safetensors: is cut short, or a pointer of git-lfs; get it again"
        )

    def test_none(self, both):
        (both.model / "model.safetensors").unlink()
        assert both.line().endswith("holds no *.safetensors weights; get the checkpoint again")

    def test_a_shard_that_is_missing(self, both):
        index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
        (both.model / "model.safetensors.index.json").write_text(json.dumps(index))
        said = "lacks 1 of 2 weight files, e.g. model-2.safetensors; finish the download"
        assert both.line().endswith(said)

    @pytest.mark.parametrize(
        "text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}']
    )
    def test_an_index_that_cannot_be_read(self, both, text):
        (both.model / "model.safetensors.index.json").write_text(text)
        assert both.line().endswith("cannot be read; get the checkpoint again")


class TestContext:
    """The tiny checkpoint has 2,048 positions."""

    def test_an_answer_that_does_not_fit(self, both):
        line = both.line("--rollout-max-response-len", "2048")
        assert "tokens and --rollout-max-response-len 2048 exceed the context of 2048" in line

    def test_an_answer_of_the_evaluation_that_does_not_fit(self, both):
        line = both.line("--eval-max-response-len", "2048")
        assert "tokens and max_response_len of held 2048 exceed the context of 2048" in line

    def test_a_grading_that_does_not_fit(self, both):
        line = both.line("--rollout-max-response-len", "1400")
        assert "+ 96 tokens, the context is 2048; lower grader_max_tokens" in line

    def test_prompts_that_are_all_left_out(self, both):
        for flag, file in (("--rollout-max", "rows"), ("--eval-max", "held")):
            line = both.line(f"{flag}-prompt-len", "3")
            assert f"{file}.jsonl: every prompt is longer than 3 tokens" in line

    def test_the_options_of_the_chat_template_count(self, both):
        """Without thoughts this template adds an empty pair of tags."""
        options = ["--apply-chat-template-kwargs", '{"enable_thinking": false}']
        more = ["--rollout-max-response-len", "2048"]
        prompts = [int(both.line(*more, *extra).split()[3]) for extra in ([], options)]
        assert prompts[1] > prompts[0]

    @pytest.mark.parametrize("file, number", [("rows", 3), ("held", 102)])
    def test_a_conversation_that_the_chat_template_refuses_is_named(self, both, file, number):
        path = both.model / "chat_template.jinja"
        refusal = f"{{% if messages[-1].content == 'ask {number}' %}}{{{{ 1 + 'a' }}}}{{% endif %}}"
        path.write_text(refusal + path.read_text())
        place = f"{both.path}/{file}.jsonl, prompt_id id{number}"
        refused = f"the chat template of {both.model} refuses this conversation: TypeError"
        assert both.line().startswith(f"{place}: {refused}")

    @pytest.mark.parametrize(
        "grader",
        [
            "grader_url: http://127.0.0.1:1\ngrader_tokenizer: rubric_rl/tiny/model",
            "grader_url: http://127.0.0.1:1\ngrader_api: openai\ngrader_model: m",
        ],
    )
    def test_a_grading_elsewhere_has_a_context_of_its_own(self, both, monkeypatch, grader):
        monkeypatch.chdir(ROOT)
        (both.path / "grader.yaml").write_text(f"{grader}\n")
        more = ["--rollout-max-response-len", "1400"]
        assert both.gpu(*more) == both.cpu(*more) == []

    def test_another_hook_grades_as_it_likes(self, both):
        more = ["--rollout-max-response-len", "1400", "--custom-rm-path", "doubles.trainer.reward"]
        assert both.gpu(*more) == both.cpu(*more) == []


class TestModelsBesideThePolicy:
    FROZEN = "{name: b, update_weights: false, server_groups: [{num_gpus: 1}]}"

    @pytest.mark.parametrize(
        "settings, models, said",
        [
            ("grader_engine: b", "", "grader_engine b: no such model is served; give --sglang"),
            ("grader_engine: c", "{name: a}, FROZEN", "serves a, b; name one of these"),
            ("", "{name: a}, FROZEN", "serves b, which nothing asks; set grader_engine"),
            ("grader_engine: b", "{name: a}, {name: b}", "it would get the policy's weights"),
            (
                "grader_engine: b",
                "{name: a, update_weights: false}, FROZEN",
                "a, the first model, is the policy, but would never get new weights",
            ),
            ("grader_engine: b", "{name: a, model_path: /other}, FROZEN", "never get new weights"),
            ("grader_engine: b", "{}", "not of slime's form"),
        ],
    )
    def test_that_serve_in_vain(self, both, settings, models, said):
        (both.path / "grader.yaml").write_text(f"grader_max_tokens: 96\n{settings}\n")
        more = ["--rollout-num-gpus", "2"]
        if models:
            file = both.path / "models.yaml"
            file.write_text(f"sglang: [{models.replace('FROZEN', self.FROZEN)}]")
            more += ["--sglang-config", str(file)]
        assert said in both.line(*more)

    def test_that_grade(self, both):
        (both.path / "grader.yaml").write_text("grader_engine: b\n")
        file = both.path / "models.yaml"
        policy = "{name: a, server_groups: [{num_gpus: 1}]}"
        file.write_text(f"sglang: [{policy}, {self.FROZEN}]")
        more = ["--rollout-num-gpus", "2", "--sglang-config", str(file)]
        assert both.gpu(*more) == both.cpu(*more) == []


class TestWatch:
    LABELLED: ClassVar = {
        "prompt_id": "q",
        "prompt": [{"role": "user", "content": "hi"}],
        "completion": "An answer.",
        "rubric": "Greets.",
        "category": "c",
        "binary_labels": [True],
    }

    @pytest.mark.parametrize(
        "settings, more, said",
        [
            ("alarm: warn", "--save-interval 1", "grader_alarm warn is asked at evaluations"),
            ("alarm: stop", "--eval-interval 1", "grader_alarm stop ends a run after a checkpoint"),
            ("alarm: off", "--save-interval 1", "grader_probe is asked at evaluations"),
            ("alarm: off", "--eval-interval 1", ""),
            ("alarm: warn", "--eval-interval 1", ""),
            ("alarm: stop", "--eval-interval 1 --save-interval 1", ""),
        ],
    )
    def test_that_is_never_asked_or_never_heeded(self, both, settings, more, said):
        probe = both.path / "probe.jsonl"
        write_jsonl(probe, [self.LABELLED])
        keys = f"grader_max_tokens: 96\ngrader_probe: {probe}\ngrader_{settings}\n"
        (both.path / "grader.yaml").write_text(keys)
        if not said:
            assert both.gpu(*more.split()) == both.cpu(*more.split()) == []
            return
        assert said in both.line(*more.split())


class TestPorts:
    def test_in_use(self, both):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            (cpu,) = both.cpu("--sglang-router-port", str(port))
            (gpu,) = both.gpu(ports=[port])
        reason = "cannot be used (Address already in use); end the process that holds it"
        assert cpu.startswith(f"port {port} for the router (--sglang-router-port) {reason}")
        assert gpu.startswith(f"port {port} for Ray (RAY_PORT, RAY_DASHBOARD_PORT) {reason}")

    def test_that_no_port_can_have(self, both):
        (cpu,) = both.cpu("--sglang-router-port", "70000")
        (gpu,) = both.gpu(ports=[70000])
        for line in (cpu, gpu):
            assert "cannot be used (bind(): port must be 0-65535.)" in line

    def test_a_running_ray_has_its_own(self, both):
        assert both.gpu(ports=[70000], running_ray=True) == []
