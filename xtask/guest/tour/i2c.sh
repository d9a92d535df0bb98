# Who is on the bus, what the memory holds, and how warm it is; then a few bytes for the host.
set -eu
alias i2cdetect=/bin/i2cdetect
bus=$(i2cdetect -l | sed -n 's/^i2c-\([0-9]*\).*i2c_virtio.*/\1/p')
adapter=/sys/bus/i2c/devices/i2c-$bus
i2cdetect -y "$bus"
echo 24c02 0x50 >"$adapter/new_device"
echo lm75 0x48 >"$adapter/new_device"
echo "temperature: $(cat "$adapter/$bus-0048"/hwmon/hwmon*/temp1_input)"
memory=$adapter/$bus-0050/eeprom
printf 'the guest was here' | dd of="$memory" bs=1 seek=128 conv=notrunc 2>/dev/null
head -c 64 "$memory" | hexdump -v -C
