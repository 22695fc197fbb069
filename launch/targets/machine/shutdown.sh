#!/usr/bin/env bash
# Runs on a host of a Cloud TPU slice when it is about to be taken away: has the startup script stop the run, and waits
# for its checkpoint. A preempted VM has 30 seconds.
set -uo pipefail

root="${VDIT_ROOT:-/opt/vdit}"
pid="$(cat "$root/pid" 2>/dev/null)" || exit 0
kill -TERM "$pid" 2>/dev/null || exit 0
for _ in {1..250}; do
  kill -0 "$pid" 2>/dev/null || exit 0
  sleep 0.1
done
