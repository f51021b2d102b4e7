"""SGLang engines on the CPU, their router, and weight updates (stages 2 rollout and 3 grading)."""

import json
import os
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import psutil

from rubric_rl.cpu.process import Child
from rubric_rl.errors import UserError
from rubric_rl.launch.shared_checks import check_port

HOST = "127.0.0.1"
COMPAT = Path(__file__).parent / "compat"
ENGINE_GB = (
    2.0  # one engine is three processes of half a gigabyte (nearly all imports) and its KV cache
)
ROUTER_MAIN = """
import json, sys
from sglang_router.router import Router
from sglang_router.router_args import RouterArgs
Router.from_args(RouterArgs(**json.loads(sys.argv[1]))).start()
"""  # `python -m sglang_router.launch_router` would import all of SGLang first (20 s)
ROUTER_KNOBS = {
    "assignment_mode": "min_group",  # a new routing key goes to the engine with the fewest keys
    "worker_startup_check_interval": 1,
    "health_check_interval_secs": 5,
    "health_success_threshold": 1,
    "log_level": "error",
    "disable_retries": True,  # the client retries, where attempts are counted
    "disable_circuit_breaker": True,  # it counts HTTP 400: ten bad requests would shut out a good engine
}
_OPENER = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
)  # loopback never goes through a proxy


def free_port() -> int:
    """A TCP port that nobody listens on, and that nobody gets by chance before a slow server binds it.

    It lies above the ports of Ray's workers and below those that the kernel gives away (32768 and above).
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) != 0:
                return port


def require_port(port: int, what: str) -> None:
    """Raises UserError when `port` is taken."""
    for problem in check_port(port, f"the {what}", HOST):
        raise UserError(problem)


def available_gb() -> float:
    """Memory that new processes may take, in GB: what the machine has free, or less under a control group's limit."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (
        limit := (group / "memory.max").read_text().strip()
    ) != "max":
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(
            stat["inactive_file"]
        )  # file cache gives way
        free = min(free, int(limit) - used)
    return free / 1e9


def require_memory(gigabytes: float, what: str) -> None:
    """Raises UserError when less than `gigabytes` is available."""
    if (free := available_gb()) < gigabytes:
        numbers = f"about {gigabytes:.1f} GB needed, {free:.1f} GB available"
        raise UserError(
            f"too little memory for {what}: {numbers}; end other programs, or name a smaller model"
        )


def request(url: str, payload: dict | None = None, timeout: float = 60.0):
    """The decoded response to a GET, or with a payload to a POST of JSON.

    Raises UserError with the server's message.
    """
    data = None if payload is None else json.dumps(payload).encode()
    call = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with _OPENER.open(call, timeout=timeout) as answer:
            body = answer.read().decode()
    except urllib.error.HTTPError as problem:
        raise UserError(
            f"{url} answered {problem.code}: {problem.read().decode('utf-8', 'replace')[:500]}"
        ) from None
    except OSError as problem:
        raise UserError(f"{url} cannot be reached: {getattr(problem, 'reason', problem)}") from None
    return json.loads(body) if body[:1] in ("{", "[") else body


def _environment(**extra: str) -> dict:
    local = {
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
        "HF_HUB_OFFLINE": "1",
    }
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **local, **quiet, "OMP_NUM_THREADS": "1", **extra}


def start_engine(model_dir: str | Path, port: int, log_dir: str | Path) -> Child:
    """Start one SGLang server on `port`; returns at once (see `wait_healthy`).

    Raises UserError when the port is in use, memory is short or `model_dir` holds no model.
    """
    if not (Path(model_dir) / "config.json").is_file():
        raise UserError(f"{model_dir} holds no Hugging Face checkpoint (no config.json)")
    require_port(port, "engine")
    require_memory(ENGINE_GB, "an SGLang engine")
    # mem-fraction-static is a share of the memory that is free when the engine starts; the cache is far smaller
    # (max-total-tokens). A large share, because the trainer starts at the same time and takes memory meanwhile.
    flags = (
        f"--host {HOST} --port {port} --device cpu --attention-backend torch_native "
        "--dtype float32 "  # the trainer's own log-probabilities; "auto" would mean float16 on a CPU
        "--served-model-name policy --weight-version 0 --mem-fraction-static 0.6 "
        "--max-total-tokens 60000 --max-running-requests 64 --enable-cache-report "
        "--sleep-on-idle "  # otherwise an idle engine takes a whole core from the update
        "--enable-metrics --constrained-json-disable-any-whitespace --log-level warning"
    )
    command = [
        sys.executable,
        "-m",
        "sglang.launch_server",
        "--model-path",
        str(model_dir),
        *flags.split(),
    ]
    log = Path(log_dir) / f"engine-{port}.log"
    # No grace period: it has nothing to save, and its own orderly shutdown takes 8 s.
    return Child.start(
        command, log, _engine_environment(log), name=f"the SGLang engine on port {port}", grace=0.0
    )


def _engine_environment(log: Path) -> dict:
    # For the rendezvous of its single rank torch would open a port to the network; a file does as well.
    store = log.absolute().with_suffix(".store")
    store.unlink(missing_ok=True)
    return _environment(
        PYTHONPATH=os.pathsep.join(filter(None, [str(COMPAT), os.environ.get("PYTHONPATH", "")])),
        SGLANG_USE_CPU_ENGINE="1",
        SGLANG_EXTERNAL_MODEL_PACKAGE="engine_models",
        SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE=f"file://{store}",
        GLOO_SOCKET_IFNAME="lo",
    )


def start_router(
    worker_urls: Iterable[str], port: int, log_dir: str | Path, policy: str = "manual"
) -> Child:
    """Start the router on `port` and wait until it serves all `worker_urls`, which must be healthy.

    policy "manual" sends equal `X-SMG-Routing-Key` headers to the same engine.
    Raises UserError (port in use) and ServerDied.
    """
    require_port(port, "router")
    own = {
        "host": HOST,
        "port": port,
        "policy": policy,
        "prometheus_host": HOST,
        "prometheus_port": free_port(),
    }
    command = [sys.executable, "-c", ROUTER_MAIN, json.dumps(ROUTER_KNOBS | own)]
    log = Path(log_dir) / f"router-{port}.log"
    child = Child.start(command, log, _environment(), name=f"the router on port {port}", grace=3.0)
    url = f"http://{HOST}:{port}"
    try:
        wait_healthy(url, child, 60)
        add_workers(url, list(worker_urls), child)
    except BaseException:
        child.stop()
        raise
    return child


def wait_healthy(url: str, child: Child, timeout: float = 300.0) -> float:
    """Wait until GET `url`/health answers 200; returns the seconds waited.

    Raises ServerDied with the end of its log when the process ends first, UserError after `timeout` seconds.
    """
    start = time.monotonic()
    while (waited := time.monotonic() - start) < timeout:
        child.check()
        try:
            request(url + "/health", timeout=20)
            return waited
        except (
            UserError
        ):  # refused or 503 while it loads; `child.check` and `timeout` bound the wait
            pass
        time.sleep(0.5)
    raise UserError(
        f"{child.name} is not up after {timeout:.0f} s; the end of {child.log}:\n{child.tail()}"
    )


def add_workers(
    router_url: str, worker_urls: list[str], child: Child, timeout: float = 60.0
) -> None:
    """Tell the router about engines and wait until it reports every one as healthy."""
    for url in worker_urls:
        request(
            router_url + "/workers", {"url": url}
        )  # answers 202: the router looks at the engine later
    start = time.monotonic()
    while missing := set(worker_urls) - healthy_workers(router_url):
        child.check()
        if time.monotonic() - start > timeout:
            names = ", ".join(sorted(missing))
            raise UserError(
                f"the router has not taken in {names} within {timeout:.0f} s; see {child.log}"
            )
        time.sleep(0.1)


def healthy_workers(router_url: str) -> set[str]:
    """URLs of the engines the router would send requests to."""
    return {
        worker["url"]
        for worker in request(router_url + "/workers")["workers"]
        if worker["is_healthy"]
    }


def update_weights(urls: Iterable[str], hf_dir: str | Path, version: str) -> None:
    """Load the Hugging Face weights of `hf_dir` into every engine (not the router) as weight version `version`.

    Requests still running are aborted, so that no answer mixes two policies; each engine's prefix cache is emptied.
    Raises UserError when an engine refuses or does not report the new version afterwards.
    """
    urls = list(urls)
    for url in urls:
        request(url + "/pause_generation", {"mode": "abort"})
        try:
            load = {"model_path": str(hf_dir), "weight_version": version, "flush_cache": True}
            answer = request(url + "/update_weights_from_disk", load, timeout=300)
        finally:
            request(url + "/continue_generation", {})
        if not answer["success"]:
            raise UserError(f"{url} refused the weights of {hf_dir}: {answer['message']}")
    for url in urls:
        if (found := request(url + "/model_info")["weight_version"]) != version:
            raise UserError(f"{url} serves weight version {found}, not {version}")
