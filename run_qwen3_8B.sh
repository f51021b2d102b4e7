#!/usr/bin/env bash
# Qwen3-8B on one node of 8 GPUs of 80 GB. Paths, parallelism and capacity;
# the experiment is configs/recipe.sh.
#
#   export HF_CKPT_PATH=...      Qwen3-8B as Hugging Face publishes it
#   export PROMPT_DATA_PATH=...  healthbench_easy.jsonl (data_preprocess.py), hard files beside
#   export SAVE_PATH=...         the run: checkpoints, logs, verdicts; the same command resumes it
#   export SLIME_DIR=... MEGATRON_DIR=...
#   bash run_qwen3_8B.sh [FLAGS]             FLAGS are slime's and come last, so they win
#
#   DIST_CKPT_PATH  the start in Megatron's format (default: HF_CKPT_PATH, which slime reads too)
#   PLACEMENT       split (default, the paper's): 4 GPUs train, 4 serve; colocate: all 8 take turns
#   DRY_RUN=1       prints the command, one argument per line, and ends
#   NNODES, NODES, GPUS_PER_NODE, GRADER_CONFIG, EVAL_CONFIG ...: see scripts/launch.sh
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"

MODEL="qwen3-8B"                        # its shape: SLIME_DIR/scripts/models/qwen3-8B.sh
LOSS_AGGREGATION="sample"               # paper
PLACEMENT="${PLACEMENT:-split}"
NNODES="${NNODES:-1}"
GPUS_PER_NODE="${GPUS_PER_NODE:-8}"

source scripts/launch.sh

PARALLEL_ARGS=(
   --tensor-model-parallel-size 2       # paper
   --sequence-parallel
   --pipeline-model-parallel-size 1
   --context-parallel-size 1
   --rollout-num-gpus-per-engine 1      # 16 GB of weights fit; more engines answer more at once
)

CAPACITY_ARGS=(                         # what the GPUs' memory and the disk hold
   --recompute-granularity full         # keep each layer's input only
   --recompute-method uniform
   --recompute-num-layers 1
   --use-dynamic-batch-size
   --max-tokens-per-gpu 16384           # one pass; the longest sample is about 6,144 + 2,500 tokens
   --save-interval 125                  # an epoch, where slime saves anyway: 10 of 115 GB
)

launch "$@"
