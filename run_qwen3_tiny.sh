#!/usr/bin/env bash
# The whole recipe without a GPU: a tiny Qwen3 answers, grades itself and learns, in about ten
# minutes on 2 cores.
#
#   bash run_qwen3_tiny.sh [FLAGS]             FLAGS are slime's and come last, so they win
#   DRY_RUN=1 bash run_qwen3_tiny.sh           prints the command, one argument per line
#   BACKEND=slime bash run_qwen3_tiny.sh       on one GPU, with SLIME_DIR and MEGATRON_DIR
#
# One thing is not the paper's: a loss that keeps the grader's skill. The recipe alone is
# GRADER_CONFIG=configs/grader_tiny.yaml, with a SAVE_PATH of its own.
#
# Killed or stopped at any moment, the same command goes on after the last finished rollout.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
source scripts/no_keys.sh
[[ "${DRY_RUN:=0}" == [01] ]] || die "DRY_RUN is 1 or 0, not ${DRY_RUN}"

export HF_CKPT_PATH="${HF_CKPT_PATH:-rubric_rl/tiny/model}"
BACKEND="${BACKEND:-cpu}"
case "${BACKEND}" in
   cpu) runs=runs/tiny grader=configs/grader_tiny_skill.yaml ;;
   # Neither reads the other's checkpoints; slime's actors do not keep the grader's skill.
   slime) runs=runs/tiny_slime grader=configs/grader_tiny.yaml ;;
   *) die "BACKEND is cpu or slime, not ${BACKEND}" ;;
esac
export SAVE_PATH="${SAVE_PATH:-${runs}}"
export PROMPT_DATA_PATH="${PROMPT_DATA_PATH:-runs/tiny/data/healthbench_easy.jsonl}"
export EVAL_DATA_PATH="${EVAL_DATA_PATH:-${PROMPT_DATA_PATH%/*}/healthbench_hard.jsonl}"
GRADER_CONFIG="${GRADER_CONFIG:-${grader}}"
EVAL_CONFIG="${EVAL_CONFIG:-configs/eval_tiny.yaml}"
VENV_PYTHON="${VENV:-.venv}/bin/python"
source configs/recipe.sh

# What a tiny model and two cores change; the rest is the recipe's.
TINY_ARGS=(
   --apply-chat-template-kwargs '{"enable_thinking": false}'
   --num-rollout 36
   --rollout-batch-size 12
   --n-samples-per-prompt 16
   --global-batch-size 48           # four optimizer steps per rollout, as in the recipe
   --rollout-max-response-len 64
   --lr 3e-4
   --weight-decay 0.0
   --eval-interval 12
   --save-interval 1
   # the oracle's figures beside the reward
   --custom-rollout-log-function-path rubric_rl.tiny.log_hooks.log_rollout
   --custom-eval-rollout-log-function-path rubric_rl.tiny.log_hooks.log_eval
)

# A "GPU" is one CPU process here: two engines share the answers, two trainers share the batch.
PARALLEL_ARGS=(
   --actor-num-nodes 1
   --actor-num-gpus-per-node 2
   --rollout-num-gpus 2
   --rollout-num-gpus-per-engine 1
   --router-policy manual
   --sglang-enable-deterministic-inference   # answers by --rollout-seed
   --sglang-router-request-timeout-secs 120
)

make_rows() {
   umask 077   # rows, records, weights: this user's alone
   # The evaluation's rows are written last.
   if [[ "${PROMPT_DATA_PATH} ${EVAL_DATA_PATH}" == *runs/tiny/data/* &&
      ! -f runs/tiny/data/healthbench_hard.jsonl ]]; then
      "$1" -m rubric_rl.tiny.world --out runs/tiny/data
      "$1" data_preprocess.py --source runs/tiny/data/tiny_all.jsonl \
         --hard runs/tiny/data/tiny_hard.jsonl --out runs/tiny/data --allow-subset \
         >/dev/null   # its report stays beside the rows
   fi
}

if [[ "${BACKEND}" == slime ]]; then
   MODEL="" PLACEMENT="colocate" NNODES=1 GPUS_PER_NODE=1
   PARALLEL_ARGS=("${TINY_ARGS[@]}" --rollout-num-gpus-per-engine 1)
   CAPACITY_ARGS=(--use-dynamic-batch-size --max-tokens-per-gpu 16384
      --sglang-mem-fraction-static 0.3 --sglang-max-total-tokens 262144   # else 33 million
      --sglang-dtype bfloat16 --sglang-attention-backend triton)   # else no kernel for heads of 32
   source scripts/launch.sh
   [[ "${DRY_RUN}" == 1 ]] || make_rows "${PYTHON}"
   launch "$@"
   exit
fi

COMMAND=("${VENV_PYTHON}" -m rubric_rl.cpu.train
   "${RECIPE_ARGS[@]}" "${TINY_ARGS[@]}" "${PARALLEL_ARGS[@]}" "$@")

if [[ "${DRY_RUN}" == 1 ]]; then
   printf '%q\n' "${COMMAND[@]}"
   exit 0
fi

bash scripts/cpu/setup.sh
make_rows "${VENV_PYTHON}"

exec "${COMMAND[@]}"
