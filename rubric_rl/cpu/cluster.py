"""All processes of one run: Ray's head, engines, router, rollout actor, training actors (stage 2, rollout)."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import ray

from rubric_rl import ROOT
from rubric_rl.cpu import ray_head
from rubric_rl.cpu.engine import (
    HOST,
    free_port,
    start_engine,
    start_router,
    update_weights,
    wait_healthy,
)
from rubric_rl.cpu.recorder import Bar
from rubric_rl.cpu.rollout_manager import RolloutManager


class TrainingActor:
    """actor.Actor in a Ray actor; imported there, because Megatron would cost this process seconds and memory."""

    def __init__(self, *arguments):
        from rubric_rl.cpu.actor import Actor

        self.actor = Actor(*arguments)

    def call(self, method: str, *arguments):
        """Calls a method of the Actor."""
        return getattr(self.actor, method)(*arguments)


class Cluster:
    """Starts all processes in parallel and stops them in order. Use it as a context manager."""

    def __init__(self, args, directory: Path):
        self.args = args
        self.logs = directory / "logs"
        self.sync_directory = directory / "sync"
        self.children = []
        self.engine_urls: list[str] = []
        self.manager = None
        self.actors = []

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_) -> None:
        if ray.is_initialized():
            ray.shutdown()
        for child in reversed(self.children):
            child.stop()

    def start(self, initial: str, checkpoint: Path | None, state: dict | None) -> None:
        """Starts everything: weights from `initial` (or `checkpoint`), the data source at `state`.

        Engines take longest and are started first; Ray and the actors start meanwhile.
        """
        os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        )
        with Bar("starting engines, Ray and actors", 4 + self.args.rollout_num_gpus, "part") as bar:
            ports = [free_port() for _ in range(self.args.rollout_num_gpus)]
            engines = [start_engine(self.args.hf_checkpoint, port, self.logs) for port in ports]
            self.children += engines
            self._start_ray()
            bar.at(1)
            self.manager = (
                ray.remote(RolloutManager).options(num_cpus=0, max_concurrency=2).remote(self.args)
            )
            if self.args.num_rollout is None:  # the learning rate's schedule needs it
                (prompts,) = self.wait([self.manager.prompts.remote()])
                self.args.num_rollout = self.args.num_epoch * (
                    prompts // self.args.rollout_batch_size
                )
            loading = self._start_actors(initial, checkpoint)
            self.wait(
                [self.manager.prompts.remote()]
                if state is None
                else [self.manager.restore.remote(state)]
            )
            bar.at(2)
            self.wait(loading)
            bar.at(3)
            self.engine_urls = [f"http://{HOST}:{port}" for port in ports]
            for number, (url, engine) in enumerate(zip(self.engine_urls, engines, strict=True), 4):
                wait_healthy(url, engine)
                bar.at(number)
            port = self.args.sglang_router_port or free_port()
            self.children.append(
                start_router(self.engine_urls, port, self.logs, self.args.router_policy)
            )
            self.wait([self.manager.connect.remote(port, self.engine_urls)])

    def _start_ray(self) -> None:
        head, address = ray_head.start(self.logs)
        self.children.insert(0, head)
        # Ray installs a SIGTERM handler that aborts: block the signal meanwhile, then restore our handler.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", namespace="rubric_rl")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def _start_actors(self, initial: str, checkpoint: Path | None) -> list:
        world = self.args.actor_num_nodes * self.args.actor_num_gpus_per_node
        port = free_port()
        actor = ray.remote(TrainingActor).options(num_cpus=0)
        self.actors = [actor.remote(self.args, rank, world, HOST, port) for rank in range(world)]
        return [
            actor.call.remote("load", initial, checkpoint and str(checkpoint))
            for actor in self.actors
        ]

    def wait(self, references: list, poll: Callable[[], None] = lambda: None) -> list:
        """The results of Ray calls; meanwhile calls `poll` four times a second, and raises when a server has died."""
        pending = list(references)
        while pending:
            done, pending = ray.wait(pending, num_returns=1, timeout=0.25)
            for child in self.children:
                child.check()
            ray.get(done)  # a failed call raises here, without waiting for the others
            poll()
        return ray.get(list(references))

    def sync(self, version: str) -> None:
        """Loads the actors' weights into every engine, as weight version `version`."""
        self.wait(
            [actor.call.remote("export_hf", str(self.sync_directory)) for actor in self.actors]
        )
        update_weights(self.engine_urls, self.sync_directory, version)

    def watch(self, reference, bar: Bar, note: Callable[[dict], None]) -> None:
        """Waits for a rollout or evaluation and shows its progress."""
        query, asked_at = self.manager.progress.remote(), time.monotonic()

        def poll() -> None:
            nonlocal query, asked_at
            if time.monotonic() - asked_at < 0.2 or not ray.wait([query], timeout=0)[0]:
                return
            progress = ray.get(query)
            if progress.get("total"):
                bar.at(progress["graded"], progress["total"], f"{progress['generated']} answered")
                note(progress)
            query, asked_at = self.manager.progress.remote(), time.monotonic()

        self.wait([reference], poll)

    def memory_gb(self) -> float:
        """Memory of this process and all its descendants in GB, shared pages counted once (proportional set size)."""
        total = 0
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total / 1e9
