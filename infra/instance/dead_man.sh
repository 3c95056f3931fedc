# Powers this machine off at an absolute time, even while a job runs. Powering off terminates the instance.
#
#   arm TEXT DEADLINE LIFETIME START_WITHIN   first on every boot; TEXT is this script
#   watch DEADLINE LIFETIME START_WITHIN      runs in the background, twice where there is systemd
#
# DEADLINE is Unix time. LIFETIME, seconds since boot, applies if the clock is wrong. START_WITHIN, seconds
# since boot, is the time within which a job must start.
#
# With GPU_OFFLOAD_ROOT set, or where systemd did not start the machine, this is a simulated host: paths are below
# that folder, and only the host's own shutdown command is called, because the surrounding machine must
# not shut down.

simulated() {
    [ -n "${GPU_OFFLOAD_ROOT+set}" ] || [ "$(id -u)" != 0 ] || [ "$(cat /proc/1/comm)" != systemd ]
}
root=${GPU_OFFLOAD_ROOT:-}
root=${root%/}

power_off() {
    echo "gpu-offload: powering off: $1"
    if simulated; then
        "${GPU_OFFLOAD_SHUTDOWN:-shutdown}" -h now
        return
    fi
    shutdown -h now || systemctl --no-block poweroff
    # A unit that does not stop can block a shutdown for ever; these commands do not wait for units.
    sleep 60
    systemctl poweroff --force --force || poweroff -f
    sleep 10
    echo 1 >/proc/sys/kernel/sysrq
    echo o >/proc/sysrq-trigger
    sleep 10
}

uptime_seconds() {
    read -r up _ </proc/uptime
    echo "${up%%.*}"
}

watch() {
    begin=$(uptime_seconds)
    while :; do
        up=$(($(uptime_seconds) - begin))
        if [ "$(date +%s)" -ge "$1" ]; then
            power_off "its time is up"
        elif [ "$up" -ge "$2" ]; then
            power_off "up for longer than it may be; is the clock wrong?"
        elif [ "$up" -ge "$3" ] && [ ! -e "$root/run/gpu-offload/started" ]; then
            power_off "no job was started in time"
        fi
        sleep "${GPU_OFFLOAD_POLL:-10}"
    done
}

arm() {
    text=$1
    shift
    if [ "$(date +%s)" -ge "$1" ]; then
        power_off "its time was up before it had started"
        exit 1
    fi
    # Needs no disk and no systemd.
    setsid sh -c "$text" gpu-offload-dead-man watch "$@" </dev/null >/dev/null 2>&1 &
    simulated && return
    # Depends on no process, and runs before cloud-init on the next boot.
    printf '%s\n' "$text" >/usr/local/sbin/gpu-offload-dead-man
    cat >/etc/systemd/system/gpu-offload-dead-man.service <<END
[Unit]
Description=Power off when this instance's time is up
DefaultDependencies=no
RefuseManualStop=yes
[Service]
ExecStart=/bin/sh /usr/local/sbin/gpu-offload-dead-man watch $*
Restart=always
OOMScoreAdjust=-1000
TimeoutStopSec=5
[Install]
WantedBy=multi-user.target
END
    systemctl daemon-reload
    systemctl enable gpu-offload-dead-man.service
    systemctl --no-block start gpu-offload-dead-man.service
    # A timer of systemd's own. Never wait for systemd here: the boot waits for this script.
    systemd-run --no-block --unit=gpu-offload-power-off --on-calendar="@$1" systemctl poweroff --force
}

"$@"
