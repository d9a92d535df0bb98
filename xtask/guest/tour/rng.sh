# 128 bytes as any program of the guest reads them.
set -eu
echo "sources: $(cat /sys/class/misc/hw_random/rng_available), in use: $(cat /sys/class/misc/hw_random/rng_current)"
head -c 128 /dev/hwrng | hexdump -v -C
