#!/bin/sh
# The guest's first process: makes an ordinary small system, runs what the host asked for and switches off.
# /guest/settings says which terminal carries the answer (OUTPUT), the word that frames it (MARK), whether a person
# sits there (SHELL_WANTED) and how large the window is (ROWS, COLUMNS_WIDE).

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm /tmp /run
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs tmp /run
mount -t debugfs debug /sys/kernel/debug
mount -t configfs config /sys/kernel/config
hostname guest
ip link set lo up

. /guest/settings

if [ "$SHELL_WANTED" = yes ]; then
    stty -F "$OUTPUT" sane rows "$ROWS" cols "$COLUMNS_WIDE"
else
    stty -F "$OUTPUT" raw -echo
fi

{
    echo "$MARK begin"
    cd /root
    if [ "$SHELL_WANTED" = yes ]; then
        [ -s /guest/script ] && sh /guest/script
        setsid -c sh -l <"$OUTPUT"
    else
        sh /guest/script
    fi
    status=$?
    echo
    echo "$MARK end $status"
} </dev/null >"$OUTPUT" 2>&1

# setting the terminal waits until everything written to it has left
stty -F "$OUTPUT" raw
poweroff -f
