"""What the launcher calls: ray, ssh, srun, scontrol, nvidia-smi.

    cluster_commands.py NAME ARGUMENTS...

The folder $FAKE holds the cluster: calls.jsonl (who was called how), gpus.PID (a living process of
Ray), job.pid, job.status.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE"])


def record(name: str, words: list[str]) -> None:
    """One line in calls.jsonl; `key` shows whether the secret came along in the environment."""
    call = {
        "name": name,
        "words": words,
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "key": os.environ.get("WANDB_API_KEY"),
    }
    with open(STATE / "calls.jsonl", "a") as calls:
        calls.write(json.dumps(call) + "\n")


def after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def ray_start(words: list[str]) -> int:
    """Lives until SIGTERM, which RAY_IS_DEAF lets it and its child ignore.

    A head listens at its address, and every node brings its GPUs.
    """
    kind = "head" if "--head" in words else "worker"
    if os.environ.get("RAY_BREAKS") == kind:
        print("this Ray cannot start")
        return 1
    gpus = STATE / f"gpus.{os.getpid()}"

    def end(*_):
        gpus.unlink()
        record(f"{kind} ended", [])
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    if "RAY_IS_DEAF" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["/bin/sleep", "600"])  # as deaf
    listener = socket.socket()
    if kind == "head":
        listener.bind((after(words, "--node-ip-address"), int(after(words, "--port"))))
        listener.listen()
    gpus.write_text("0" if "RAY_WITHOUT_GPUS" in os.environ else after(words, "--num-gpus"))
    while True:
        signal.pause()


def job_submit(words: list[str]) -> int:
    """Runs the entrypoint in a session of its own, as Ray does.

    Returns 1 when it fails, 0 also when it was stopped.
    """
    late = STATE / "agent_was_late"
    if "AGENT_IS_LATE" in os.environ and not late.exists():
        late.touch()
        print("RuntimeError: Request failed with status code 500: No available agent to submit job")
        return 1
    env = os.environ | json.loads(after(words, "--runtime-env-json"))["env_vars"]
    entrypoint = words[words.index("--") + 1 :]
    status = STATE / "job.status"
    status.unlink(missing_ok=True)
    script = 'trap "exit 1" TERM; "$@" & wait $!; echo $? >"$0.new" && mv "$0.new" "$0"'
    shown = subprocess.DEVNULL if "LOG_BREAKS" in env else None
    job = subprocess.Popen(
        ["bash", "-c", script, str(status), *entrypoint],
        env=env,
        start_new_session=True,
        stdout=shown,
        stderr=shown,
    )
    (STATE / "job.pid").write_text(str(job.pid))
    if "LOG_BREAKS" in os.environ:
        return 0
    job.wait()
    return int(status.read_text().strip() not in ("0", "stopped"))


def job_status(words: list[str]) -> int:
    status = STATE / "job.status"
    text = status.read_text().strip() if status.exists() else ""
    said = {
        "": "Status for job 'j': RUNNING",
        "0": "Job 'j' succeeded",
        "stopped": "Job 'j' was stopped",
    }
    print("a line of Ray's own", said.get(text, "Job 'j' failed"), sep="\n")
    return 0


def job_stop(words: list[str]) -> int:
    (STATE / "job.status").write_text("stopped")
    os.killpg(int((STATE / "job.pid").read_text()), signal.SIGTERM)
    return 0


def ssh(words: list[str]) -> int:
    """`bash -s` on the other machine: what it knows comes through the pipe."""
    if os.environ.get("SSH_BREAKS") in words:
        print("ssh: connect to host port 22: Connection refused", file=sys.stderr)
        return 255
    there = words[words.index("bash") :]
    env = {"PATH": os.environ["PATH"], "FAKE": str(STATE)}
    os.chdir("/")
    os.execvpe(there[0], there, env)


def srun(words: list[str]) -> int:
    there = words[words.index("ray") :]
    os.execvp(there[0], there)


def scontrol(words: list[str]) -> int:
    print(os.environ["SLURM_JOB_NODELIST"].replace(",", "\n"))
    return 0


def nvidia_smi(words: list[str]) -> int:
    """Eight GPUs of 80 GB that NVLink joins."""
    if "topo" in words:
        print("\tGPU0\tGPU1\nGPU0\tX\tNV18")
    else:
        print("81559, 1\n" * 8, end="")
    return 0


COMMANDS = {
    "ray start": ray_start,
    "ray job submit": job_submit,
    "ray job status": job_status,
    "ray job stop": job_stop,
    "ssh": ssh,
    "srun": srun,
    "scontrol": scontrol,
    "nvidia-smi": nvidia_smi,
}


def main() -> int:
    """Plays the command that the words begin with."""
    called = " ".join(sys.argv[1:])
    name = next(name for name in COMMANDS if called.startswith(name))
    words = sys.argv[1 + len(name.split()) :]
    record(name, words)
    return COMMANDS[name](words)


if __name__ == "__main__":
    sys.exit(main())
