# shellcheck shell=bash disable=SC2034
# The experiment, defined once, in the order of the stages; flag names are slime's. Sourced by every
# run_*.sh, which adds paths, parallelism and capacity, then its own overrides, then "$@": the last
# value of a flag wins.
# run_qwen3_tiny.sh has its own batch, group, length, learning rate, weight decay and intervals.
# "paper": arXiv 2509.25534 and its authors' published settings.

# 1 prompt: rows of data_preprocess.py
PROMPT_ARGS=(
   --prompt-data "${PROMPT_DATA_PATH}"
   --input-key prompt
   --metadata-key metadata
   --apply-chat-template
   --rollout-shuffle
   --rollout-seed 42                # slime's default
   --num-epoch 10                   # paper: 1,250 rollouts of 32 of the 4,000 prompts
)

# 2 rollout: the policy answers
ROLLOUT_ARGS=(
   --rollout-batch-size 32          # paper: prompts per rollout
   --n-samples-per-prompt 4         # paper: answers per prompt, the group of GRPO
   --rollout-max-response-len 6144  # paper
   --rollout-temperature 1          # paper
)

# 3 rubric grading and 4 reward: the same served policy grades, with the settings in GRADER_CONFIG
REWARD_ARGS=(
   --custom-rm-path self_reward_rm.reward
   --custom-reward-post-process-path self_reward_rm.post_process
   --custom-config-path "${GRADER_CONFIG}"
   --custom-rollout-log-function-path self_reward_rm.log_rollout
   --custom-eval-rollout-log-function-path self_reward_rm.log_eval
)

# 5 GRPO update: no KL, no entropy bonus
GRPO_ARGS=(
   --advantage-estimator grpo
   --global-batch-size 32           # paper: answers per optimizer step, so four steps per rollout
   --eps-clip 0.2                   # paper
   --eps-clip-high 0.28             # paper
   --entropy-coef 0                 # paper
)
# paper: the loss is a mean over all tokens for 32B; else over each answer, then over answers
if [[ "${LOSS_AGGREGATION:-sample}" == token ]]; then
   GRPO_ARGS+=(--calculate-per-token-loss)
fi
OPTIMIZER_ARGS=(
   --optimizer adam
   --lr 1e-6                        # paper
   --lr-decay-style constant        # paper
   --lr-warmup-iters 10             # paper
   --weight-decay 0.1               # paper
   --adam-beta1 0.9                 # paper
   --adam-beta2 0.999               # paper
   --clip-grad 1.0                  # slime's default
   --attention-dropout 0            # with Megatron's 0.1 the policy would differ from the engine
   --hidden-dropout 0
   --seed 1234                      # slime's default
)

# 6 evaluation: the same hook, the same score, on held-out prompts
EVAL_ARGS=(
   --eval-config "${EVAL_CONFIG}"
   --eval-interval 20
)

# Checkpoints and logs: SAVE_PATH holds the run, and the same command resumes it
SAVE_ARGS=(
   --hf-checkpoint "${HF_CKPT_PATH}"
   --load "${SAVE_PATH}"
   --save "${SAVE_PATH}"
   --save-interval 20
   --use-tensorboard
)

RECIPE_ARGS=(
   "${PROMPT_ARGS[@]}"
   "${ROLLOUT_ARGS[@]}"
   "${REWARD_ARGS[@]}"
   "${GRPO_ARGS[@]}"
   "${OPTIMIZER_ARGS[@]}"
   "${EVAL_ARGS[@]}"
   "${SAVE_ARGS[@]}"
)
