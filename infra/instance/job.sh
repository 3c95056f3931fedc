# Installs, starts and polls a training on this machine. Nothing here depends on a lasting connection.
#
#   install LOCK_SHA256 WHEEL [UV_OPTION...]              create the environment from the inbox
#   start UNIT PYTHON GRACE NOTICE                        start a job once; repeating has no effect
#   poll UNIT PROGRESS_OFFSET LOG_OFFSET LIMIT HOLD       its state, then what was written since
#   supervise ...                                         the background process of `start`
#   apart JOB GRACE HIDDEN KEPT COMMAND...                runs COMMAND as `trainer` on a machine with other work
#   end_apart JOB                                         kills it
#
# A job is three processes: the user `uploader` fetches the inputs; the user `trainer` trains, without network;
# `uploader` mirrors what it writes. `start` reads the secrets of `uploader` from standard input.
# GRACE: seconds from a job's end until the machine powers off, unless `poll` sets HOLD to 1.
#
# GPU_OFFLOAD_ROOT, GPU_OFFLOAD_SHUTDOWN, GPU_OFFLOAD_SAME_USER, GPU_OFFLOAD_POLL: see docs/instance.md.

set -u
TRAINER=64001
SHARED="/run /tmp /var/tmp /dev/shm"
UPLOADER=64002
DENIED=78 # the mirror's exit code when the store has denied for too long what it writes
METADATA=169.254.169.254
NO_CAPABILITIES="--bounding-set=-all --inh-caps=-all --ambient-caps=-all"

root=${GPU_OFFLOAD_ROOT:-}
root=${root%/}
opt=$root/opt/gpu-offload
state=$root/var/lib/gpu-offload
run=$root/run/gpu-offload

simulated() { [ -n "${GPU_OFFLOAD_ROOT+set}" ]; }
if [ "$(id -u)" != 0 ] && ! simulated; then
    exec sudo -n -- sh "$0" "$@"
fi

fail() {
    echo "$1" >&2
    exit 1
}

# Whether the users are isolated from one another.
separate() { [ "$(id -u)" = 0 ] && [ -z "${GPU_OFFLOAD_SAME_USER:-}" ]; }

# Becomes another user permanently; on a simulated host without root there is only one.
become() {
    uid=$1
    shift
    if separate; then
        exec setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs $NO_CAPABILITIES -- "$@"
    fi
    exec "$@"
}

# Becomes the user that accesses the store. The trainer can write to neither its folder nor its home, and
# Python imports from neither (-P): the training user must not control what runs here.
become_uploader() {
    export HOME="$job/input" USER=uploader LOGNAME=uploader
    cd "$job/input" || exit 1
    set -a
    . "$run/$unit.environment"
    set +a
    become $UPLOADER setsid "$python" -P -m gpu_offload.remote_job --rented ${notice:+--spot-notice "$notice"} "$@"
}

# Becomes the user that trains, in a network namespace without connections and without access to the store. Its
# folders for sockets, shared memory and temporary files are empty ones of its own, because a socket in /run
# (name resolution, D-Bus) bypasses the network namespace.
become_trainer() {
    export HOME="$job/home" USER=trainer LOGNAME=trainer
    cd "$job/output" || exit 1
    for name in $(env | sed -n 's/^\(AWS_[A-Za-z0-9_]*\)=.*/\1/p'); do
        unset "$name"
    done
    set -a
    . "$job/environment"
    set +a
    separate || exec setsid "$python" "$@"
    hidden=
    for folder in $SHARED; do # only on a simulated host can a job or its Python be below one of these
        case "$job:$python" in "$folder"/* | *":$folder"/*) ;; *) hidden="$hidden$folder$newline" ;; esac
    done
    isolate "$hidden" "" setsid "$python" "$@"
}

# Becomes COMMAND as the user that trains, without capabilities, in network, mount and IPC namespaces of its own, and in
# those that $MORE_NAMESPACES names: isolate HIDDEN KEPT COMMAND... The first two are lists of absolute paths, one a line.
# HIDDEN: folders that become empty ones. KEPT: files and folders that are there all the same, after `+ ` writable; where there
# are any, nothing else of the machine can be written to.
isolate() {
    hidden=$1 kept=$2
    shift 2
    exec unshare --net --mount --ipc --propagation private ${MORE_NAMESPACES:-} -- \
        sh -c "$APART" sh "$hidden" "$kept" "$job" \
        setpriv --reuid $TRAINER --regid $TRAINER --clear-groups --no-new-privs $NO_CAPABILITIES -- "$@"
}

# Set-up as root in the new namespaces. Several GPUs communicate over the loopback device.
APART='
hidden=$1 kept=$2 job=$3
shift 3
refuse() {
    echo "gpu-offload: $1: not started" >&2
    exit 76
}
newline="
"
ip link set lo up
# The queues of the machine stay mounted in a new IPC namespace.
! mountpoint -q /dev/mqueue || mount -n -t mqueue -o nosuid,nodev,noexec mqueue /dev/mqueue ||
    refuse "the message queues of the machine could not be hidden"
read -r pid rest </proc/self/stat
[ -z "$kept" ] || echo "$pid" >"$job/pid"
IFS=$newline
set -f

# What is kept is bound elsewhere first, to an empty folder below which nothing is kept.
stash=
[ -z "$kept" ] || for folder in $hidden; do
    case "$newline${kept}" in *"$newline$folder/"* | *"$newline+ $folder/"*) continue ;; esac
    [ -d "$folder" ] && [ ! -L "$folder" ] || continue
    stash=$folder/.kept
    mount -n -t tmpfs -o nosuid,nodev,mode=700,size=16m tmpfs "$folder" && mkdir "$stash" || refuse "$folder could not be hidden"
    break
done
[ -z "$kept" ] || [ -n "$stash" ] || refuse "something of the training is below each folder that has to be hidden"
number=0
for path in $kept; do
    path=${path#+ }
    number=$((number + 1))
    if [ -d "$path" ]; then mkdir "$stash/$number"; else : >"$stash/$number"; fi
    mount -n --bind "$path" "$stash/$number" || refuse "$path could not be kept"
done
for folder in $hidden; do
    [ -d "$folder" ] && [ ! -L "$folder" ] || continue
    [ "$folder/.kept" != "$stash" ] || continue
    # What is in them is memory of the machine.
    size=
    [ -z "$kept" ] || case $folder in /tmp | /var/tmp | /dev/shm) size=,size=20% ;; *) size=,size=16m ;; esac
    mount -n -t tmpfs -o "nosuid,nodev,mode=1777$size" tmpfs "$folder" ||
        refuse "$folder could not be hidden from the training"
done
number=0
for path in $kept; do
    path=${path#+ }
    number=$((number + 1))
    if [ -d "$stash/$number" ]; then mkdir -p "$path"; else mkdir -p "${path%/*}" && : >>"$path"; fi
    mount -n --bind "$stash/$number" "$path" || refuse "$path could not be kept"
    umount -n "$stash/$number" && rm -d "$stash/$number" || refuse "$path could not be kept"
done
if [ -n "$kept" ]; then
    # Not even what every user may write to elsewhere. Mounts below a hidden folder that are not kept are out of reach.
    for point in $(cut -d" " -f5 /proc/self/mountinfo); do
        point=$(printf %b "$point")
        case $point in /proc | /proc/* | /sys | /sys/* | /dev | /dev/*) continue ;; esac
        case $newline$kept$newline in
        *"$newline+ $point$newline"*) continue ;;
        *"$newline$point$newline"*) ;;
        *) for folder in $hidden; do case $point/ in "$folder"/*) continue 2 ;; esac; done ;;
        esac
        mount -n -o remount,bind,ro "$point" || refuse "$point could not be made read-only"
    done
    rmdir "$stash" && chmod 1777 "${stash%/.kept}"
    mount -n -t proc -o nosuid,nodev,noexec proc /proc || refuse "processes could not be hidden"
    # By its name: a working folder of before would be below what is hidden, and so would all that is reached from it.
    cd "$job/output" || refuse "$job/output could not be kept"
    # The machine has other work: where memory is short, the kernel ends the training first.
    echo 1000 >/proc/self/oom_score_adj || refuse "the training could not be made the first to end where memory is short"
    exec prlimit --nproc=4096 "$@"
fi
exec "$@"
'
newline='
'

# Runs a command as the user that trains, on a machine that has other work and secrets of its own, as a runner of GitHub's:
# in a PID namespace, too, so that no process of it is left behind. Waits for it, and gives its output back to
# the owner of JOB, which has to hold `output`, `home` and `environment`; HIDDEN and KEPT as for `isolate`. Standard input
# ends when our parent does, which a runner kills without asking: a training that ignores it is killed after GRACE seconds.
apart() {
    job=$1 grace=$2 hidden=$3 kept=$4
    shift 4
    separate || fail "a training is isolated by root only"
    owner=$(stat -c %u:%g "$job") || exit
    own -RP $TRAINER:$TRAINER "$job/output" "$job/home" || exit
    end_former
    rm -f "$job/pid" "$job/trained"
    umask 022
    exec 3<&0
    (
        cd / || exit
        MORE_NAMESPACES="--pid --fork --kill-child"
        # A child of the first process: unshare exits with 1 after SIGKILL of its own, which may mean too little memory.
        isolate "$hidden" "$kept" env -i sh -c 'set -a; . "$0"; set +a; "$@"; exit $?' "$job/environment" "$@"
    ) <&3 3<&- &
    child=$!
    outlive "$grace" <&3 3<&- >/dev/null 2>&1 &
    await "$child"
    kill -KILL $! 2>/dev/null
    own -RP "$owner" "$job/output" "$job/home"
    echo $code >"$job/trained"
    exit $code
}

# Kills the training some seconds after the end of standard input; by then a later attempt may have a process of its own.
outlive() {
    while read -r _; do :; done
    left=$1 pid=
    while [ "$left" -gt 0 ]; do # in pieces: what sleeps outlives us when the training ends earlier
        [ -n "$pid" ] || pid=$(cat "$job/pid")
        sleep 1
        left=$((left - 1))
    done
    kill -KILL "$pid"
}

# Kills what is left of an earlier attempt whose driver was killed: two would write the same files. The process may have
# ended and another have its number, so it counts only if it names this job.
end_former() {
    pid=$(cat "$job/pid" 2>/dev/null) && [ -n "$pid" ] || return 0
    while tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -e "$job/"; do
        kill -KILL "$pid" 2>/dev/null
        sleep 0.1
    done
}

end_apart() {
    pid=$(cat "$1/pid") && kill -KILL "$pid"
}

own() {
    ! separate || chown "$@"
}

install() {
    lock=$1 wheel=$2
    shift 2
    inbox=$state/inbox
    uv=$(command -v uv) || uv=$inbox/uv
    [ -x "$uv" ] || fail "there is no uv on this image and none was sent"
    # Readable by every user: the trainer has no access to root's home folder.
    export UV_PYTHON_INSTALL_DIR="$opt/python" UV_NO_PROGRESS=1 UV_NO_CONFIG=1
    export UV_CACHE_DIR="${UV_CACHE_DIR:-$root/var/cache/gpu-offload/uv}"
    umask 022
    mkdir -p "$opt"
    # A driver that lost its connection asks again while this goes on: two would write the same environment.
    exec 9>"$opt/lock"
    flock 9 || fail "the lock $opt/lock could not be taken"
    python=$opt/venv/bin/python
    made="installed_lock=$lock
installed_wheel=$(sha256sum <"$inbox/$wheel" | cut -d' ' -f1)
installed_python=$python"
    [ "$(cat "$opt/installed" 2>/dev/null)" != "$made" ] || return 0
    rm -rf "$opt/venv" "$opt/installed"
    "$uv" venv --quiet --python '>=3.11' "$opt/venv" || fail "uv found and made no Python of 3.11 or later"
    "$uv" pip install --quiet --python "$python" --require-hashes --only-binary :all: "$@" \
        -r "$inbox/requirements.txt" || fail "the locked requirements could not be installed"
    "$uv" pip install --quiet --python "$python" --no-deps --offline "$inbox/$wheel" ||
        fail "our own wheel could not be installed"
    echo "$made" >"$opt/installed.part"
    mv "$opt/installed.part" "$opt/installed"
}

start() {
    unit=$1
    job=$state/jobs/$unit
    mkdir -p "$job/output" "$job/input" "$job/home" "$run"
    chmod 755 "$state" "$state/jobs" "$job" "$job/output" "$job/input"
    chmod 700 "$job/home"
    own $TRAINER:$TRAINER "$job/output" "$job/home"
    own $UPLOADER:$UPLOADER "$job/input"
    [ -e "$job/launched" ] && return
    # In memory, never on a disk. The last line shows that it is whole: to `cat`, a lost connection looks like the end.
    secrets=$run/$unit.environment
    (umask 077 && cat >"$secrets.$$") && [ "$(tail -n 1 "$secrets.$$")" = "# end" ] || {
        rm -f "$secrets.$$"
        fail "the variables of the uploader did not arrive"
    }
    cp "$state/inbox/$unit.json" "$job/spec.json" && cp "$state/inbox/$unit.environment" "$job/environment" &&
        cp "$0" "$job/job.sh" || fail "what the job needs is not in $state/inbox"
    chmod 644 "$job/spec.json" "$job/job.sh"
    chmod 600 "$job/environment"
    : >"$job/console.txt"
    # Only the process that creates this folder starts the job; another one may do so at the same time.
    if ! mkdir "$job/launched"; then
        rm -f "$secrets.$$"
        [ -d "$job/launched" ] || fail "$job cannot be written"
        return 0
    fi
    mv "$secrets.$$" "$secrets"
    : >"$run/started"
    if simulated; then
        setsid nohup sh "$job/job.sh" supervise "$@" </dev/null >>"$job/console.txt" 2>&1 &
    else
        # A limit, so that a training that uses all memory does not end SSH.
        systemd-run --unit="$unit" --quiet \
            --property=MemoryMax=90% --property=OOMPolicy=continue \
            --property=KillMode=mixed --property=TimeoutStopSec=90 \
            --property=StandardOutput="append:$job/console.txt" \
            --property=StandardError="append:$job/console.txt" \
            sh "$job/job.sh" supervise "$@"
    fi
}

# Runs a command in the background, in a process group of its own, as `become_...` says.
launch() {
    (
        as=$1
        shift
        "$as" "$@"
    ) </dev/null &
    child=$!
}

# Waits for a process despite signals to this shell, and sets `code`.
await() {
    while :; do
        wait "$1"
        code=$?
        kill -0 "$1" 2>/dev/null || return
    done
}

supervise() {
    unit=$1 python=$2 grace=$3 notice=$4
    job=$state/jobs/$unit
    echo $$ >"$job/supervisor"
    cat /proc/sys/kernel/random/boot_id >"$job/boot"
    stopping=
    child=
    # On shutdown the training can still write a checkpoint.
    trap 'stopping=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT
    umask 022
    code=0
    fetch && train
    rm -f "$run/$unit.environment"
    echo "$code" >"$job/exit.part"
    mv "$job/exit.part" "$job/exit"
    [ -n "$stopping" ] || rest
}

# Whether there is something to train.
fetch() {
    launch become_uploader --fetch "$job/input" "$job/spec.json"
    echo "$child" >"$job/pid"
    await "$child"
    child=
    [ -z "$stopping" ] || code=75 # nothing is lost: resumable
    [ "$code" = 0 ] && [ -e "$job/input/spec.json" ] || return
    separate || return 0
    launch become_trainer -I -c "import socket; socket.create_connection(('$METADATA', 80), 3)" 2>/dev/null
    await "$child"
    child=
    if [ "$code" = 0 ]; then
        echo "the training could reach the instance's credentials at $METADATA: not started"
        code=77
        return 1
    fi
    code=0
}

train() {
    # Ignores signals from its start, because the training's last checkpoint still has to be uploaded.
    launch deaf become_uploader --mirror "$job/input" --until "$job/trained" "$job/spec.json"
    mirror=$child
    launch become_trainer -P -m gpu_offload.remote_job --inputs "$job/input" "$job/input/spec.json"
    echo "$child" >"$job/pid"
    [ -z "$stopping" ] || kill -TERM "$child"
    await "$child"
    child=
    [ -z "$stopping" ] || [ "$code" != 143 ] || code=75 # SIGTERM came before the training handled it
    ended=$code
    echo "$ended" >"$job/trained.part"
    mv "$job/trained.part" "$job/trained"
    await "$mirror"
    [ "$ended" = 0 ] || [ "$code" = "$DENIED" ] || code=$ended
}

deaf() {
    trap '' TERM INT HUP
    "$@"
}

# Waits for a driver that still needs the machine, then powers it off.
rest() {
    while :; do
        since=$(stat -c %Y "$job/exit")
        held=$(stat -c %Y "$job/hold" 2>/dev/null) || held=0
        [ "$held" -le "$since" ] || since=$held
        if [ "$(date +%s)" -ge $((since + grace)) ]; then
            echo "gpu-offload: powering off: the job ended and no driver asked for more"
            if simulated; then
                "${GPU_OFFLOAD_SHUTDOWN:-shutdown}" -h now
            else
                shutdown -h now
            fi
        fi
        sleep "${GPU_OFFLOAD_POLL:-10}"
    done
}

size() {
    if [ -f "$1" ]; then wc -c <"$1"; else echo 0; fi
}

# Whether the supervisor runs, in this boot; a zombie process does not.
alive() {
    [ "$(cat "$job/boot" 2>/dev/null)" = "$(cat /proc/sys/kernel/random/boot_id)" ] &&
        grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$(cat "$job/supervisor")/status" 2>/dev/null
}

# One line with the state and the lengths of the pieces, then the pieces of progress and log.
poll() {
    job=$state/jobs/$1
    now=running code=
    [ -d "$job/launched" ] || now=absent
    [ ! -e "$job/supervisor" ] || alive || now=lost
    # Looked at last: the supervisor writes it, and then ends.
    [ ! -e "$job/exit" ] || { now=ended && code=$(cat "$job/exit"); }
    [ "$5" != 1 ] || [ ! -d "$job" ] || : >"$job/hold"
    progress=$job/output/progress.jsonl log=$job/output/log.txt
    first=$(piece "$progress" "$2" "$4") second=$(piece "$log" "$3" "$4")
    trouble=
    [ ! -f "$job/input/trouble" ] || trouble=$(cut_out "$job/input/trouble" 0 2000 2>/dev/null | tr '\n' ' ')
    echo "state=$now exit=$code progress=$first log=$second trouble=$trouble"
    cut_out "$progress" "$2" "$first"
    cut_out "$log" "$3" "$second"
}

# How many bytes of a file there are from an offset on, at most LIMIT.
piece() {
    left=$(($(size "$1") - $2))
    [ "$left" -gt 0 ] || left=0
    [ "$left" -le "$3" ] || left=$3
    echo "$left"
}

# Reads as the user who owns the folder, so that a link to root's files cannot be read.
cut_out() {
    [ "$3" = 0 ] || (become "$(stat -c %u "${1%/*}")" tail -c +$(($2 + 1)) "$1") | head -c "$3"
}

"$@"
