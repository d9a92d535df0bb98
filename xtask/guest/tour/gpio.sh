# A line blinks, and the host rings the doorbell when it sees the light.
set -eu
gpiodetect
gpioinfo | grep '"'
gpiomon -e rising -n 1 -F 'gpiomon: %E edge of line %o' doorbell &
monitor=$!
while ! grep -q gpiomon /proc/interrupts; do sleep 0.02; done
gpioset -t 40ms,40ms,40ms,0 led=1
wait "$monitor"
