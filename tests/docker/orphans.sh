#!/bin/sh
# Leaves 100 children of children at each request. Their parents end at once, they two seconds later.
while IFS= read -r _; do
    i=0
    while [ $i -lt 100 ]; do
        (sleep 2 &)
        i=$((i + 1))
    done
    echo '{"result":"left"}'
done
