"""Waits until a Ray cluster has all its GPUs (all stages)."""

import argparse
import sys
import time
from pathlib import Path

WAIT = 600  # seconds; containers on other nodes may start late


def main() -> int:
    """Returns 0 when the GPUs are there; else one line on stderr and 2."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--address", required=True)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True, help="Ray's own output, quoted in the error")
    args = parser.parse_args()
    import ray

    end, gpus, problem = time.monotonic() + WAIT, 0, ""
    while time.monotonic() < end:
        try:
            if not ray.is_initialized():
                ray.init(address=args.address, log_to_driver=False, configure_logging=False)
            gpus = int(ray.cluster_resources().get("GPU", 0))
        except (ConnectionError, RuntimeError) as error:  # the head is not up yet, or has just ended
            problem = " ".join(str(error).split())[:200]
        if gpus >= args.gpus:
            return 0
        time.sleep(3)
    print(f"error: Ray at {args.address} has {gpus} of {args.gpus} GPUs after {WAIT} s {problem}; see {args.log}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
