#!/bin/sh
# The dead-man switch of a machine that was rented or taken for one lease:
#
#   switch.sh STATE pod|host LEASE DEADLINE IDLE_S [START_COMMAND]
#
# It ends the lease at the deadline (seconds since 1970), or when STATE/beat has not changed for IDLE_S seconds. On a
# pod it has the provider terminate it, in every way that is known, until that works. On a host it ends the lease's
# processes, removes STATE and goes; the host's lock, open as descriptor 9, becomes free by that; STATE/released lets it
# go at once. START_COMMAND is the number of the process whose end is the container's, if that is not the first one.
# Plain POSIX sh. RUNPOD_API_KEY is given on by pipes and environments, and stands in nobody's arguments.

state=$1 kind=$2 lease=$3 deadline=$4 idle_s=$5 start_command=${6:-}
tick=${RECIPE_TICK_S:-1}
api=${RECIPE_API:-https://api.runpod.io/v2}
api=${api%/}
graphql=${RECIPE_GRAPHQL:-https://api.runpod.io/graphql}
patience_s=20
newline='
'
export LC_ALL=C
umask 077

trap '' HUP INT QUIT TERM PIPE ALRM USR1 USR2 TSTP TTIN TTOU
# A shell gives up where no process can be started any more; as its last act this one becomes itself again.
again() {
  RECIPE_IDLED_MS=$idled_ms exec sh "$0" "$state" "$kind" "$lease" "$deadline" "$idle_s" "$start_command" 2> /dev/null
}
case $0 in /*) trap again EXIT ;; esac
{ echo -1000 > /proc/$$/oom_score_adj; } 2> /dev/null
cd / || :

say() { # in the background: whoever keeps the container's log may not be reading
  printf 'recipe: switch: %s\n' "$*" 9>&- &
}

leave() {
  trap - EXIT
  exit 0
}

milliseconds() { # of a number such as 1 or 0.25
  case $1 in
    *.*) fraction=${1#*.}000 whole=${1%%.*} ;;
    *) fraction=000 whole=$1 ;;
  esac
  echo $((${whole:-0} * 1000 + 1${fraction%"${fraction#???}"} - 1000))
}

alive() { # a zombie is not
  if { read -r about < "/proc/$1/stat"; } 2> /dev/null; then
    case $about in *') Z '* | *') X '*) return 1 ;; esac
    return 0
  fi
  [ ! -d /proc/1 ] && kill -0 "$1" 2> /dev/null
}

limited() { # SECONDS COMMAND…: its exit status, or 124 if it had to be killed
  limit=$(($(date +%s) + $1))
  shift
  "$@" < /dev/null > /dev/null 2>&1 9>&- &
  child=$!
  while alive $child; do
    if [ "$(date +%s)" -ge $limit ]; then
      kill -9 $child
      return 124
    fi
    sleep "$tick" 9>&-
  done
  wait $child
}

first_process() { # the value of a variable in the environment of the container's first process
  { tr '\0' '\n' < /proc/1/environ; } 2> /dev/null | while IFS= read -r line; do
    case $line in "$1="*) printf %s "${line#*=}"; break ;; esac
  done
}

clean() { # whether a value has only characters that need no quoting anywhere
  case $1 in '' | *[!A-Za-z0-9._~+/=-]*) return 1 ;; esac
}

# One call each: METHOD URL BODY TRUST. They print the answer, and on the last line its status; 60 is for a certificate.

via_curl() {
  insecure=
  [ "$4" = verified ] || insecure=--insecure
  printf 'header = "Authorization: Bearer %s"\n' "$key" |
    curl -q --config - --silent --max-time $patience_s --connect-timeout $patience_s --user-agent recipe-switch \
      --request "$1" --header 'Content-Type: application/json' ${3:+--data "$3"} $insecure \
      --write-out '\n%{http_code}' "$2"
  case $? in 0) ;; 51 | 60 | 77 | 83) return 60 ;; *) return 1 ;; esac
}

python='
import os, sys, urllib.error, urllib.request
try:
    import ssl
except ImportError:
    ssl = None
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
method, url, body, trust, patience = sys.argv[1:]
headers = {"Authorization": "Bearer " + os.environ["RECIPE_KEY"], "Content-Type": "application/json"}
headers["User-Agent"] = "recipe-switch"
handlers = [Stay]
if ssl and trust == "unverified":
    handlers.append(urllib.request.HTTPSHandler(context=ssl._create_unverified_context()))
request = urllib.request.Request(url, body.encode() or None, headers, method=method)
try:
    answer = urllib.request.build_opener(*handlers).open(request, timeout=float(patience))
except urllib.error.HTTPError as error:
    answer = error
except urllib.error.URLError as error:
    sys.exit(60 if ssl and isinstance(error.reason, ssl.SSLError) else 1)
print(answer.read(100000).decode("utf-8", "replace"))
print(answer.code)
'

via_python3() {
  RECIPE_KEY=$key python3 -IS -c "$python" "$1" "$2" "$3" "$4" $patience_s
}

via_wget() { # which reads headers only from regular files: from one in memory that has no name any more
  insecure=
  [ "$4" = verified ] || insecure=--no-check-certificate
  headers=$(mktemp -p /dev/shm || mktemp "$state/XXXXXX") || return 1
  printf 'header = Authorization: Bearer %s\n' "$key" > "$headers"
  said=$({
    rm -f "$headers"
    wget --config=/dev/fd/3 --server-response --output-document=- --content-on-error --tries=1 --max-redirect=0 \
      --timeout=$patience_s --user-agent=recipe-switch --method="$1" --header='Content-Type: application/json' \
      ${3:+--body-data="$3"} $insecure "$2" 2>&1
  } 3< "$headers")
  [ $? = 5 ] && return 60
  printf '%s\n' "$said"
  printf '%s\n' "$said" | while read -r word number _; do
    case $word in HTTP/*) printf '%s\n' "$number" ;; esac
  done | tail -n 1
}

find_tools() { # anew each time: an image may get one while it is being prepared
  tools='' ways=''
  for tool in curl python3 wget; do
    command -v $tool > /dev/null 2>&1 || continue
    # Another wget takes its headers only from its arguments.
    [ $tool = wget ] && case $(wget --version 2> /dev/null) in GNU*) ;; *) continue ;; esac
    tools="$tools $tool" ways="$ways${ways:+, }\"$tool\""
  done
  command -v runpodctl > /dev/null 2>&1 && ways="$ways${ways:+, }\"runpodctl\""
}

# METHOD URL BODY: sets code (000: no answer), text and how. Certificates are waived only where nothing else is left.
request() {
  find_tools
  certificate=
  for trust in verified unverified; do
    [ $trust = verified ] || [ -n "$certificate" ] || break
    for tool in $tools; do
      text=$("via_$tool" "$1" "$2" "$3" $trust 2> /dev/null 9>&-)
      [ $? = 60 ] && certificate=1
      code=${text##*"$newline"}
      how=$tool
      [ $trust = verified ] || how="$tool without verification"
      case $code in [1-5][0-9][0-9]) return 0 ;; esac
    done
  done
  code=000 text='' how=${tools:+'not reached'}
  how=${how:-'there is neither curl nor python3 nor GNU wget'}
}

tell() { # PROOF WORDS: what this switch is, for clients
  facts='{"armed_at": %s, "deadline": %s, "idle_s": %s, "kind": "%s", "pid": %s, "ways": [%s]'
  { printf "$facts, \"proof\": \"%s\", \"said\": \"%s\"}\n" \
    "$armed_at" "$deadline" "$idle_s" "$kind" $$ "$ways" "$1" "$2" > "$state/switch.json.part" &&
    mv -f "$state/switch.json.part" "$state/switch.json"; } 2> /dev/null
  [ "$1" = unknown ] || say "armed until $deadline, or $idle_s s without a sign of life; the call that ends it: $1, $2"
}

rest() { # TICKS
  rested=0
  while [ $rested -lt "$1" ]; do
    sleep "$tick" 9>&-
    rested=$((rested + 1))
    container_gone && leave
  done
}

prove() { # ask for what changes nothing on a running pod: that it be started. Who may terminate it is not turned away
  pause=2
  while [ $pause -le 256 ]; do
    request POST "$api/pods/$pod/action" '{"action": "start"}'
    case $code in
      200 | 204 | 409) tell allowed "start of the running pod was answered with $code ($how)"; return ;;
      401 | 403) tell refused "start of the running pod was answered with $code ($how)"; return ;;
    esac
    tell unknown "start of the running pod was answered with $code ($how)"
    rest $pause
    pause=$((pause * 2))
  done
}

accepted() { # NAME: whether the last answer says that the pod will go
  say "$1: $code ($how)"
  case $code in 2[0-9][0-9]) ;; *) return 1 ;; esac
  case $text in *'"errors"'*) return 1 ;; esac
}

terminate() { # each way in turn, again and again: what ends this loop is the end of the container
  query='{"query": "mutation($id: String!) { podTerminate(input: {podId: $id}) }", "variables": {"id": "'$pod'"}}'
  while :; do
    if [ -n "$ready" ]; then
      request POST "$api/pods/$pod/action" '{"action": "terminate"}'
      accepted 'v2 terminate' && rest 15
      request DELETE "$api/pods/$pod" ''
      accepted 'v2 DELETE' && rest 15
      request POST "$graphql" "$query"
      accepted 'GraphQL podTerminate' && rest 15
    fi
    if command -v runpodctl > /dev/null 2>&1; then
      limited 30 runpodctl remove pod "$pod" && say 'runpodctl remove pod: done' && rest 15
      limited 30 runpodctl pod delete "$pod" && say 'runpodctl pod delete: done' && rest 15
    fi
    rest 10
  done
}

marked() { # the numbers of the processes that carry the lease's marker
  for entry in /proc/[0-9]*; do
    if { tr '\0' '\n' < "$entry/environ"; } 2> /dev/null | grep -qxF "RECIPE_LEASE=$lease"; then
      echo "${entry#/proc/}"
    fi
  done
}

end_jobs() { # SECONDS; without the agent by the marker alone
  [ -e "$state/agent" ] && limited "$1" sh "$state/agent" end && return
  asked_at=$(date +%s) signal=TERM
  while found=$(marked) && [ -n "$found" ] && [ $(($(date +%s) - asked_at)) -lt 15 ]; do
    kill -$signal $found 2> /dev/null
    sleep "$tick" 9>&-
    [ $(($(date +%s) - asked_at)) -lt 10 ] || signal=KILL
  done
}

end_lease() { # WHY
  say "$1; this lease ends now"
  { printf '%s\n' "$1" > "$state/ending"; } 2> /dev/null
  if [ "$kind" = host ]; then
    end_jobs 60
    case $state in */"$lease") rm -rf "$state" ;; esac
    case $state in */.recipe/*) rmdir "${state%/*}" 2> /dev/null ;; esac
    leave
  fi
  end_jobs 15
  terminate
}

container_gone() { # what is no real container ends with its start command; a newer one may have begun in its place
  [ "$kind" = pod ] || return 1
  { read -r newest < "$state/switch.pid"; } 2> /dev/null && [ "$newest" != $$ ] && return 0
  [ -n "$start_command" ] && ! alive "$start_command"
}

pod='' key='' tools='' ways='' ready=''
armed_at=$(date +%s)
idled_ms=${RECIPE_IDLED_MS:-0} passed_ms=0 beat=''
tick_ms=$(milliseconds "$tick")
left_ms=$(((deadline - armed_at) * 1000))

if [ "$kind" = pod ]; then
  { echo $$ > "$state/switch.pid"; } 2> /dev/null
  pod=${RUNPOD_POD_ID:-$(first_process RUNPOD_POD_ID)}
  key=${RUNPOD_API_KEY:-$(first_process RUNPOD_API_KEY)}
  RUNPOD_API_KEY=$key
  export RUNPOD_API_KEY
  if [ "$start_command" = 1 ] || [ "$(first_process RUNPOD_POD_ID)" = "$pod" ]; then
    start_command=''
  fi
  find_tools
  if ! clean "$pod" || ! clean "$key"; then
    tell refused 'the container was given no usable RUNPOD_POD_ID or RUNPOD_API_KEY'
  else
    ready=1
    tell unknown 'not asked yet'
    (prove) &
  fi
else
  ways='"end the processes"'
  tell allowed 'it ends processes of its own user'
fi

while :; do
  container_gone && leave
  [ "$kind" = host ] && [ -e "$state/released" ] && leave
  [ "$kind" = host ] && [ ! -d "$state" ] && end_lease 'its folder is gone'
  now=$(date +%s)
  case $now in '' | *[!0-9]*) now=0 ;; esac
  [ "$now" -ge "$deadline" ] || [ $passed_ms -ge $left_ms ] && end_lease 'the deadline has come'
  seen=''
  { read -r seen < "$state/beat"; } 2> /dev/null
  if [ "$seen" = "$beat" ]; then
    idled_ms=$((idled_ms + tick_ms))
  else
    beat=$seen idled_ms=0
  fi
  [ $idled_ms -ge $((idle_s * 1000)) ] && end_lease "no sign of life for $idle_s s"
  sleep "$tick" 9>&-
  passed_ms=$((passed_ms + tick_ms))
done
