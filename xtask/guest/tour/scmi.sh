# The sensors of the SCMI platform, in the units of everyday life.
set -eu
name=$(grep -lx scmi_sensors /sys/class/hwmon/hwmon*/name)
monitor=${name%/name}
cat "$name"
for label in "$monitor"/*_label; do
    sensor=${label%_label}
    # hwmon has thousandths of most units, and millionths of watts
    case ${sensor##*/} in
    temp*) unit=C parts=1000 ;;
    in*) unit=V parts=1000 ;;
    curr*) unit=A parts=1000 ;;
    power*) unit=W parts=1000000 ;;
    esac
    awk -v name="$(cat "$label")" -v unit=$unit -v parts=$parts '{ printf "%s %.3f %s\n", name, $1 / parts, unit }' "${sensor}_input"
done
