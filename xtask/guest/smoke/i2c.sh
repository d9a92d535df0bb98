# The guest's own tools and chip drivers use a simulated bus with registers, a sensor and a memory.
set -eu

# the shell has small versions of its own, which know less
alias i2cdetect=/bin/i2cdetect i2cget=/bin/i2cget i2cset=/bin/i2cset i2ctransfer=/bin/i2ctransfer

virtio=/sys/bus/virtio/drivers/i2c_virtio

number() { i2cdetect -l | sed -n 's/^i2c-\([0-9]*\).*i2c_virtio.*/\1/p'; }

equal() { test "$1" = "$2" || { echo "got '$1' instead of '$2'"; exit 1; }; }

fails() { if "$@" >/tmp/out 2>&1; then echo "no error from: $*"; exit 1; fi; }

bus=$(number)
here() { i2cdetect -y "$@" "$bus" | sed 1d | cut -d: -f2 | tr ' ' '\n' | grep -v -e -- -e '^$' | tr '\n' ' '; }

# nobody but the three chips answers, asked by a write and by a read without data
equal "$(here)" "20 48 50 "
equal "$(here -q)" "20 48 50 "
equal "$(here -r)" "20 48 50 "

# bytes, words and blocks
i2cset -y "$bus" 0x20 0x10 0xab
equal "$(i2cget -y "$bus" 0x20 0x10)" 0xab
i2cset -y "$bus" 0x20 0x12 0x1234 w
equal "$(i2cget -y "$bus" 0x20 0x12 w)" 0x1234
i2cset -y "$bus" 0x20 0x14 1 2 3 4 5 i
equal "$(i2cget -y "$bus" 0x20 0x10 i 9)" "0xab 0x00 0x34 0x12 0x01 0x02 0x03 0x04 0x05"

# transfers of several messages, and what fails
equal "$(i2ctransfer -y "$bus" w1@0x20 0x12 r2)" "0x34 0x12"
equal "$(i2ctransfer -y "$bus" w2@0x20 0x30 0x77 w1 0x30 r1 | tail -n 1)" 0x77
equal "$(i2ctransfer -y "$bus" w1@0x20 0x10 r8192 | wc -w)" 8192
fails i2ctransfer -y "$bus" r8193@0x20
fails i2cget -y "$bus" 0x21 0
equal "$(i2ctransfer -y "$bus" w2@0x20 0x30 0x99 r1@0x33 2>&1 | head -n 1)" "Warning: only 0/2 messages were sent"
equal "$(i2cget -y "$bus" 0x20 0x30)" 0x77
if grep -q 'User Mode Linux' /proc/cpuinfo; then
    # QEMU's queue has room for four messages; this is as many as the kernel allows
    messages=$(for i in $(seq 41); do printf 'r1@0x20 '; done)
    equal "$(i2ctransfer -y "$bus" w1@0x20 0x10 $messages | tr '\n' ' ' | cut -c1-20)" "0xab 0x00 0x34 0x12 "
fi

# the guest's drivers find their chips
adapter=/sys/bus/i2c/devices/i2c-$bus
echo lm75 0x48 >"$adapter/new_device"
sensor=$(echo "$adapter/$bus-0048/hwmon/hwmon"*)
equal "$(cat "$sensor/name")" lm75
equal "$(cat "$sensor/temp1_input")" 21500
echo 42500 >"$sensor/temp1_max"
equal "$(cat "$sensor/temp1_max")" 42500
equal "$(i2ctransfer -f -y "$bus" w1@0x48 3 r2)" "0x2a 0x80"

echo 24c02 0x50 >"$adapter/new_device"
memory=$adapter/$bus-0050/eeprom
equal "$(wc -c <"$memory")" 256
head -c 256 /dev/urandom >/tmp/content
cat /tmp/content >"$memory"
cmp /tmp/content "$memory"
printf X | dd of="$memory" bs=1 seek=200 conv=notrunc 2>/dev/null
equal "$(dd if="$memory" bs=1 skip=200 count=1 2>/dev/null)" X

# the driver leaves and comes back; the chips keep what they have
device=$(basename "$virtio"/virtio*)
echo "$device" >"$virtio/unbind"
equal "$(number)" ""
echo "$device" >"$virtio/bind"
bus=$(number)
equal "$(i2cget -y "$bus" 0x50 200)" 0x58
echo "$device: 3 chips, lm75 and at24 drivers, driver unbound and bound"
