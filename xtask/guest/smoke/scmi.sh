# Linux finds sensors, clocks, power domains, performance levels, resets and voltages behind SCMI and uses them: through its own
# drivers where user space reaches them, and by raw messages for the rest and for what the platform itself thinks of it.
# Names, numbers and values are those of the daemon's default arguments; consumers are in the devicetree.
set -eu

raw=/sys/kernel/debug/scmi/0/raw
platform=/sys/bus/platform/devices
POWER=0x11 SYSTEM=0x12 PERFORMANCE=0x13 CLOCK=0x14 SENSOR=0x15 RESET=0x16 VOLTAGE=0x17
# status codes, as unsigned words
NOT_SUPPORTED=4294967295 INVALID=4294967294 NOT_FOUND=4294967292 OUT_OF_RANGE=4294967291

fail() {
    echo "$*"
    exit 1
}

equal() { test "$1" = "$2" || fail "got '$1' instead of '$2'"; }

# Waits until a command succeeds.
until_true() {
    for _ in $(seq 200); do
        if "$@"; then return 0; fi
        sleep 0.02
    done
    fail "never true: $*"
}

# Bytes of 32-bit words, as printf takes them.
escaped() {
    for word; do
        printf '\\%03o\\%03o\\%03o\\%03o' $((word & 255)) $((word >> 8 & 255)) $((word >> 16 & 255)) $((word >> 24 & 255))
    done
}

# Words of an answer, header left out.
words() { hexdump -v -e '1/4 "%u\n"' | sed 1d | tr '\n' ' ' | sed 's/ $//'; }

# Sends a message of these words to a protocol by the file $via, and prints the words of what comes back.
send() {
    protocol=$1 message=$2
    shift 2
    request=$(escaped $((protocol << 10 | message)) "$@")
    exec 3<>"$raw/$via"
    printf "$request" >&3
    timeout 5 cat <&3 | words
    # a delayed response is the second one there
    if test "$via" = message_async; then
        echo
        timeout 5 cat <&3 | words
    fi
    exec 3<&-
}

# The answer's words behind the status, which has to be success.
ask() {
    answer=$(via=message send "$@")
    test "${answer%% *}" = 0 || fail "message $*: $answer"
    answer=${answer#0}
    if test -n "$answer"; then echo "${answer# }"; fi
}

refuses() {
    status=$1
    shift
    answer=$(via=message send "$@")
    equal "${answer%% *}" "$status"
}

# --- sensors, as the hwmon driver shows them ---
monitor=$(grep -lx scmi_sensors /sys/class/hwmon/hwmon*/name)
monitor=${monitor%/name}
sensor() {
    label=$(grep -lx "$1" "$monitor"/*_label) || fail "no sensor $1"
    cat "${label%_label}_input"
}
equal "$(sensor cpu)" 45678
equal "$(sensor vdd)" 1050
equal "$(sensor load)" 250
equal "$(sensor drain)" 2500000
equal "$(sensor a-sensor-with-a-long-name)" -7500
# asynchronous readings, which come on the other queue
equal "$(sensor late)" 33000
for _ in 1 2 3 4 5; do
    heat=$(sensor heat)
    test "$heat" -ge 20000 && test "$heat" -le 40000 || fail "heat is $heat"
done

# --- an accelerometer, as the IIO driver shows it ---
accel=/sys/bus/iio/devices/iio:device0
equal "$(cat $accel/name)" accel
equal "$(cat $accel/in_accel_[xyz]_raw | tr '\n' ' ')" "500000 -250000 9810000 "
equal "$(cat $accel/in_accel_x_scale)" 0.000001000
equal "$(cat $accel/in_accel_sampling_frequency_available)" "10.000000 50.000000 100.000000"
echo 50 >$accel/in_accel_sampling_frequency
equal "$(cat $accel/in_accel_sampling_frequency)" 50.000000
# its continuous update notifications: three axes and a time each
for channel in accel_x accel_y accel_z timestamp; do echo 1 >$accel/scan_elements/in_${channel}_en; done
echo 1 >$accel/buffer/enable
timeout 10 head -c 160 </dev/iio:device0 >/tmp/samples
echo 0 >$accel/buffer/enable
equal "$(wc -c </tmp/samples)" 160
hexdump -v -e '8/4 "%d " "\n"' /tmp/samples >/tmp/decoded
equal "$(cut -d' ' -f1-6 /tmp/decoded | sort -u)" "500000 0 -250000 -1 9810000 0"
equal "$(cut -d' ' -f7-8 /tmp/decoded | sort -u | wc -l)" 5

# --- a trip point: heat crosses 30 degrees again and again ---
notification() { timeout 5 cat $raw/notification | hexdump -v -e '1/4 "%u "'; }
echo 1 >$raw/reset
ask $SENSOR 4 6 1
ask $SENSOR 5 6 3 30000 0
up=no down=no
for _ in $(seq 20); do
    # header, agent, sensor, and trip point 0 with the direction in bit 16
    case $(notification) in
    "$((SENSOR << 10 | 3 << 8)) "*" 6 65536 ") up=yes ;;
    "$((SENSOR << 10 | 3 << 8)) "*" 6 0 ") down=yes ;;
    esac
    if test $up$down = yesyes; then break; fi
done
equal $up$down yesyes
ask $SENSOR 4 6 0
echo 1 >$raw/reset

# --- clocks and a power domain, which the bus in the devicetree needs while it is in use ---
summary() { cat /sys/kernel/debug/clk/clk_summary; }
rate() { summary | awk -v name="$1" '$1 == name { print $5 }'; }
uses() { summary | awk -v name="$1" '$1 == name { print $2 }'; }
domain() { awk -v name="$1" '$1 == name { print $2 }' /sys/kernel/debug/pm_genpd/pm_genpd_summary; }
equal "$(rate osc) $(rate uart) $(rate pll) $(rate slow)" "24000000 24000000 250000000 1000"
equal "$(cat /sys/kernel/debug/clk/uart/clk_parent)" osc
equal "$(ask $CLOCK 6 1)" "24000000 0"
equal "$(ask $CLOCK 6 2)" "250000000 0"
equal "$(ask $CLOCK 14 1)" 0
is_on() {
    test "$(domain gpu)" = on && test "$(ask $POWER 5 0)" = 0 &&
        test "$(uses uart)" = 1 && test "$(ask $CLOCK 11 1 0)" = "0 1 0" && test "$(ask $CLOCK 11 2 0)" = "0 1 0"
}
is_off() {
    test "$(domain gpu)" = off-0 && test "$(ask $POWER 5 0)" = $((1 << 30)) &&
        test "$(uses uart)" = 0 && test "$(ask $CLOCK 11 1 0)" = "0 0 0" && test "$(ask $CLOCK 11 2 0)" = "0 0 0"
}
until_true is_off
echo on >$platform/scmi-bus/power/control
until_true is_on
echo auto >$platform/scmi-bus/power/control
until_true is_off
refuses $NOT_FOUND $CLOCK 6 4
refuses $NOT_FOUND $POWER 5 2

# --- performance levels ---
equal "$(ask $PERFORMANCE 8 0)" 1000000
ask $PERFORMANCE 7 0 1500000
equal "$(ask $PERFORMANCE 8 0)" 1500000
ask $PERFORMANCE 5 0 1000000 500000
refuses $OUT_OF_RANGE $PERFORMANCE 7 0 1500000
ask $PERFORMANCE 7 0 500000
equal "$(ask $PERFORMANCE 8 0)" 500000
equal "$(domain cluster0_0)" on

# --- voltages ---
millivolts() { awk -v name="$1" '$1 == name { print $6 }' /sys/kernel/debug/regulator/regulator_summary; }
equal "$(millivolts vcc-sd) $(millivolts vcore)" "1800mV 800mV"
equal "$(cat $platform/scmi-output/state)" enabled
equal "$(ask $VOLTAGE 6 0)" 7
echo disabled >$platform/scmi-output/state
equal "$(ask $VOLTAGE 6 0)" 0
echo enabled >$platform/scmi-output/state
equal "$(ask $VOLTAGE 6 0)" 7
echo 1000010 >$platform/scmi-supply/min_microvolts
echo 1100000 >$platform/scmi-supply/max_microvolts
equal "$(millivolts vcore) $(ask $VOLTAGE 8 1)" "1025mV 1025000"
equal "$(ask $VOLTAGE 6 1)" 7
echo 0 >$platform/scmi-supply/min_microvolts
equal "$(ask $VOLTAGE 6 1)" 0

# --- resets: Linux has no consumer that user space could move ---
ask $RESET 4 0 1 0
ask $RESET 4 1 1 0
refuses $NOT_FOUND $RESET 4 2 1 0

# --- delayed responses: a power domain and a clock that take their time ---
delayed() {
    via=message_async send "$@" >/tmp/delayed
    equal "$(head -n 1 /tmp/delayed)" 0
    tail -n 1 /tmp/delayed
}
equal "$(delayed $POWER 4 1 1 0)" "0 1 0"
equal "$(ask $POWER 5 1)" 0
equal "$(delayed $CLOCK 5 1 3 2000 0)" "0 3 2000 0"
equal "$(ask $CLOCK 6 3)" "2000 0"

# --- what does not exist ---
refuses $NOT_SUPPORTED 0x10 127
refuses $NOT_SUPPORTED 0x55 0
refuses $NOT_FOUND $SENSOR 6 99 0

# --- the guest asks to be switched off, and is asked in turn to do it in order ---
cat >/tmp/orderly <<'END'
#!/bin/sh
echo yes >/tmp/asked
END
chmod +x /tmp/orderly
echo /tmp/orderly >/proc/sys/kernel/poweroff_cmd
ask $SYSTEM 3 1 0
until_true test -e /tmp/asked

if dmesg | grep -iE 'scmi.*(fail|timed out|error|malformed|unexpected)'; then fail "the driver complains"; fi
echo "$(basename $monitor) and $(basename $accel), 4 clocks, 2 power domains, 1 performance domain, 2 resets, 2 voltages: used"
