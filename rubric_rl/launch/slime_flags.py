"""Names of slime's flags: those that only GPUs can honour, the removed ones, a model's shape (all stages)."""

# slime 0.3.1 (main, 2026-08): what its parser knows and the trainer without a GPU does not do.
NOT_ON_CPU = frozenset(
    """
    allgather-cp async-save attention-backend balance-by-flops balance-data bf16 buffer-filter-path
    check-weight-update-equal ci-disable-kl-checker ci-load-grad-norm ci-save-grad-norm ci-test
    ci-train-rollout-logprob-abs-diff-threshold custom-advantage-function-path
    custom-convert-samples-to-train-data-path custom-generate-function-path custom-loss-function-path
    custom-megatron-before-log-prob-hook-path custom-megatron-before-train-step-hook-path custom-megatron-init-path
    custom-model-provider-path custom-pg-loss-reducer-function-path custom-tis-function-path
    custom-update-weight-post-write-path data-pad-size-multiplier data-source-path debug-rollout-only
    debug-train-only disable-compute-advantages-and-returns disable-rollout-global-dataset distributed-backend
    dump-details enable-mtp-training eps-clip-c eval-function-path eval-label-key eval-max-context-len eval-tool-key
    expert-model-parallel-size expert-tensor-parallel-size fetch-trajectory-retry-times fp16 freeze-indexer
    freeze-params-name-list gamma get-mismatch-metrics group-rm http-proxy keep-old-actor kl-coef label-key lambd
    load-debug-rollout-data load-debug-rollout-data-subsample load-forge-rollout-data log-correct-samples
    log-multi-turn log-passrate log-probs-chunk-size log-probs-max-tokens-per-gpu log-reward-category loss-mask-type
    loss-type mask-offpolicy-in-partial-rollout megatron-config-path memory-recorder memory-snapshot-dir
    memory-snapshot-num-steps min-batch-collection-ratio model-name mtp-loss-scaling-factor mtp-num-layers
    multimodal-keys no-load-optim no-load-rng no-save-optim normalize-advantages num-critic-only-steps
    num-gpus-per-node offload offload-rollout offload-train only-train-params-name-list opd-kl-coef
    opd-teacher-ckpt-step opd-teacher-load opd-type opsm-delta optimizer-cpu-offload overlap-cpu-optimizer-d2h-h2d
    padded-vocab-size partial-rollout prefill-num-servers profile-target qwen-gdn-backend recompute-granularity
    recompute-loss-function recompute-method recompute-num-layers record-memory-history ref-ckpt-step
    ref-update-interval release-train reset-optimizer-states rm-type rm-url rollout-all-samples-process-path
    rollout-buffer-url rollout-data-postprocess-path rollout-data-transport rollout-external-engine-addrs
    rollout-function-path rollout-health-check-first-wait rollout-health-check-interval rollout-health-check-timeout
    rollout-max-context-len rollout-sample-hook-path rollout-task-type save-debug-rollout-data save-debug-train-data
    save-hf sequence-parallel start-rollout-id tb-experiment-name tb-project-name tis-clip tis-clip-low tool-key
    train-backend train-env-vars update-weight-buffer-size update-weight-delta-checksum update-weight-delta-encoding
    update-weight-disk-dir update-weight-disk-keep-files update-weight-local-checkpoint-dir update-weight-mode
    update-weight-transport update-weights-interval use-distributed-optimizer use-distributed-post
    use-fault-tolerance use-opd use-opsm use-precision-aware-optimizer use-rollout-entropy
    use-rollout-routing-replay use-routing-replay use-stateless-adam use-tis use-unbiased-kl use-wandb value-clip
    wandb-always-use-train-step wandb-dir wandb-group wandb-host wandb-key wandb-mode wandb-project wandb-run-id
    wandb-team disable-wandb-random-suffix disable-rewards-normalization
    """.split()
)

# Removed by slime 0.3.1, which ignores them silently; with what to do on GPUs instead.
REMOVED = {
    "use-slime-router": "the router is SGLang's: --router-policy",
    "megatron-to-hf-mode": "leave it out",
    "qkv-format": "leave it out",
    "train-memory-margin-bytes": "leave it out",
    "rollout-external": "use --rollout-external-engine-addrs",
    "use-hf-config-for-megatron": "source the model's flags from SLIME_DIR/scripts/models",
    "true-on-policy-mode": "leave it out",
    "use-dynamic-global-batch-size": "use --global-batch-size",
    "disable-rollout-trim-samples": "leave it out",
    "critic-load": "leave it out",
    "critic-save": "leave it out",
}

# The shape of a model (slime's scripts/models/*.sh): read here from the checkpoint's config.json.
MODEL_SHAPE = frozenset(
    """
    num-layers hidden-size ffn-hidden-size num-attention-heads group-query-attention num-query-groups
    use-rotary-position-embeddings disable-bias-linear normalization norm-epsilon rotary-base vocab-size kv-channels
    qk-layernorm swiglu add-qkv-bias untie-embeddings-and-output-weights max-position-embeddings seq-length
    """.split()
)

# Why, where "slime knows it, this trainer does not" would leave the reader guessing.
REASONS = {
    "partial-rollout": "a half-written answer graded by a later policy keeps a wrong reward",
    "group-rm": "the reward hook grades one answer at a time",
    "rm-type": "the reward is a hook: --custom-rm-path self_reward_rm.reward",
    "use-wandb": "use --use-tensorboard",
    "balance-data": "the two processes share equally many answers",
}
