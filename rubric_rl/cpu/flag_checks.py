"""Checks that the flags agree with each other and with what the trainer without a GPU can do (all stages)."""

from rubric_rl.launch.schedule import Schedule, schedule

# What slime can vary and this trainer cannot: the one value it does, and why.
_ONLY = {
    "advantage_estimator": ("grpo", "GRPO is what it computes"),
    "optimizer": ("adam", "Adam with decoupled weight decay is what it runs"),
    "attention_dropout": (
        0.0,
        "Megatron's default of 0.1 would make the policy differ from the engine",
    ),
    "hidden_dropout": (
        0.0,
        "Megatron's default of 0.1 would make the policy differ from the engine",
    ),
    "rollout_top_p": (1.0, "log-probabilities are those of the full distribution"),
    "pipeline_model_parallel_size": (1, "it has tensor and data parallelism"),
    "context_parallel_size": (1, "it has tensor and data parallelism"),
    "rollout_num_gpus_per_engine": (1, "an engine is one process"),
}


def problems(args):
    """Yields one line for each flag that cannot be honoured or contradicts another."""
    for name, (value, why) in _ONLY.items():
        if getattr(args, name) != value:
            flag = f"--{name.replace('_', '-')} {getattr(args, name)}"
            yield f"{flag}: the trainer without a GPU takes only {value} ({why})"
    for name in (
        "hf_checkpoint",
        "prompt_data",
        "save",
        "custom_rm_path",
        "rollout_max_response_len",
    ):
        if getattr(args, name) is None:
            yield f"--{name.replace('_', '-')} is missing"
    yield from _batches(args)
    yield from _combinations(args)


def _batches(args):
    batch = args.rollout_batch_size * args.n_samples_per_prompt
    world, tensor = (
        args.actor_num_nodes * args.actor_num_gpus_per_node,
        args.tensor_model_parallel_size,
    )
    if args.n_samples_per_prompt < 2:
        yield f"--n-samples-per-prompt {args.n_samples_per_prompt}: a group of one has no advantage; give 2 or more"
    if world < 1 or tensor < 1 or world % tensor:
        yield f"--tensor-model-parallel-size {tensor} does not divide the {world} training processes"
    steps = args.num_steps_per_rollout
    if not steps and not args.global_batch_size:
        yield f"--global-batch-size is missing; {batch} makes one optimizer step per rollout"
    size = args.global_batch_size or batch // steps
    if steps and size * steps != batch:
        yield f"--num-steps-per-rollout {steps} x --global-batch-size {size} is not {batch} (rollout x samples)"
    if size < 1 or batch % size or size % (world // tensor):
        multiple = f"a multiple of {world // tensor} (data parallel size)"
        yield f"--global-batch-size {size} must divide {batch} (rollout batch x samples per prompt) and be {multiple}"
    drawn = args.over_sampling_batch_size
    if drawn is not None and drawn < args.rollout_batch_size:
        yield f"--over-sampling-batch-size {drawn} is below --rollout-batch-size {args.rollout_batch_size}"


def _combinations(args):
    if args.rollout_temperature <= 0:
        yield f"--rollout-temperature {args.rollout_temperature:g}: greedy answers are all equal; give a value above 0"
    if args.num_rollout is None and args.num_epoch is None:
        yield "give --num-rollout or --num-epoch"
    if args.use_kl_loss and not args.ref_load:
        yield "--use-kl-loss needs the reference model: --ref-load"
    if args.use_dynamic_batch_size and not args.max_tokens_per_gpu:
        yield "--use-dynamic-batch-size needs --max-tokens-per-gpu"
    if args.eval_interval is not None and not args.eval_datasets:
        yield "--eval-interval needs data: --eval-config or --eval-prompt-data"
    if not args.colocate and not args.rollout_num_gpus:
        yield "--rollout-num-gpus (the number of engines) is missing; 1 suits two cores"


def schedule_of(args) -> Schedule:
    """The run in optimizer steps; raises UserError for a warm-up as long as the run."""
    answers = args.num_rollout * args.rollout_batch_size * args.n_samples_per_prompt
    return schedule(
        answers,
        args.global_batch_size,
        args.lr_decay_iters,
        args.lr_warmup_iters,
        args.lr_warmup_fraction,
    )


def derive(args) -> None:
    """Fills in what slime derives from other flags; raises UserError for a warm-up as long as the run."""
    if args.rollout_num_gpus is None:
        args.rollout_num_gpus = args.actor_num_nodes * args.actor_num_gpus_per_node
    if args.global_batch_size is None:
        args.global_batch_size = (
            args.rollout_batch_size * args.n_samples_per_prompt // args.num_steps_per_rollout
        )
    if args.over_sampling_batch_size is None:
        args.over_sampling_batch_size = args.rollout_batch_size
    if args.eps_clip_high is None:
        args.eps_clip_high = args.eps_clip
    if args.eval_reward_key is None:
        args.eval_reward_key = args.reward_key
    if args.num_rollout is not None:  # --num-epoch has to wait for the rows
        schedule_of(args)
    args.sglang_router_ip = "127.0.0.1"
