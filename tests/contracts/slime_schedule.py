"""A run of two rollouts, and what a run of three makes of its optimizer's checkpoint.

A program for a process that sees slime: slime_schedule.py FLAGS...
"""

from types import SimpleNamespace

from rubric_rl.launch.slime_flags import pretend_gpu


def main() -> None:
    pretend_gpu()
    # Asks for the GPU while it is imported.
    from slime.backends.megatron_utils.model import get_optimizer_param_scheduler
    from slime.utils.arguments import parse_args

    def schedule(rollouts: int):
        args = parse_args()
        args.num_rollout = rollouts
        return get_optimizer_param_scheduler(args, SimpleNamespace(param_groups=[]))

    short, longer = schedule(2), schedule(3)
    short.step(2 * 192)
    longer.load_state_dict(short.state_dict())
    print("went on after", longer.num_steps, "of", longer.lr_decay_steps)


if __name__ == "__main__":
    main()
