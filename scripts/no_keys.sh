# shellcheck shell=bash
# Refuses a key among "$@". Every run script sources it first: every user of the machine sees a
# command line, and it is kept in logs and in SAVE_PATH/command.sh.
for word in "$@"; do
   case "${word}" in
      --wandb-key | --wandb-key=*)
         echo "error: --wandb-key: a key on a command line is seen by every user and stays in" \
            "logs; export WANDB_API_KEY instead" >&2
         exit 2
         ;;
   esac
done
