# Guest 3 asks guest 4, which sends back what it gets, and lets it go at the end.
set -eu

equal() { test "$1" = "$2" || { echo "got '$1' instead of '$2'"; exit 1; }; }
ask() { socat -t 60 - "VSOCK-CONNECT:4:$1"; }

# until the sibling is there its ports are refused
tries=0
until test "$(echo hello | ask 2000 2>/dev/null)" = hello; do
    tries=$((tries + 1))
    test "$tries" -lt 300 || { echo "the sibling does not come"; exit 1; }
    sleep 0.1
done

head -c 2000000 /dev/urandom >/tmp/much
ask 2000 </tmp/much | cmp - /tmp/much

for i in $(seq 20); do
    (
        head -c 50000 /dev/urandom >"/tmp/part$i"
        ask 2000 <"/tmp/part$i" | cmp - "/tmp/part$i" && echo "$i" >>/tmp/whole
    ) &
done
wait
equal "$(sort -u /tmp/whole | wc -l)" 20

# a port that it does not listen at, and a guest that is none
if echo hello | ask 999 2>/dev/null; then echo "port 999 answers"; exit 1; fi
if echo hello | socat - VSOCK-CONNECT:5:2000 2>/dev/null; then echo "guest 5 answers"; exit 1; fi

equal "$(echo 'you may go' | ask 2001)" goodbye
