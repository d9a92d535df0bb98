# A line blinks, and the host rings the doorbell when it sees the light.
set -eu
gpiodetect
gpioinfo | grep '"'
monitor=
case $(cat /sys/bus/virtio/drivers/gpio_virtio/virtio*/features) in
1*)
    : >/tmp/bell
    gpiomon --banner -e rising -n 1 -F 'gpiomon: %E edge of line %o' doorbell >/tmp/bell &
    monitor=$!
    # the table of interrupts has the line before its interrupt is armed
    while ! grep -q Monitoring /tmp/bell; do sleep 0.02; done
    ;;
*) echo 'no interrupts: QEMU before 9.0 does not pass them on' ;;
esac
gpioset -t 40ms,40ms,40ms,0 led=1
wait $monitor
test -z "$monitor" || cat /tmp/bell
