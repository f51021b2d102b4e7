# shellcheck shell=bash
# How the run scripts start slime: checks, Ray, job, log. Sourced by run_qwen3_8B.sh,
# run_qwen3_32B.sh and, with BACKEND=slime, run_qwen3_tiny.sh, which set MODEL, LOSS_AGGREGATION,
# PLACEMENT, NNODES, GPUS_PER_NODE, PARALLEL_ARGS and CAPACITY_ARGS. Ends only what it started
# itself, by pid. Exit status: 0 the job succeeded; 1 it did not, or a defect of ours; 2 something
# to fix; 3 the alarm has ended it (grader_alarm: stop); 129, 130, 143 a signal ended it.
#
#   PYTHON            slime's interpreter (python3)
#   GRADER_CONFIG     configs/grader.yaml
#   EVAL_CONFIG       configs/eval.yaml
#   EVAL_DATA_PATH    healthbench_hard_sample.jsonl beside the training rows
#   NODES             "host1 host2 ...": this node first, the others over ssh (same paths there);
#                     a Slurm job knows them
#   RAY_ADDRESS       dashboard of a running cluster (http://host:8265): no Ray is started then
#   RAY_PORT, RAY_DASHBOARD_PORT   6379 and 8265
#   RAY_GRACE         seconds that Ray has to end before it is killed (30)
#   MASTER_ADDR       this node's address, as the others reach it: for a node with several networks
#   WANDB_PROJECT     logs to W&B too (key: WANDB_API_KEY or wandb login; without one
#                     WANDB_MODE=offline)
#   TENSORBOARD_DIR   SAVE_PATH/tensorboard

source scripts/no_keys.sh

ROOT="$(pwd -P)"
DRY_RUN="${DRY_RUN:-0}"
PYTHON="${PYTHON:-python3}"
[[ "${DRY_RUN}" == [01] ]] || die "DRY_RUN is 1 or 0, not ${DRY_RUN}"
command -v -- "${PYTHON}" >/dev/null || die "PYTHON is the path of slime's Python, not ${PYTHON}"
RAY_GRACE="${RAY_GRACE:-30}"
for name in NNODES GPUS_PER_NODE RAY_GRACE; do
   [[ "${!name}" =~ ^[1-9][0-9]{0,3}$ ]] ||
      die "${name} is a number from 1 to 9999, not ${!name}"
done
missing=()
for name in HF_CKPT_PATH PROMPT_DATA_PATH SAVE_PATH SLIME_DIR MEGATRON_DIR; do
   [[ -n "${!name:-}" ]] && continue
   missing+=("${name}")
   declare "${name}=<${name}>"
done
[[ "${DRY_RUN}" == 1 ]] || ((${#missing[@]} == 0)) ||
   die "not set: ${missing[*]}; the first lines of this script say what they name"
DIST_CKPT_PATH="${DIST_CKPT_PATH:-${HF_CKPT_PATH}}"
GRADER_CONFIG="${GRADER_CONFIG:-configs/grader.yaml}"
EVAL_CONFIG="${EVAL_CONFIG:-configs/eval.yaml}"
rows="$(dirname -- "${PROMPT_DATA_PATH}")"
EVAL_DATA_PATH="${EVAL_DATA_PATH:-${rows}/healthbench_hard_sample.jsonl}"
TENSORBOARD_DIR="${TENSORBOARD_DIR:-${SAVE_PATH}/tensorboard}"
# The job runs elsewhere, so every path is made absolute; "<NAME>" is a path that is not set.
for name in HF_CKPT_PATH DIST_CKPT_PATH PROMPT_DATA_PATH EVAL_DATA_PATH SAVE_PATH \
   SLIME_DIR MEGATRON_DIR GRADER_CONFIG EVAL_CONFIG TENSORBOARD_DIR; do
   case "${!name}" in
      /* | "<"*) ;;
      "~"*) die "${name} is ${!name}: quotes keep the ~ as it is; write \${HOME}" ;;
      *) declare "${name}=${ROOT}/${!name}" ;;
   esac
done
export EVAL_DATA_PATH TENSORBOARD_DIR
[[ "${PLACEMENT}" == split || "${PLACEMENT}" == colocate ]] ||
   die "PLACEMENT is split or colocate, not ${PLACEMENT}"

source configs/recipe.sh

MODEL_ARGS=()
if [[ -z "${MODEL}" ]]; then   # a shape that slime has no file for
   # Not in one line with mapfile, which would hide that the checkpoint cannot be read.
   model_flags="$("${PYTHON}" -m rubric_rl.launch.slime_flags model "${HF_CKPT_PATH}")"
   mapfile -t MODEL_ARGS <<<"${model_flags}"
elif [[ -f "${SLIME_DIR}/scripts/models/${MODEL}.sh" ]]; then
   # shellcheck source=/dev/null
   source "${SLIME_DIR}/scripts/models/${MODEL}.sh"
elif [[ "${DRY_RUN}" == 1 ]]; then
   file="SLIME_DIR/scripts/models/${MODEL}.sh"
   echo "note: without SLIME_DIR the model's shape is missing below (${file})" >&2
else
   die "${SLIME_DIR}/scripts/models/${MODEL}.sh does not exist;" \
      "set SLIME_DIR to a checkout of slime"
fi

if [[ "${PLACEMENT}" == colocate ]]; then   # all GPUs train and serve in turn
   PLACEMENT_ARGS=(
      --colocate
      --actor-num-nodes "${NNODES}"
      --actor-num-gpus-per-node "${GPUS_PER_NODE}"
      --sglang-mem-fraction-static 0.7      # the rest: what training leaves behind while it sleeps
   )
else   # half of the GPUs train while the other half serve; of several nodes the first ones train
   PLACEMENT_ARGS=(
      --actor-num-nodes "${NNODES}"
      --actor-num-gpus-per-node "$((GPUS_PER_NODE / 2))"
      --rollout-num-gpus "$((NNODES * GPUS_PER_NODE / 2))"
      --sglang-mem-fraction-static 0.85
   )
fi

ENGINE_ARGS=(
   --ref-load "${DIST_CKPT_PATH}"       # where the first start takes its weights from
   --num-gpus-per-node "${GPUS_PER_NODE}"
   --router-policy manual               # an answer's criteria go to the engine with its prefix
   --router-prometheus-host 127.0.0.1   # else every network can read the router's figures
   # It counts HTTP 400: ten answers too long to be graded would shut out their engine for a minute.
   --router-disable-circuit-breaker
   --balance-data
   --attention-backend flash
   --accumulate-allreduce-grads-in-fp32
   --attention-softmax-in-fp32
   # A grader in JSON mode could fill its reply with blanks up to the limit.
   --sglang-constrained-json-disable-any-whitespace
   # The number of rollouts is part of the schedule in a checkpoint: without this flag a run could
   # not go on with more of them.
   --override-opt-param-scheduler
)

LOG_ARGS=()
if [[ -n "${WANDB_PROJECT:-}" ]]; then
   LOG_ARGS=(--use-wandb --wandb-project "${WANDB_PROJECT}"
      --wandb-group "${WANDB_GROUP:-$(basename -- "${SAVE_PATH}")}")
fi

# The variables in its words, as the JSON of Ray's runtime environment.
AS_RUNTIME_ENV='
import json, os, sys
names = [name for name in sys.argv[1:] if name in os.environ]
print(json.dumps({"env_vars": {name: os.environ[name] for name in names}}))
'

# What the processes of the job need; keys are not among them: they come from the environment of
# Ray, never from a command line.
runtime_env() {
   local nvlink=0 own hosts
   if [[ "$(nvidia-smi topo -m 2>/dev/null)" =~ NV[0-9] ]]; then nvlink=1; fi
   own="$("${PYTHON}" -m rubric_rl.launch.node_addresses --own)"
   hosts="$(IFS=,; echo "${ADDRESSES[*]},${HOSTS[*]}"),${own}"
   export PYTHONPATH="${ROOT}:${SLIME_DIR}:${MEGATRON_DIR}${PYTHONPATH:+:${PYTHONPATH}}"
   export CUDA_DEVICE_MAX_CONNECTIONS=1 PYTHONUNBUFFERED=1
   # Its name in the records: slime counts weight versions anew whenever it starts.
   RUBRIC_RL_RUN="${MODEL:-tiny}-$(date +%Y%m%d-%H%M%S)-$$"
   export RUBRIC_RL_RUN
   export NCCL_NVLS_ENABLE="${NCCL_NVLS_ENABLE:-${nvlink}}"
   # slime asks its own router and engines by HTTP: no proxy may stand between them.
   hosts="localhost,127.0.0.1,${hosts}"
   export no_proxy="${hosts}${no_proxy:+,${no_proxy}}${NO_PROXY:+,${NO_PROXY}}"
   export NO_PROXY="${no_proxy}"        # some clients read only this one
   RUNTIME_ENV="$("${PYTHON}" -c "${AS_RUNTIME_ENV}" \
      PYTHONPATH CUDA_DEVICE_MAX_CONNECTIONS NCCL_NVLS_ENABLE PYTHONUNBUFFERED no_proxy NO_PROXY \
      SLIME_HOST_IP NCCL_SOCKET_IFNAME GLOO_SOCKET_IFNAME TENSORBOARD_DIR EVAL_DATA_PATH EVAL_NAME \
      WANDB_MODE RUBRIC_RL_RUN)"
}

# The nodes: NODES, or those of the Slurm job, or this one.
find_nodes() {
   local addresses nodes="${NODES:-}"
   # A host file has one on each line, whose ends may be those of Windows.
   read -rd "" -a HOSTS <<<"${nodes//$'\r'/ }" || true
   if ((${#HOSTS[@]} == 0)) && [[ -n "${SLURM_JOB_NODELIST:-}" ]]; then
      mapfile -t HOSTS < <(scontrol show hostnames "${SLURM_JOB_NODELIST}")
   fi
   if ((${#HOSTS[@]} == 0)); then HOSTS=(127.0.0.1); fi
   ((${#HOSTS[@]} == NNODES)) || [[ -n "${RAY_ADDRESS:-}" ]] ||
      die "NNODES is ${NNODES}, but ${#HOSTS[@]} node(s) are known;" \
         "name them in NODES, or start in a Slurm job of that size"
   addresses="$("${PYTHON}" -m rubric_rl.launch.node_addresses \
      "${MASTER_ADDR:-${HOSTS[0]}}" "${HOSTS[@]:1}")"
   read -ra ADDRESSES <<<"${addresses}"
}

# A Ray of our own on this node alone needs no network: its servers listen on 127.0.0.1, slime's
# router and engines too.
stay_on_loopback() {
   # Ray's switch for machines that are no part of a cluster: else it turns 127.0.0.1 into the
   # address that other machines would use, and listens there.
   export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
   export SLIME_HOST_IP="${SLIME_HOST_IP:-127.0.0.1}"
}

# Runs a command in the background and waits for it, so that a signal ends this script at once;
# returns the command's status.
CLIENT=""
attend() {
   local status=0
   "$@" &
   CLIENT="$!"
   wait "${CLIENT}" || status="$?"
   CLIENT=""
   return "${status}"
}

CHILDREN=()   # Ray's processes, and per process "--process PID LOG"
WATCHED=()
RAY_FOLDER=""   # of our own Ray's files
JOB=""          # that is at work, or did not succeed

# Ends Ray's processes. Those that outlive RAY_GRACE are killed, with what they started themselves:
# a Ray that is told to end while it ends its own processes can wait for itself for ever.
end_children() {
   local pid own tenth
   for pid in "${CHILDREN[@]}"; do kill -TERM "${pid}" 2>/dev/null || true; done
   for ((tenth = 0; tenth < 10 * RAY_GRACE; tenth++)); do
      kill -0 "${CHILDREN[@]}" 2>/dev/null || break   # none is left
      sleep 0.1
   done
   for pid in $(jobs -pr); do
      own="$(cat "/proc/${pid}/task/${pid}/children" 2>/dev/null)" || true
      # shellcheck disable=SC2086   # several words
      kill -KILL ${own} "${pid}" 2>/dev/null || true
   done
   for pid in "${CHILDREN[@]}"; do wait "${pid}" 2>/dev/null || true; done
}

stop() {
   trap '' HUP INT TERM   # a second signal does not leave Ray behind
   [[ -z "${CLIENT}" ]] || kill -KILL "${CLIENT}" 2>/dev/null || true
   [[ -z "${JOB}" ]] ||
      timeout 30 ray job stop --no-wait --address "${RAY_ADDRESS}" "${JOB}" >/dev/null 2>&1 || true
   end_children
   if [[ -n "${RAY_FOLDER}" ]]; then
      cp -rT -- "${RAY_FOLDER}"/ray/session_2*/logs "${SAVE_PATH}/ray_logs" 2>/dev/null || true
      rm -rf -- "${RAY_FOLDER}"
   elif [[ -n "${JOB}" ]]; then
      tell_of_engines
   fi
}

# A Ray that is not ours lives on, and slime 0.4 leaves its engines there for the next start.
tell_of_engines() {
   local version end
   version="$("${PYTHON}" -m rubric_rl.launch.slime_version "${SLIME_DIR}")" || true
   [[ "${version}" != 0.[0-3].* ]] || return 0
   printf -v end '%q ' ray job submit --address "${RAY_ADDRESS}" \
      --runtime-env-json "{\"env_vars\": {\"PYTHONPATH\": \"${ROOT}\"}}" -- \
      "${PYTHON}" -m rubric_rl.launch.end_engines --save "${SAVE_PATH}"
   echo "note: from 0.4 on slime keeps engines and their GPUs in a Ray actor, ServingCluster;" \
      "the same command takes them over, and this one ends them: ${end}" >&2
}

# Turns this process into a command on another node. Over ssh the environment goes through the
# pipe, so that no key stands in a process list.
become() {
   local host="$1"
   shift
   if [[ -n "${SLURM_JOB_ID:-}" ]]; then
      exec srun --nodes 1 --ntasks 1 --overlap --nodelist "${host}" "$@"
   fi
   exec ssh -o BatchMode=yes "${host}" bash -s \
      < <(export -p; printf 'umask 077; cd %q && exec ' "${ROOT}"; printf '%q ' "$@"; echo)
}

# A Ray of our own: the head here, one worker per other node. They end with this script; workers
# also when their head is gone.
start_ray() {
   local node log="${SAVE_PATH}/ray.log" head="${ADDRESSES[0]}:${RAY_PORT}"
   local more=(--num-gpus "${GPUS_PER_NODE}" --disable-usage-stats)
   # Whoever reaches the head could run programs here, so Ray asks for a token that only this user
   # can read. Older versions of Ray ignore both variables.
   export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="${SAVE_PATH}/ray.token"
   "${PYTHON}" -c 'import secrets; print(secrets.token_hex(32))' >"${RAY_AUTH_TOKEN_PATH}"
   # Ray lets every user write its files, so they lie in a folder that only this user can enter, on
   # every node. In /tmp, because the path of a socket must stay under 108 characters.
   RAY_FOLDER="$(mktemp -d /tmp/slime-ray-XXXXXX)"
   ray start --head --block --node-ip-address "${ADDRESSES[0]}" --port "${RAY_PORT}" "${more[@]}" \
      --temp-dir "${RAY_FOLDER}/ray" \
      --dashboard-host 127.0.0.1 --dashboard-port "${RAY_DASHBOARD_PORT}" >>"${log}" 2>&1 &
   CHILDREN+=("$!") WATCHED+=(--process "$!" "${log}")
   for ((node = 1; node < ${#HOSTS[@]}; node++)); do
      log="${SAVE_PATH}/ray.${HOSTS[node]}.log"
      become "${HOSTS[node]}" ray start --block --address "${head}" "${more[@]}" \
         --node-ip-address "${ADDRESSES[node]}" >>"${log}" 2>&1 &
      CHILDREN+=("$!") WATCHED+=(--process "$!" "${log}")
   done
   attend "${PYTHON}" -m rubric_rl.launch.wait_for_gpus --address "${head}" \
      --gpus "$((NNODES * GPUS_PER_NODE))" "${WATCHED[@]}"
   RAY_ADDRESS="http://127.0.0.1:${RAY_DASHBOARD_PORT}"
}

# Submits the job and waits for its end; its output is shown and kept.
submit_job() {
   local status=0 tee log="$1"
   exec 8> >(exec tee -ai "${log}")
   tee="$!"
   attend ray job submit --address "${RAY_ADDRESS}" --submission-id "${JOB}" \
      --runtime-env-json "${RUNTIME_ENV}" -- bash "${SAVE_PATH}/command.sh" >&8 2>&1 || status="$?"
   exec 8>&-
   wait "${tee}" || true
   return "${status}"
}

# Ends with the status of a job that failed: 3 where its hooks ended it because of the alarm.
fail() {
   local why="${SAVE_PATH}/stopped_by_alarm.txt"
   [[ -f "${why}" ]] || exit "$1"
   cat -- "${why}" >&2
   exit 3
}

# Runs the job. `ray job submit` returns 0 also when somebody stopped the job, or when only the
# connection to its log broke: Ray's own word counts.
run_job() {
   local status told="" state attempt log="${SAVE_PATH}/train.log"
   JOB="${RUBRIC_RL_RUN}"
   # A busy node has its GPUs before its job agent, for which Ray waits ten seconds only.
   for attempt in {1..30}; do
      status=0
      submit_job "${log}" || status="$?"
      ((status == 0)) && break
      [[ "$(tail -n 1 -- "${log}")" == *"No available agent to submit job"* ]] || fail "${status}"
      echo "note: Ray has no job agent yet (${attempt} of 30)" >&2
   done
   ((status == 0)) || fail "${status}"
   until state="$(ray job status --address "${RAY_ADDRESS}" "${JOB}" 2>&1)" &&
      [[ "${state}" == *succeeded* ]]; do
      if [[ "${state}" != *RUNNING* && "${state}" != *PENDING* ]]; then
         echo "error: the job did not succeed: ${state##*$'\n'}" >&2
         fail 1
      fi
      if [[ -z "${told}" ]]; then
         echo "note: the job goes on, but Ray shows its output no longer: ray job logs ${JOB}" >&2
         told=1
      fi
      attend sleep 30
   done
   JOB=""
}

# Names the processes that hold the lock, but not those that another holder has started. Ray and the
# job's client inherit it from the launcher: after its death they are still at work in SAVE_PATH.
refuse_second_run() {
   local file pid parent holders=" " named=""
   for file in /proc/[0-9]*/fd/9; do
      pid="${file#/proc/}" pid="${pid%%/*}"
      if [[ "${file}" -ef "${SAVE_PATH}/lock" && "${pid}" != "$$" ]]; then holders+="${pid} "; fi
   done
   for pid in ${holders}; do
      parent="$(awk '/^PPid:/ { print $2 }' "/proc/${pid}/status" 2>/dev/null)" || continue
      if [[ "${holders}" != *" ${parent} "* ]]; then
         named+="${named:+, }${pid} ($(tr '\0' ' ' <"/proc/${pid}/cmdline" | cut -c -100))"
      fi
   done
   die "${SAVE_PATH} is in use by another run (process ${named:-on another node});" \
      "end that one, or set another SAVE_PATH"
}

# Checks everything, then runs the job until it ends. "$@" are the user's flags: the last word.
launch() {
   local args=(
      "${MODEL_ARGS[@]}" "${RECIPE_ARGS[@]}" "${PLACEMENT_ARGS[@]}" "${PARALLEL_ARGS[@]}"
      "${CAPACITY_ARGS[@]}" "${ENGINE_ARGS[@]}" "${LOG_ARGS[@]}" "$@"
   )
   local command=("${PYTHON}" "${SLIME_DIR}/train.py" "${args[@]}")
   if [[ "${DRY_RUN}" == 1 ]]; then
      printf '%q\n' "${command[@]}"
      exit 0
   fi
   umask 077   # records of what patients wrote, weights, logs: this user's alone
   RAY_PORT="${RAY_PORT:-6379}" RAY_DASHBOARD_PORT="${RAY_DASHBOARD_PORT:-8265}"
   find_nodes
   [[ -n "${RAY_ADDRESS:-}" || "${ADDRESSES[*]}" != 127.+([0-9.]) ]] || stay_on_loopback
   command -v ray >/dev/null ||
      die "there is no command ray on PATH; start inside slime's image or environment"
   mkdir -p -- "${SAVE_PATH}" 2>/dev/null ||
      die "SAVE_PATH ${SAVE_PATH} cannot be made; set it to a folder of your own"
   # Tried, not asked: [[ -w ]] says yes to root even where nothing can be made, as in /proc.
   { exec 9>"${SAVE_PATH}/lock"; } 2>/dev/null ||
      die "SAVE_PATH ${SAVE_PATH} cannot be written; set it to a folder of your own"
   flock -n 9 || refuse_second_run
   EVAL_NAME="$("${PYTHON}" -m rubric_rl.launch.eval_name "${GRADER_CONFIG}")"
   export EVAL_NAME
   runtime_env
   "${PYTHON}" -m rubric_rl.launch.check_run \
      --slime-dir "${SLIME_DIR}" --megatron-dir "${MEGATRON_DIR}" \
      --nodes "${NNODES}" --gpus-per-node "${GPUS_PER_NODE}" ${RAY_ADDRESS:+--running-ray} \
      --ports "${RAY_PORT}" "${RAY_DASHBOARD_PORT}" -- "${args[@]}"

   {
      printf 'cd %q && exec ' "${ROOT}"
      printf '%q ' "${command[@]}"
      echo
   } 2>/dev/null >"${SAVE_PATH}/command.sh" ||
      die "${SAVE_PATH}/command.sh cannot be written; is the disk full?"
   trap stop EXIT
   trap 'exit 129' HUP
   trap 'exit 130' INT
   trap 'exit 143' TERM
   rm -f -- "${SAVE_PATH}/stopped_by_alarm.txt"   # of an earlier start
   [[ -n "${RAY_ADDRESS:-}" ]] || start_ray
   run_job
}
