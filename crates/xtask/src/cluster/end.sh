: > "$dir/ready"
# Until the machine is ended from outside.
while :; do
    sleep 3600 &
    wait $! || true
done
