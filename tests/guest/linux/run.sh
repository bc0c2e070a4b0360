# SPDX-License-Identifier: GPL-2.0-or-later
#
# What a guest of scripts/bench does (busybox sh, started by bench-init.c).
# Settings are on the kernel's command line: tlm_run=, the workload, and those
# that it names below. Each workload says "tlm-state ready" when its memory is
# full and its work has become steady, goes on until the host asks it to stop
# (tlm-wait), then checks what it has done: the exit status is the verdict.

die() { echo "TLM-BENCH-FAILED $*"; exit 1; }

# Wait until a shell's command is true, while a process lives, or show what it
# has said: await COMMAND PID LOG
await() {
    until eval "$1" >/dev/null 2>&1; do
        kill -0 "$2" 2>/dev/null || { cat "$3"; die "in vain: $1"; }
        sleep 0.1
    done
}

# Wait until a process of that name has so much memory: filled NAME MIB PID
filled() {
    until awk -v name="$1" -v want=$(($2 * 1024)) '
              /^Name:/ { mine = index($2, name) == 1 }
              /^VmRSS:/ && mine && $2 >= want { found = 1 }
              END { exit !found }' /proc/[0-9]*/status 2>/dev/null; do
        kill -0 "$3" 2>/dev/null || { cat /tmp/out; return 1; }
        sleep 0.2
    done
}

# tlm_kernel=is tlm_class=A tlm_threads=N; says itself when it is ready
npb() {
    OMP_WAIT_POLICY=passive "npb-$tlm_kernel" "$tlm_class" --repeat 0 \
        --threads "$tlm_threads"
}

# tlm_stressor=vm|memrate tlm_mb=MIB tlm_method=NAME tlm_rate=MB_PER_S
stress_ng() {
    case $tlm_stressor in
    vm) set -- --vm 1 --vm-bytes "${tlm_mb}m" --vm-keep \
               --vm-method "$tlm_method" ;;
    memrate) set -- --memrate 1 --memrate-bytes "${tlm_mb}m" \
                    --memrate-method "$tlm_method" \
                    --memrate-rd-mbs "$tlm_rate" \
                    --memrate-wr-mbs "$tlm_rate" ;;
    esac
    stress-ng "$@" --verify --metrics --timeout 0 --temp-path /tmp \
        >/tmp/out 2>&1 &
    local pid=$! status
    filled stress-ng- "$tlm_mb" $pid || die "stress-ng has ended"
    tlm-state ready
    (tlm-wait; kill -INT $pid) &
    wait $pid
    status=$?
    sed -n 's/^stress-ng: [a-z]*: *\[[0-9]*\] //
            /^\(passed\|failed\|successful\|vm\|memrate\)[: ]/p' /tmp/out
    [ $status -eq 0 ] || cat /tmp/out
    return $status
}

# The value of a key tells its own name and how often it has been set, which
# another key tells, too; a page that is lost, or old, makes them differ
REDIS_SET='local k = ARGV[1]
    local n = redis.call("INCR", "n:" .. k)
    redis.call("SET", "v:" .. k, string.rep(k .. ":" .. n .. " ", 256))'
REDIS_FILL='for i = 0, tonumber(ARGV[1]) - 1 do
        local k = string.format("%012d", i)
        redis.call("SET", "n:" .. k, 1)
        redis.call("SET", "v:" .. k, string.rep(k .. ":1 ", 256))
    end
    return "filled"'
REDIS_CHECK='for i = 0, tonumber(ARGV[1]) - 1 do
        local k = string.format("%012d", i)
        local n = redis.call("GET", "n:" .. k)
        if not n or redis.call("GET", "v:" .. k) ~=
           string.rep(k .. ":" .. n .. " ", 256) then
            return "wrong: key " .. k
        end
    end
    return "all keys are right"'

# tlm_keys=N (of some 4 KiB each) tlm_clients=N
redis() {
    local answer
    redis-server --save '' --appendonly no --protected-mode no >/tmp/out 2>&1 &
    await 'redis-cli ping | grep -q PONG' $! /tmp/out
    answer=$(redis-cli eval "$REDIS_FILL" 0 "$tlm_keys")
    [ "$answer" = filled ] || die "redis: $answer"
    LD_PRELOAD=/lib/count-sends.so redis-benchmark -q -n 2000000000 \
        -c "$tlm_clients" -r "$tlm_keys" \
        eval "$REDIS_SET" 0 __rand_int__ >/tmp/bench 2>&1 &
    await "redis-cli info commandstats | grep -q '^cmdstat_incr:'" \
        $! /tmp/bench
    tlm-state ready
    tlm-wait
    kill -0 $! || { cat /tmp/bench; die "redis-benchmark has ended"; }
    kill $!
    wait $!
    answer=$(redis-cli eval "$REDIS_CHECK" 0 "$tlm_keys")
    echo "redis: $answer, $(redis-cli dbsize) of $((2 * tlm_keys)) are there," \
         "$(redis-cli info stats | tr -d '\r' |
            sed -n 's/total_commands_processed:/commands: /p')"
    [ "$answer" = "all keys are right" ] &&
        [ "$(redis-cli dbsize)" = $((2 * tlm_keys)) ]
}

# What pgbench adds to an account it adds to a teller and a branch, too, and
# notes in the history; and the indexes must know every row
PG_CHECK="CREATE EXTENSION amcheck;
    SELECT bt_index_check(indexrelid, true) FROM pg_index;
    SELECT CASE WHEN accounts = tellers AND accounts = branches AND
                     accounts = history AND rows = 100000 * :scale
           THEN 'all balances are right'
           ELSE format('wrong: %s %s %s %s, %s accounts', accounts, tellers,
                       branches, history, rows) END ||
           format(', transactions: %s', done)
    FROM (SELECT sum(abalance) AS accounts, count(*) AS rows
              FROM pgbench_accounts) a,
         (SELECT sum(tbalance) AS tellers FROM pgbench_tellers) t,
         (SELECT sum(bbalance) AS branches FROM pgbench_branches) b,
         (SELECT sum(delta) AS history, count(*) AS done
              FROM pgbench_history) h;"

# tlm_scale=N (of some 15 MB each) tlm_clients=N
postgresql() {
    local answer
    postgresql_environment
    su postgres -c 'initdb -D /tmp/db -k -N -A trust --locale=C -E UTF8' \
        >/tmp/out 2>&1 || { cat /tmp/out; die "initdb"; }
    su postgres -c 'exec postgres -D /tmp/db -k /tmp -c listen_addresses= \
        -c fsync=off -c shared_buffers=192MB -c max_wal_size=64MB -c jit=off' \
        >/tmp/out 2>&1 &
    await "psql -c 'SELECT 1'" $! /tmp/out
    pgbench -i -I dtGvp -s "$tlm_scale" >/tmp/bench 2>&1 ||
        { cat /tmp/bench; die "pgbench -i"; }
    LD_PRELOAD=/lib/count-sends.so pgbench -n -M prepared -T 1000000 \
        -c "$tlm_clients" >/tmp/bench 2>&1 &
    await "psql -Atc 'SELECT count(*) > 0 FROM pgbench_history' | grep -qx t" \
        $! /tmp/bench
    tlm-state ready
    tlm-wait
    kill $! || { cat /tmp/bench; die "pgbench has ended"; }
    wait $!
    answer=$(echo "$PG_CHECK" | psql -At -v ON_ERROR_STOP=1 \
             -v scale="$tlm_scale" 2>&1 | tail -n 1)
    echo "postgresql: $answer"
    case $answer in "all balances are right,"*) ;; *) return 1 ;; esac
    ! grep -E 'ERROR|PANIC|checksum' /tmp/out
}

# Write what a database has of the clients of journal.c: "TLM-BENCH journal
# CLIENT RECORDS" for each, and nothing else if there is a gap.
# The clients write until the host asks to stop. Then the database is killed,
# and has to recover from its disk. With tlm_recover=1 it recovers at once, from
# a disk that another guest has left, and nothing is written.
# on_disk START STOP REPORT; tlm_clients=N, or tlm_recover=1
on_disk() {
    local client
    mkdir -p /data
    mount -t ext4 /dev/vda /data || die "no file system on /dev/vda"
    "$1"
    if [ "${tlm_recover:-0}" = 0 ]; then
        tlm-journal "${tlm_run%_disk}" "$tlm_clients" >/tmp/clients 2>&1 &
        client=$!
        tlm-state ready
        tlm-wait
        kill $client || { cat /tmp/clients; die "tlm-journal has ended"; }
        wait $client
        "$2"
        "$1"
    else
        tlm-state ready
        tlm-wait
    fi
    "$3"
}

start_redis() {
    mkdir -p /data/redis
    redis-server --dir /data/redis --save '' --appendonly yes \
        --appendfsync always --protected-mode no >/tmp/out 2>&1 &
    database=$!
    await 'redis-cli ping | grep -q PONG' $database /tmp/out
}

kill_redis() {
    kill -KILL "$database"
    wait "$database"
}

REDIS_JOURNAL='local told = ""
    for _, key in ipairs(redis.call("KEYS", "journal:*")) do
        local n = 0
        for i, value in ipairs(redis.call("LRANGE", key, 0, -1)) do
            if not string.find(value, "^" .. i .. " ") then
                return "gap: " .. key .. ", " .. i .. ": " .. value
            end
            n = i
        end
        told = told .. "TLM-BENCH journal " .. string.sub(key, 9) .. " " ..
               n .. "\n"
    end
    return told'

report_redis() {
    redis-cli --raw eval "$REDIS_JOURNAL" 0
}

redis_disk() { on_disk start_redis kill_redis report_redis; }

postgresql_environment() {
    export TZ=GMT PGHOST=/tmp PGUSER=postgres
    PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
    mkdir -p /etc
    echo 'postgres:x:100:100::/tmp:/bin/sh' >/etc/passwd # it refuses root
}

start_postgresql() {
    if [ ! -d /data/db ]; then
        mkdir /data/db
        chown postgres /data/db
        su postgres -c "initdb -D /data/db -k -N -A trust --locale=C -E UTF8" \
            >/tmp/out 2>&1 || { cat /tmp/out; die "initdb"; }
        sync
    fi
    su postgres -c 'exec postgres -D /data/db -k /tmp -c listen_addresses= \
        -c shared_buffers=64MB -c max_wal_size=64MB -c jit=off' \
        >/tmp/out 2>&1 &
    database=$!
    await "psql -c 'SELECT 1'" $database /tmp/out
    psql -qc 'SET client_min_messages = warning' \
        -c 'CREATE TABLE IF NOT EXISTS journal (client int, record bigint,
            filler text, PRIMARY KEY (client, record))' || die "no table"
}

# Without a checkpoint: it has to recover from its log
kill_postgresql() {
    kill -QUIT "$database"
    wait "$database"
}

report_postgresql() {
    pg_amcheck --install-missing --heapallindexed -d postgres ||
        die "pg_amcheck"
    psql -At -P pager=off -v ON_ERROR_STOP=1 -c "SELECT CASE WHEN count(*) = max(record)
        THEN format('TLM-BENCH journal %s %s', client, max(record))
        ELSE format('gap: client %s', client) END
        FROM journal GROUP BY client" || die "no records"
    grep -E 'PANIC|checksum|invalid page' /tmp/out && die "PostgreSQL"
    return 0
}

postgresql_disk() {
    postgresql_environment
    on_disk start_postgresql kill_postgresql report_postgresql
}

# An interface between the guests: node N is 10.215.0.N
network() {
    ifconfig eth0 "10.215.0.$tlm_node" netmask 255.255.255.0 up
}

# tlm_node=1..N tlm_nodes=N (default: 2) tlm_kernel=is|cg (default: is)
# tlm_class=A; the first one starts the program on all
mpi() {
    local node hosts=10.215.0.1
    network
    if [ "$tlm_node" != 1 ]; then
        nc -ll -p 514 -e sh &
        echo "TLM-BENCH node $tlm_node listens"
        wait $!
        return 1                # it should not end
    fi
    for node in $(seq 2 "${tlm_nodes:-2}"); do
        until nc -w 5 "10.215.0.$node" 514 </dev/null; do
            sleep 0.2
        done
        hosts=$hosts,10.215.0.$node
    done
    UCX_TLS=tcp,self UCX_NET_DEVICES=eth0 mpiexec.hydra -iface eth0 \
        -localhost 10.215.0.1 -hosts $hosts -n "${tlm_nodes:-2}" -ppn 1 \
        -launcher rsh -launcher-exec /bin/tlm-rsh \
        "npb-${tlm_kernel:-is}-mpi" "$tlm_class" --repeat 0 --threads 1
}

# tlm_node=1|2; the first one asks
echo_pair() {
    network
    if [ "$tlm_node" = 2 ]; then
        tlm-echo server 7
    else
        tlm-echo client 10.215.0.2 7
    fi
}

mkdir -p /bin /usr/bin /usr/sbin /sbin
/bin/busybox --install -s
# It would weigh sessions, and not the threads of bench-init's probe
echo 0 >/proc/sys/kernel/sched_autogroup_enabled
ifconfig lo 127.0.0.1 up
for module in $(cat /modules/order 2>/dev/null); do
    insmod "/modules/$module" || die "cannot load $module"
done
case $tlm_run in
npb|redis|postgresql|redis_disk|postgresql_disk|mpi) "$tlm_run" ;;
stress-ng) stress_ng ;;
echo) echo_pair ;;
*) die "no workload '$tlm_run'" ;;
esac
