#!/usr/bin/env bash
# Qwen3-32B on four nodes of 8 GPUs of 80 GB. Paths, parallelism and capacity;
# the experiment is configs/recipe.sh.
#
#   export HF_CKPT_PATH=...      Qwen3-32B as Hugging Face publishes it (every node sees all paths)
#   export PROMPT_DATA_PATH=...  healthbench_easy.jsonl (data_preprocess.py), hard files beside
#   export SAVE_PATH=...         the run: checkpoints, logs, verdicts; the same command resumes it
#   export SLIME_DIR=... MEGATRON_DIR=...
#   export NODES="host1 host2 host3 host4"   reached by ssh, this one first; not in a Slurm job
#   bash run_qwen3_32B.sh [FLAGS]            FLAGS are slime's and come last, so they win
#
#   DIST_CKPT_PATH  the start in Megatron's format (default: HF_CKPT_PATH, which slime reads too)
#   PLACEMENT       colocate (default, the paper's): all GPUs take turns; or split
#   DRY_RUN=1       prints the command, one argument per line, and ends
#   NNODES, GPUS_PER_NODE, GRADER_CONFIG, EVAL_CONFIG, WANDB_PROJECT ...: see scripts/launch.sh
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"

MODEL="qwen3-32B"                       # its shape: SLIME_DIR/scripts/models/qwen3-32B.sh
LOSS_AGGREGATION="token"                # paper
PLACEMENT="${PLACEMENT:-colocate}"
NNODES="${NNODES:-4}"
GPUS_PER_NODE="${GPUS_PER_NODE:-8}"

source scripts/launch.sh

PARALLEL_ARGS=(
   --tensor-model-parallel-size 4       # paper
   --sequence-parallel
   --pipeline-model-parallel-size 2     # paper
   --context-parallel-size 1
   --rollout-num-gpus-per-engine 4      # 66 GB of weights leave room for a cache on four GPUs
)

CAPACITY_ARGS=(                         # what the GPUs' memory and the disk hold
   --recompute-granularity full         # keep each layer's input only
   --recompute-method uniform
   --recompute-num-layers 1
   --use-dynamic-batch-size
   --max-tokens-per-gpu 16384           # one pass; the longest sample is about 6,144 + 2,500 tokens
   --save-interval 125                  # an epoch, where slime saves anyway: 10 of 459 GB
)

launch "$@"
