"""Two models, each behind engines of its own: the policy gets new weights, the other never does."""

import json
import subprocess
import sys

import pytest
from doubles.trainer import FLAGS, write_rows

from rubric_rl import ROOT

pytestmark = pytest.mark.stack

# Starts all of a run whose training begins with other weights than the engines, hands the weights
# over, and prints what each model says before and after; then who grades an answer.
TRAINER = """
import asyncio, json, sys
from pathlib import Path
from rubric_rl.cpu import check_machine, flags, local_ray

local_ray.set_environment()
from rubric_rl.cpu.cluster import Cluster
from rubric_rl.cpu.engine import request
from rubric_rl.data.schema import Criterion, Row
from rubric_rl.grading.grade import grade
from rubric_rl.grading.graders import Graders

folder, initial, words = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
args = flags.parse(words)
check_machine.check(args)

def said(routers):
    body = {"text": "Please see", "return_logprob": True,
            "sampling_params": {"temperature": 0, "max_new_tokens": 8}}
    found = {}
    for name, (host, port) in routers.items():
        meta = request(f"http://{host}:{port}/generate", body)["meta_info"]
        logprobs = [entry[0] for entry in meta["output_token_logprobs"]]
        found[name] = meta["weight_version"], logprobs
    return found

async def graded(routers):
    args.sglang_router_port, args.sglang_model_routers = routers["policy"][1], routers
    row = Row("p0", ({"role": "user", "content": "x"},), (Criterion("Wishes the patient well", 5),))
    graders = Graders(args, lambda: False)
    record = await grade(graders.choose("p0", training=True), row, "I wish you well.")
    await graders.close()
    return record.to_json()

with Cluster(args, folder) as cluster:
    cluster.start(initial, None, None)
    workers = {name: request(f"http://{host}:{port}/workers")["workers"]
               for name, (host, port) in cluster.routers.items()}
    urls = {name: [worker["url"] for worker in found] for name, found in workers.items()}
    before = said(cluster.routers)
    cluster.sync(5)
    after = said(cluster.routers)
    record = asyncio.run(graded(cluster.routers))
print(json.dumps([urls, before, after, record]))
"""


def test_a_weight_update_of_the_policy_leaves_the_frozen_grader_as_it_is(
    tiny_model, other_weights, tmp_path
):
    initial = other_weights(tiny_model, tmp_path / "other")
    (tmp_path / "grader.yaml").write_text("grader_engine: grader\ngrader_mode: direct\n")
    rows = write_rows(tmp_path / "rows.jsonl", 4)
    flags = [
        *FLAGS,
        *("--prompt-data", str(rows), "--hf-checkpoint", str(tiny_model)),
        *("--save", str(tmp_path / "run"), "--rollout-num-gpus", "2"),
        *("--custom-rm-path", "self_reward_rm.reward"),
        *("--sglang-config", "configs/frozen_grader.yaml"),
        *("--custom-config-path", str(tmp_path / "grader.yaml")),
    ]
    command = [sys.executable, "-c", TRAINER, str(tmp_path / "run"), str(initial)]
    command.append(json.dumps(flags))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    urls, before, after, record = json.loads(done.stdout.splitlines()[-1])

    (policy,), (grader,) = urls["policy"], urls["grader"]
    assert policy != grader
    assert before["policy"] == before["grader"], "both began with the same weights"
    version, logprobs = after["grader"]
    assert version == before["grader"][0] == "0"
    assert logprobs == pytest.approx(before["grader"][1], abs=1e-4)
    version, logprobs = after["policy"]
    assert version == "5"
    assert logprobs != pytest.approx(before["policy"][1], abs=1e-2)
    assert (record["status"], record["grader"]) == ("graded", "grader")
    assert record["grader_versions"] == ["0"]
