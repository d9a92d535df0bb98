# Streams and messages both ways between programs of the guest and of the host, which answer on ports 1000 to 1003.
set -eu

driver=/sys/bus/virtio/drivers/vmw_vsock_virtio_transport

equal() { test "$1" = "$2" || { echo "got '$1' instead of '$2'"; exit 1; }; }

# sends its input to a port of the host, ends its side, and prints the answer
ask() { socat -t 60 - "VSOCK-CONNECT:2:$1"; }

# the host looks into the guest
inspect() { equal "$(echo "$1" | ask 1001)" ok; }

# an address as socat takes it for sockets that it does not know: port and context id as 4 bytes each
address() { printf 'x0000%02x%02x0000%s00000000' $(($1 % 256)) $(($1 / 256)) "$2"; }
messages() { echo "40:0:$(address "$1" "$2"),socktype=5"; }

# a question, its end, the answer
equal "$(echo hello | ask 1000)" hello
head -c 4000000 /dev/urandom >/tmp/much
ask 1000 </tmp/much | cmp - /tmp/much

# nobody there
if echo hello | ask 999 2>/tmp/error; then echo "port 999 answers"; exit 1; fi
grep -q 'Connection reset' /tmp/error

# a hundred at once
for i in $(seq 100); do
    (
        head -c 50000 /dev/urandom >"/tmp/part$i"
        ask 1000 <"/tmp/part$i" | cmp - "/tmp/part$i" && echo "$i" >>/tmp/whole
    ) &
done
wait
equal "$(sort -u /tmp/whole | wc -l)" 100

# a program of the host that dies in the middle: soon there is an end, and not of the machine
if ask 1002 </tmp/much >/tmp/nothing 2>/tmp/error; then :; fi
equal "$(wc -c </tmp/nothing)" 0

# the host asks
socat -t 60 VSOCK-LISTEN:2000,backlog=100,fork EXEC:cat &
listener=$!
while ! echo | socat - VSOCK-CONNECT:1:2000 >/dev/null 2>&1; do sleep 0.1; done
inspect 'streams 2000'
inspect 'socat 2000'
inspect 'handed-over 2000'

# messages with their ends: each comes back with its length
equal "$( (for word in one three fifteen; do printf %s $word; sleep 0.3; done) |
    socat -t 60 - "SOCKET-CONNECT:$(messages 1003 02000000)")" 3:one5:three7:fifteen
socat -t 60 "SOCKET-LISTEN:$(messages 2001 ffffffff),fork" EXEC:cat &
packets=$!
sleep 0.5
inspect 'messages 2001'
kill $packets

# the driver leaves, with a stream open, and comes back
sleep 60 | ask 1000 >/tmp/nothing 2>&1 &
open=$!
sleep 0.3
device=$(basename "$driver"/virtio*)
echo "$device" >"$driver/unbind"
if echo hello | ask 1000 2>/dev/null; then echo "an answer without a driver"; exit 1; fi
echo "$device" >"$driver/bind"
equal "$(echo hello | ask 1000)" hello
inspect 'streams 2000'
kill $listener $open 2>/dev/null || true
echo "$device: streams and messages both ways, 100 at once, driver unbound and bound"
