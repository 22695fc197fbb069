#!/usr/bin/env bash
# Runs on every host of a Cloud TPU slice when it boots: installs one commit, trains one run, cleans up after itself.
#
# What to run comes as data, in attributes of the instance's metadata; nothing of it is ever part of a command line that
# a shell reads. launch/targets/queued_resources.py writes them:
#   vdit-name, vdit-zone   the queued resource, which the first host deletes at the end
#   vdit-repository        URL, or gs://.../code.bundle, of the code; vdit-commit: what of it
#   vdit-extras            extras of setup.py to install
#   vdit-folder            the run's folder in the bucket; vdit-run: run.json, see launch/remote.py
#   vdit-data              lines of SOURCE<tab>FOLDER: data sets to stage on the local disk
#   vdit-hosts             hosts of a slice; vdit-slices: slices of the run; vdit-attempt: names the attempt
set -euo pipefail

root="${VDIT_ROOT:-/opt/vdit}"
metadata="http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance/attributes"
host="$(hostname)"
child=0
stopping=0

say() { printf '%s %s\n' "$(date -u +%FT%TZ)" "$*"; }

# Sleeps some times the pause.
rest() {
  local i
  for ((i = 0; i < $1; i++)); do sleep "${VDIT_PAUSE:-5}"; done
}

attribute() {
  curl --silent --show-error --fail --retry 10 --retry-all-errors --retry-delay 3 \
    --header 'Metadata-Flavor: Google' "$metadata/$1"
}

# Tries a command again when the network fails.
again() {
  local try
  for try in 1 2 3 4 5; do
    "$@" && return 0
    say "try $try of 5 failed: $1 $2"
    rest "$try"
  done
  return 1
}

# An interpreter that is new enough; TPU VM images of Ubuntu 22.04 have 3.10 only, so uv brings one.
find_python() {
  local candidate
  for candidate in python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  again python3 -m pip install --quiet --user uv==0.9.5 >&2 || return
  again python3 -m uv python install --quiet 3.12 >&2 || return
  python3 -m uv python find 3.12
}

# The steps below end at their first failure by hand: bash ignores `set -e` in a step whose status is tested.
fetch_code() {
  local from="$repository"
  if [[ "$repository" == gs://* ]]; then
    again gcloud storage cp "$repository" "$root/code.bundle" || return
    from="$root/code.bundle"
  fi
  if [[ ! -d "$root/src/.git" ]]; then
    again git clone --quiet --no-checkout -- "$from" "$root/src" || return
  fi
  git -C "$root/src" cat-file -e "$commit^{commit}" 2>/dev/null \
    || again git -C "$root/src" fetch --quiet origin "$commit" || return
  git -C "$root/src" checkout --quiet --force --detach "$commit"
}

install() {
  local python
  [[ "$(cat "$root/installed" 2>/dev/null || true)" == "$commit $extras" ]] && return 0
  python="$(find_python)" || return
  "$python" -m venv "$root/venv" || return
  again "$root/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$root/src/constraints.txt" --editable "$root/src[$extras]" || return
  printf '%s' "$commit $extras" >"$root/installed"
}

stage_data() {
  local source folder
  while IFS=$'\t' read -r source folder || [[ -n "$source" ]]; do
    [[ -z "$source" ]] && continue
    mkdir -p "$root/src/$folder"
    again gcloud storage rsync --recursive "$source" "$root/src/$folder" || return
  done < <(attribute vdit-data)
}

# The number of this host among all of the run, and how JAX joins them. Multislice hosts find their slice in tpu-env.
number_hosts() {
  local slice=0 own
  own="$(attribute agent-worker-number)" || return
  if ((slices > 1)); then
    slice="$(attribute tpu-env | sed -n "s/^MEGASCALE_SLICE_ID: *'\{0,1\}\([0-9]*\).*/\1/p")" || return
    [[ -n "$slice" ]] || { say "tpu-env has no MEGASCALE_SLICE_ID"; return 1; }
  fi
  workers=$((hosts * slices))
  process=$((slice * hosts + own))
}

# Waits until every host of the run is installed, so that none waits in vain for a peer that is still booting.
wait_for_workers() {
  local found deadline
  hostname -I | cut -d ' ' -f 1 >"$root/ready"
  again gcloud storage cp "$root/ready" "$folder/workers/$attempt/$process" || return
  deadline=$((SECONDS + 1800))
  while true; do
    found="$(gcloud storage ls "$folder/workers/$attempt/" 2>/dev/null | grep -c -v '\.exit$' || true)"
    ((found >= workers)) && break
    if ((SECONDS > deadline)); then
      say "only $found of $workers hosts are ready after 30 minutes"
      return 1
    fi
    rest 1
  done
  ((workers == 1)) && return 0
  again gcloud storage cp "$folder/workers/$attempt/0" "$root/coordinator" || return
  JAX_COORDINATOR_ADDRESS="$(cat "$root/coordinator"):8476"
  export JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES="$workers" JAX_PROCESS_ID="$process"
}

upload_log() { gcloud storage cp "$root/log" "$folder/logs/$host.log" >/dev/null 2>&1 || true; }

upload_logs() {
  while sleep 60; do upload_log; done
}

on_signal() {
  say "stopping"
  stopping=1
  if ((child)); then kill -TERM "$child" 2>/dev/null || true; fi
}

# Trains; a signal is passed on, and the run then saves a checkpoint and ends with status 75.
train() {
  local status=0
  cd "$root/src"
  "$root/venv/bin/python" -m launch.remote "$root/run.json" &
  child=$!
  ((stopping)) && kill -TERM "$child"
  while true; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break # a signal ends wait, too
  done
  child=0
  return "$status"
}

# After a crash all hosts start again; a mistake (2) or a preemption (75) is not tried again here.
train_with_restarts() {
  local status=0 try
  for try in 1 2 3 4; do
    status=0
    train || status=$?
    if ((status == 0 || status == 2 || status == 75 || stopping || try == 4)); then break; fi
    say "training ended with status $status; starting again"
    rest "$try"
  done
  return "$status"
}

# The first host waits for the others, leaves the status in the bucket and deletes the queued resource.
finish() {
  local status="$1" found deadline
  printf '%s %s %s\n' "$attempt" "$status" "$(grep '^error: ' "$root/log" | tail -n 1 || true)" >"$root/exit"
  again gcloud storage cp "$root/exit" "$folder/workers/$attempt/$process.exit"
  upload_log
  ((process == 0)) || return 0
  deadline=$((SECONDS + 600))
  while ((SECONDS < deadline)); do
    found="$(gcloud storage ls "$folder/workers/$attempt/" 2>/dev/null | grep -c '\.exit$' || true)"
    ((found >= workers)) && break
    rest 1
  done
  again gcloud storage cp "$root/exit" "$folder/exit"
  again gcloud compute tpus queued-resources delete "$name" --zone="$zone" --force --async --quiet
}

main() {
  local status=0 logs
  mkdir -p "$root"
  printf '%s\n' "$$" >"$root/pid"
  exec >>"$root/log" 2>&1
  trap on_signal TERM INT
  say "host $host starts"
  name="$(attribute vdit-name)" zone="$(attribute vdit-zone)" folder="$(attribute vdit-folder)"
  repository="$(attribute vdit-repository)" commit="$(attribute vdit-commit)" extras="$(attribute vdit-extras)"
  hosts="$(attribute vdit-hosts)" slices="$(attribute vdit-slices)" attempt="$(attribute vdit-attempt)"
  number_hosts
  attribute vdit-run >"$root/run.json"
  upload_logs &
  logs=$!
  { fetch_code && install && stage_data && wait_for_workers && train_with_restarts; } || status=$?
  kill "$logs" 2>/dev/null || true
  say "host $host ends with status $status"
  rm -f "$root/pid"
  if ((status == 75 || stopping)); then
    upload_log # the machine is being taken away; whoever watches makes another
    return "$status"
  fi
  finish "$status"
  return "$status"
}

main
