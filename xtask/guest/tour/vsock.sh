# A file to the host and one from it, with what they sum up to and how fast they went.
set -eu
now() { cut -d' ' -f1 /proc/uptime; }
rate() { awk -v from="$1" -v to="$2" -v bytes="$3" 'BEGIN { printf "%.0f MB/s\n", bytes / (to - from + 0.005) / 1e6 }'; }

head -c 16777216 /dev/urandom >/tmp/file
begin=$(now)
socat -t 60 - VSOCK-CONNECT:2:1000 </tmp/file >/tmp/answer
end=$(now)
echo "sent: $(md5sum </tmp/file | cut -c1-32)"
echo "the host says: $(cat /tmp/answer)"
echo "to the host: $(rate "$begin" "$end" 16777216)"

begin=$(now)
socat -u VSOCK-CONNECT:2:1001 - >/tmp/file
end=$(now)
echo "read: $(md5sum </tmp/file | cut -c1-32)"
echo "to the guest: $(rate "$begin" "$end" "$(wc -c </tmp/file)")"
