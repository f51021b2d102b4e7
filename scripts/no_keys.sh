# shellcheck shell=bash
# Defines `die`, and refuses a key among "$@". Every run script sources it first: every user of the
# machine sees a command line, and it is kept in logs and in SAVE_PATH/command.sh. The same flags as
# in rubric_rl/common/command_line.py.
die() { printf 'error: %s\n' "$*" >&2; exit 2; }
unset PYTHONSAFEPATH   # else no Python finds the modules of this repository

for word in "$@"; do
   flag="${word%%=*}"
   case "${flag}" in
      --wandb-k*) variable=WANDB_API_KEY ;;
      --*api-key | --*api-keys | --*password | --*auth-token) variable="it as a variable" ;;
      *) continue ;;
   esac
   die "${flag}: a key on a command line is seen by every user and stays in logs;" \
      "export ${variable} instead"
done
unset word flag variable
