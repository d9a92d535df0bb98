# The guest's own tools use a chip of eight lines. Wires lead from line 0 ("led") to line 2 ("button"), and to lines 4 and 5, where the
# devicetree has keys that press themselves: key-high while line 4 is high, key-low while line 5 is low.
set -eu

# the chip's number may change when the driver comes back
chip() { gpiodetect | sed -n 's/^\(gpiochip[0-9]*\) .*(8 lines)$/\1/p'; }

fail() {
    echo "$*"
    exit 1
}

# Holds the led at a value, in the background, until release.
hold() {
    gpioset -c "$(chip)" "$@" &
    holder=$!
}

release() {
    kill "$holder"
    wait "$holder" || true
}

# Waits until a line has a value.
becomes() {
    for _ in $(seq 100); do
        if test "$(gpioget --numeric "$1")" = "$2"; then return 0; fi
        sleep 0.02
    done
    fail "line $1 does not become $2"
}

# Waits until a command succeeds.
until_true() {
    for _ in $(seq 200); do
        if "$@"; then return 0; fi
        sleep 0.02
    done
    cat /proc/interrupts
    fail "never true: $*"
}

is_armed() { grep -Eq 'virtio[0-9]+ +2 +gpiomon' /proc/interrupts; }

# Waits until the gpiomon that writes to this file has its line. The table of interrupts has it before it is armed.
armed() {
    until_true grep -q Monitoring "$1"
    is_armed || fail "the interrupt is not armed"
}

disarmed() { if is_armed; then fail "the interrupt is still armed"; fi; }

# QEMU before 9.0 does not pass VIRTIO_GPIO_F_IRQ, the first feature bit, to its guest.
interrupts=no
case $(cat /sys/bus/virtio/drivers/gpio_virtio/virtio*/features) in
1*) interrupts=yes ;;
esac

# The edges that gpiomon sees while the led goes on, off, on and off.
edges() {
    : >/tmp/edges
    gpiomon --banner -c "$(chip)" -e "$1" -F %E -n "$2" button >/tmp/edges &
    monitor=$!
    armed /tmp/edges
    gpioset -c "$(chip)" -t 30ms,30ms,30ms,0 led=1
    wait "$monitor"
    grep -v Monitoring /tmp/edges | tr '\n' ' '
}

test -n "$(chip)"
gpioinfo -c "$(chip)" >/tmp/info
grep -q 'line   0:.*"led".*input' /tmp/info
grep -q 'line   2:.*"button".*input' /tmp/info
test "$(grep -c '^.line' /tmp/info)" -eq 8

# values, and active-low ones
test "$(gpioget --numeric led button 2>&1)" = "0 0"
hold led=1
becomes button 1
test "$(gpioget --numeric --active-low button)" = 0
gpioinfo led | grep -q 'output'
release
becomes button 0
hold --active-low led=1
test "$(gpioget --numeric button)" = 0
test "$(gpioget --numeric --active-low button)" = 1
release

test_interrupts() {
    # edges; gpiomon disarms the interrupt when it has seen enough
    test "$(edges both 4)" = "rising falling rising falling " || fail "both: $(cat /tmp/edges)"
    test "$(edges rising 2)" = "rising rising " || fail "rising: $(cat /tmp/edges)"
    test "$(edges falling 2)" = "falling falling " || fail "falling: $(cat /tmp/edges)"
    disarmed

    # and when it is killed; edges that nobody waits for are not kept
    : >/tmp/none
    gpiomon --banner -c "$(chip)" button >/tmp/none &
    monitor=$!
    armed /tmp/none
    kill "$monitor"
    wait "$monitor" || true
    disarmed
    gpioset -c "$(chip)" -t 10ms,0 led=1
    test "$(wc -l </tmp/none)" -eq 1
    test "$(edges both 4)" = "rising falling rising falling " || fail "again: $(cat /tmp/edges)"
}

without_interrupts() {
    if gpiomon -c "$(chip)" -n 1 button 2>/tmp/refused; then fail "gpiomon without interrupts"; fi
    grep -q 'unable to request' /tmp/refused
}

if test $interrupts = yes; then test_interrupts; else without_interrupts; fi

drivers=/sys/bus/platform/drivers/gpio-keys

# How often the key's interrupt has come.
count() { awk '/gpio_keys/ { print $2 }' /proc/interrupts; }

has_come_often() { test "$(count)" -ge $((since + 100)); }

# The level lasts: the interrupt comes again and again.
keeps_coming() {
    since=$(count)
    until_true has_come_often
}

# There is no interrupt any more. A key that is down is released a while after the last one.
has_stopped() {
    since=$(count)
    sleep 0.2
    test "$(count)" -eq "$since"
}

# The value of the last event of a key: 1 is down, 0 is up.
last_is() { test "$(tail -c 48 /tmp/keys | head -c 24 | tail -c 4 | hexdump -v -e '1/4 "%d"')" = "$1"; }

# A key's interrupt, with the led on or off while it is to come.
level() {
    key=$1 code=$2 active=$3 idle=$((1 - $3))
    platform=/sys/bus/platform/devices/$key
    echo gpio-keys >"$platform/driver_override"
    hold led=$idle
    becomes button $idle
    echo "$key" >$drivers/bind
    # opened here: what happens before is not told
    exec 3</dev/input/event0
    cat <&3 >/tmp/keys &
    listener=$!
    exec 3<&-
    test "$(count)" -eq 0

    # as long as the level lasts, and no longer
    release
    hold led=$active
    until_true last_is 1
    keeps_coming
    release
    hold led=$idle
    until_true last_is 0
    until_true has_stopped

    # disarmed while the level lasts, and armed again
    release
    hold led=$active
    keeps_coming
    echo "$code" >"$platform/disabled_keys"
    has_stopped || fail "$key: interrupts while it is disabled"
    echo >"$platform/disabled_keys"
    keeps_coming

    # the consumer leaves while the level lasts, and comes back
    echo "$key" >$drivers/unbind
    wait "$listener" || true
    test -z "$(count)"
    echo "$key" >$drivers/bind
    keeps_coming
    echo "$key" >$drivers/unbind
    release
}

if test $interrupts = yes; then
    level key-high 30 1
    level key-low 48 0
fi

# the driver leaves with an interrupt armed and an output held, and comes back
hold led=1
becomes button 1
monitor=
if test $interrupts = yes; then
    : >/tmp/none
    gpiomon --banner -c "$(chip)" button >/tmp/none &
    monitor=$!
    armed /tmp/none
fi
cd /sys/bus/virtio/drivers/gpio_virtio
device=$(basename virtio*)
echo "$device" >unbind
kill "$holder" $monitor 2>/dev/null || true
wait "$holder" $monitor || true
test -z "$(chip)"
echo "$device" >bind
test "$(gpioget --numeric led button)" = "0 0"
if test $interrupts = yes; then
    test "$(edges both 4)" = "rising falling rising falling " || fail "bound again: $(cat /tmp/edges)"
fi
if dmesg | grep -iE 'gpio.*(failed|timed out|incorrect|unsupported)'; then fail "the driver complains"; fi
echo "$(chip): lines driven, sensed and monitored, driver unbound and bound; interrupts of edges and levels: $interrupts"
