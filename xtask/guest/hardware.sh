#!/bin/sh
# The first process of a hardware machine: the host's own system, read-only, on a kernel with simulated hardware.
# PROGRAM, from the kernel's command line, is run with what it needs to be a test.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
# /tmp stays the host's, since the program may be there
export TMPDIR=/dev/shm

mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs tmp /dev/shm
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t configfs config /sys/kernel/config
ip link set lo up

cd /
"$PROGRAM" --test-threads=1 --color never </dev/null >/dev/tty1 2>&1
echo "the program ended with status $?" >/dev/tty1
busybox stty -F /dev/tty1 raw
busybox poweroff -f
