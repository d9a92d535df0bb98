# Guest 4 sends back what comes to port 2000, until port 2001 lets it go.
# A program that answers gets time for it after the end of the question: without -t it has half a second, however slow the guest.
set -eu
socat -t 60 VSOCK-LISTEN:2000,backlog=100,fork EXEC:cat &
answers=$!
cat >/tmp/farewell <<'END'
read -r word
echo "$word" >/tmp/word
echo goodbye
END
timeout 100 socat -t 60 VSOCK-LISTEN:2001 EXEC:'sh /tmp/farewell'
kill $answers
test "$(cat /tmp/word)" = 'you may go'
