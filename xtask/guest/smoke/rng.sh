# The guest's own random number core uses our device and gets as many bytes as it asks for.
set -eu

current() { cat /sys/class/misc/hw_random/rng_current; }

read_bytes() {
    head -c "$1" /dev/hwrng >/tmp/bytes
    test "$(wc -c </tmp/bytes)" -eq "$1"
    md5sum </tmp/bytes
}

grep -qw virtio_rng.0 /sys/class/misc/hw_random/rng_available
test "$(current)" = virtio_rng.0

# more than one ring of requests, and bytes that differ from read to read
first=$(read_bytes 65536)
second=$(read_bytes 65536)
test "$first" != "$second"

# the driver leaves and comes back
cd /sys/bus/virtio/drivers/virtio_rng
device=$(basename virtio*)
echo "$device" >unbind
test "$(current)" = none
echo "$device" >bind
test "$(current)" = virtio_rng.0
third=$(read_bytes 4096)
echo "$device: 135168 bytes read, driver unbound and bound"
