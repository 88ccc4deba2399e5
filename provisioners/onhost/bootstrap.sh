#!/bin/sh
# What a container does from its first second on: bootstrap.sh STATE LEASE DEADLINE IDLE_S START_COMMAND SWITCH
#
# It keeps the dead-man switch alive, which was started before it (SWITCH is its number), opens the way in (sshd, with
# $PUBLIC_KEY), finds a Python, and starts the jobs that start by themselves. It never exits, because the container ends
# with it; what fails is said in the container's log. All of it may be repeated: a container that restarts begins here
# again. START_COMMAND is the number of the process whose end is the container's. Plain POSIX sh.

state=$1 lease=$2 deadline=$3 idle_s=$4 start_command=$5 switch=$6
lowest='(3, 8)'

say() {
  printf 'recipe: %s\n' "$*"
}

beat() { # a sign of life, so that a slow installation is not taken for an abandoned machine
  { date +%s.boot > "$state/beat"; } 2> /dev/null
}

keep_armed() { # start the switch again if somebody has killed it
  if { read -r about < "/proc/$switch/stat"; } 2> /dev/null; then
    case $about in *') Z '*) ;; *) return ;; esac
  elif [ ! -d /proc/1 ] && kill -0 "$switch" 2> /dev/null; then
    return
  fi
  [ -e "$state/switch.sh" ] || return
  say 'the dead-man switch is started again'
  set -- sh "$state/switch.sh" "$state" pod "$lease" "$deadline" "$idle_s" "$start_command"
  command -v setsid > /dev/null 2>&1 && set -- setsid "$@"
  "$@" < /dev/null &
  switch=$!
}

own_container() { # whether this is a real container, in which everything is ours to change
  [ "$start_command" = 1 ] && return
  { tr '\0' '\n' < /proc/1/environ; } 2> /dev/null | while IFS= read -r line; do
    [ "$line" = "RUNPOD_POD_ID=${RUNPOD_POD_ID:-none}" ] && echo yes && break
  done | grep -q yes
}

install() { # PACKAGES… by the first package manager that there is; their names differ: DEBIAN ALPINE FEDORA
  if command -v apt-get > /dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $1
  elif command -v apk > /dev/null 2>&1; then
    apk add --no-cache $2
  elif command -v dnf > /dev/null 2>&1; then
    dnf install -y -q $3
  elif command -v microdnf > /dev/null 2>&1; then
    microdnf install -y $3
  elif command -v yum > /dev/null 2>&1; then
    yum install -y -q $3
  else
    say 'this image has no package manager that is known here'
    return 1
  fi < /dev/null
}

allow() { # HOME: let the client's key in
  [ -n "${PUBLIC_KEY:-}" ] && [ -n "$1" ] || return
  mkdir -p "$1/.ssh" && chmod 700 "$1/.ssh" || return
  keys=$(cat "$1/.ssh/authorized_keys" 2> /dev/null)
  case $keys in *"$PUBLIC_KEY"*) ;; *) printf '%s\n' "$PUBLIC_KEY" >> "$1/.ssh/authorized_keys" ;; esac
  chmod 600 "$1/.ssh/authorized_keys"
}

root_home() {
  while IFS=: read -r name _ _ _ _ home _; do
    [ "$name" = root ] && printf %s "$home" && break
  done < /etc/passwd
}

listens() { # whether anybody listens on port 22 (0016) in this network
  for table in /proc/net/tcp /proc/net/tcp6; do
    [ -r $table ] || continue
    while read -r _ here _ status _; do
      case $here/$status in *:0016/0A) return 0 ;; esac
    done < $table
  done
  return 1
}

find_sshd() {
  for path in "$(command -v sshd 2> /dev/null)" /usr/sbin/sshd /usr/local/sbin/sshd /sbin/sshd; do
    [ -x "$path" ] && printf %s "$path" && return
  done
  return 1
}

# What the image has is used: an sshd that runs, the start script of RunPod's images, an sshd. Else one is installed.
open_door() {
  listens && say 'sshd runs already' && return
  if grep -q ssh /start.sh 2> /dev/null; then
    say 'the image starts its sshd by /start.sh'
    # That script writes variables of RunPod's into files; the key is not to be among them.
    (unset RUNPOD_API_KEY; exec bash /start.sh) < /dev/null > "$state/start.log" 2>&1 &
    return
  fi
  if ! find_sshd > /dev/null; then
    say 'installing sshd'
    install openssh-server openssh openssh-server > "$state/install-sshd.log" 2>&1 ||
      tail -n 5 "$state/install-sshd.log"
  fi
  sshd=$(find_sshd) || { say 'no sshd could be installed: nobody can reach this machine'; return; }
  mkdir -p /run/sshd /var/empty
  # A key of this machine's own: one that came with the image would be everybody's.
  [ -e "$state/ssh_host_key" ] || ssh-keygen -q -t ed25519 -N '' -C "$lease" -f "$state/ssh_host_key"
  # To sshd an account without a password is a locked one.
  grep -q '^root:!' /etc/shadow 2> /dev/null && sed -i 's/^root:!*/root:*/' /etc/shadow
  sshd_settings > "$state/sshd_config"
  "$sshd" -f "$state/sshd_config" < /dev/null && say "sshd runs; its key: $(cat "$state/ssh_host_key.pub")"
}

sshd_settings() {
  printf '%s\n' 'Port 22' "HostKey $state/ssh_host_key" "PidFile $state/sshd.pid" 'PermitRootLogin yes' \
    'AuthenticationMethods publickey' 'AuthorizedKeysFile .ssh/authorized_keys' 'StrictModes no' \
    'AllowTcpForwarding yes' 'MaxSessions 200' 'MaxStartups 200' 'ClientAliveInterval 15' 'ClientAliveCountMax 8' \
    'Subsystem sftp internal-sftp'
}

can_make_environments() {
  "$1" -c "import sys, venv, ensurepip; sys.exit(sys.version_info < $lowest)" > /dev/null 2>&1 < /dev/null
}

find_python() { # TEST: the first Python that passes it
  for path in "$(command -v python3 2> /dev/null)" "$(command -v python 2> /dev/null)" /opt/conda/bin/python3 \
    /usr/local/bin/python3 /usr/bin/python3 "$state/python/bin/python3"; do
    [ -x "$path" ] && "$1" "$path" && printf %s "$path" && return
  done
  return 1
}

runs() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 6))' > /dev/null 2>&1 < /dev/null
}

fetch_python() { # by uv, which brings one of its own
  say 'fetching a Python by uv'
  export UV_INSTALL_DIR="$state/uv" UV_PYTHON_INSTALL_DIR="$state/pythons" UV_CACHE_DIR="$state/uv/cache"
  export UV_NO_MODIFY_PATH=1
  { curl -LsSf https://astral.sh/uv/install.sh || wget -qO- https://astral.sh/uv/install.sh; } 2> /dev/null | sh &&
    "$state/uv/uv" python install 3.12 && mkdir -p "$state/python/bin" &&
    ln -sf "$("$state/uv/uv" python find --no-project 3.12)" "$state/python/bin/python3"
}

provide_python() { # sets python
  python=$(find_python can_make_environments) && return
  if own_container; then
    say 'installing Python'
    install 'python3 python3-venv' 'python3 py3-pip' 'python3 python3-pip' > "$state/install-python.log" 2>&1 ||
      tail -n 5 "$state/install-python.log"
    beat
    python=$(find_python can_make_environments) && return
  fi
  fetch_python > "$state/install-uv.log" 2>&1 < /dev/null || tail -n 5 "$state/install-uv.log"
  beat
  python=$(find_python can_make_environments) && return
  python=$(find_python runs) && say "only $python is here, which cannot make environments"
}

beat
allow "${HOME:-}"
if own_container; then
  allow "$(root_home)"
  open_door
else
  say 'no container of its own: its sshd and its packages are left as they are'
fi
beat
if provide_python; then
  say "Python is $python"
  "$python" -IS "$state/agent.py" "$state" boot $$ < /dev/null
else
  say 'no Python could be had: this machine cannot be used'
fi
while :; do
  sleep 5 &
  wait $!
  keep_armed
done
