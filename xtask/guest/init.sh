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

cd /root
echo "$MARK begin" >"$OUTPUT"
if [ "$SHELL_WANTED" = yes ]; then
    sh /guest/script </dev/null >"$OUTPUT" 2>&1
    # a window's size is forgotten when nobody has the terminal open
    setsid -c sh -c "stty sane rows $ROWS cols $COLUMNS_WIDE; exec sh -l" <"$OUTPUT" >"$OUTPUT" 2>&1
else
    stty -F "$OUTPUT" raw -echo
    sh /guest/script </dev/null >"$OUTPUT" 2>&1
fi
status=$?

# opened again: a terminal is hung up when the shell that it controlled ends
{
    echo
    echo "$MARK end $status"
} >"$OUTPUT"
# setting the terminal waits until everything written to it has left
stty -F "$OUTPUT" raw
poweroff -f
