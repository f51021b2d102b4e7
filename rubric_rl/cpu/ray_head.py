"""The process that starts Ray's servers and that they die with.

    python -m rubric_rl.cpu.ray_head FOLDER ADDRESS_FILE        run by `local_ray.start`

The trainer does not call `ray.init()` for this itself: when a trainer is killed, two of Ray's
agents outlive it by a minute, in which they try to tell a server that is gone. Under `guard.py` all
end at once.
"""

import signal
import sys
from pathlib import Path

import ray

from rubric_rl.common.jsonl import write_text

OBJECT_STORE_BYTES = 128 * 2**20
NUM_CPUS = 4  # what Ray may hand out: a count for its scheduler, not the machine's cores


def main(folder: str, address_file: Path) -> None:
    """Starts Ray with its files in `folder`, writes its address, waits to be ended by a signal."""
    ray.init(
        address="local",  # never one that the environment names
        num_cpus=NUM_CPUS,
        num_gpus=0,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=folder,
    )
    # Ray's own handler would write a stack trace into the log.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    write_text(address_file, ray.get_runtime_context().gcs_address)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
