"""The recipes that come with the client, and some made of plain operations."""

import datetime
import threading

import kazoo.exceptions as ex
from kazoo.client import KazooState
from kazoo.protocol.states import EventType
from kazoo.recipe.cache import TreeCache, TreeEvent

from harness import background, check, client, control, raises, same, settled, test, until, vanish


@test
def lock(p):
    clients = [client() for _ in range(4)]
    inside, total = [], []

    def work(zk, who):
        for turn in range(5):
            with zk.Lock(p, who):
                inside.append(who)
                check(len(inside) == 1, "two hold the lock:", inside)
                total.append((who, turn))
                inside.remove(who)

    for run in [background(work, zk, f"c{i}") for i, zk in enumerate(clients)]:
        run.result()
    same(len(total), 20)
    same(clients[0].get_children(p), [], "nothing is left")


@test
def lock_in_order_and_timeout(p):
    zks = [client() for _ in range(3)]
    locks = [zk.Lock(p, f"c{i}") for i, zk in enumerate(zks)]
    check(locks[0].acquire())
    check(not locks[1].acquire(blocking=False), "held by another")
    with raises(ex.LockTimeout):
        locks[1].acquire(timeout=0.2)
    got, order = [], []

    def take(i):
        with locks[i]:
            order.append(i)

    for i in (1, 2):
        got.append(background(take, i))
        until(lambda: len(locks[0].contenders()) == i + 1, f"contender {i}")
    same(locks[0].contenders(), ["c0", "c1", "c2"])
    locks[0].release()
    for run in got:
        run.result()
    same(order, [1, 2])


@test
def lock_passes_on_when_its_holder_goes(p):
    holder, waiter = client(), client()
    holder.Lock(p, "holder").acquire()
    second = waiter.Lock(p, "waiter")
    run = background(second.acquire)
    until(lambda: len(second.contenders()) == 2, "the waiter stands in line")
    vanish(holder)
    check(run.result())
    same(second.contenders(), ["waiter"])
    second.release()


@test
def lock_survives_a_restart(p):
    holder, waiter = client(timeout=30), client(timeout=30)
    first, second = holder.Lock(p, "holder"), waiter.Lock(p, "waiter")
    first.acquire()
    run = background(second.acquire)
    until(lambda: len(first.contenders()) == 2, "the waiter stands in line")
    control("restart")
    same(waiter.retry(second.contenders), ["holder", "waiter"])
    check(run.is_alive(), "the lock is held")
    first.release()
    check(run.result(20))
    second.release()


@test
def read_and_write_locks(p):
    zks = [client() for _ in range(3)]
    one, two = zks[0].ReadLock(p, "r1"), zks[1].ReadLock(p, "r2")
    writer = zks[2].WriteLock(p, "w")
    check(one.acquire(timeout=5) and two.acquire(timeout=5), "readers share")
    check(not writer.acquire(blocking=False), "a writer waits for readers")
    run = background(writer.acquire)
    until(lambda: len(writer.contenders()) == 3, "the writer stands in line")
    late = zks[1].ReadLock(p, "late")
    check(not late.acquire(blocking=False), "a reader waits for the writer before it")
    one.release()
    two.release()
    check(run.result())
    check(not late.acquire(blocking=False), "a reader waits for the writer")
    writer.release()
    check(late.acquire(timeout=5))
    late.release()


@test
def semaphore(p):
    zks = [client() for _ in range(3)]
    leases = [zk.Semaphore(p, f"c{i}", max_leases=2) for i, zk in enumerate(zks)]
    check(leases[0].acquire() and leases[1].acquire())
    check(not leases[2].acquire(blocking=False))
    same(sorted(leases[2].lease_holders()), ["c0", "c1"])
    run = background(leases[2].acquire)
    until(lambda: zks[2].exists(p + "-__lock__") and zks[2].get_children(p + "-__lock__"), "the third waits")
    leases[0].release()
    check(run.result())
    same(sorted(leases[2].lease_holders()), ["c1", "c2"])
    with raises(ValueError):
        zks[0].Semaphore(p, max_leases=3).acquire()


@test
def election(p):
    zks = [client() for _ in range(3)]
    elections = [zk.Election(p, f"c{i}") for i, zk in enumerate(zks)]
    led, free = [], [threading.Event() for _ in zks]

    def lead(i):
        led.append(i)
        settled(free[i], f"leader {i} may go")

    runs = []
    for i, each in enumerate(elections):
        runs.append(background(each.run, lead, i))
        until(lambda: len(each.contenders()) == i + 1, f"contender {i}")
    same(elections[0].contenders(), ["c0", "c1", "c2"])
    for i in range(3):
        until(lambda: len(led) == i + 1, f"leader {i}")
        free[i].set()
        runs[i].result()
    same(led, [0, 1, 2])


@test
def election_cancelled(p):
    holder, waiter = client(), client()
    holder.Lock(p).acquire()
    contender = waiter.Election(p, "w")
    run = background(contender.run, print)
    until(lambda: len(contender.contenders()) == 2, "it stands in line")
    contender.cancel()
    run.result()
    until(lambda: len(contender.contenders()) == 1, "it has left the line")


@test
def party(p):
    zks = [client() for _ in range(3)]
    members = [zk.Party(p, f"m{i}") for i, zk in enumerate(zks)]
    for member in members:
        member.join()
    same(sorted(members[0]), ["m0", "m1", "m2"])
    same(len(members[1]), 3)
    members[0].leave()
    same(sorted(members[1]), ["m1", "m2"])
    vanish(zks[1])
    same(sorted(members[2]), ["m2"])
    shallow = [zk.ShallowParty(p + "-shallow", f"s{i}") for i, zk in ((0, zks[0]), (2, zks[2]))]
    for member in shallow:
        member.join()
    same(sorted(shallow[0]), ["s0", "s2"])


@test
def queue(p):
    zk, other = client(), client()
    put, take = zk.Queue(p), other.Queue(p)
    for value, priority in ((b"third", 200), (b"first", 50), (b"second", 100), (b"fourth", 200)):
        put.put(value, priority=priority)
    same(len(take), 4)
    same([take.get() for _ in range(5)], [b"first", b"second", b"third", b"fourth", None])


@test
def locking_queue(p):
    zks = [client() for _ in range(2)]
    one, two = [zk.LockingQueue(p) for zk in zks]
    one.put_all([b"a", b"b"])
    one.put(b"urgent", priority=1)
    same(len(two), 3)
    same(one.get(timeout=5), b"urgent")
    same(two.get(timeout=5), b"a")
    check(one.holds_lock() and two.holds_lock())
    check(one.consume())
    check(two.release())
    same(one.get(timeout=5), b"a", "released, so another gets it")
    same(two.get(timeout=5), b"b")
    same(zks[0].LockingQueue(p).get(timeout=0.2), None, "all is locked")
    waiting = zks[0].LockingQueue(p)
    run = background(waiting.get, 10)
    vanish(zks[1])  # its lock is ephemeral
    same(run.result(12), b"b")
    check(waiting.consume() and one.consume())
    same(len(one), 0)


@test
def barrier(p):
    zks = [client() for _ in range(3)]
    gate = zks[0].Barrier(p)
    gate.create()
    check(not zks[1].Barrier(p).wait(timeout=0.2), "it is closed")
    runs = [background(zk.Barrier(p).wait, 10) for zk in zks[1:]]
    check(gate.remove())
    for run in runs:
        check(run.result())
    check(not gate.remove(), "already gone")
    check(zks[1].Barrier(p).wait(timeout=5))


@test
def double_barrier(p):
    zks = [client() for _ in range(3)]
    barriers = [zk.DoubleBarrier(p, 3, f"b{i}") for i, zk in enumerate(zks)]
    entered, left = [], []

    def work(i):
        barriers[i].enter()
        entered.append(i)
        barriers[i].leave()
        left.append(i)

    runs = [background(work, i) for i in (0, 1)]
    until(lambda: zks[0].exists(p) and len(zks[0].get_children(p)) == 2, "two are there")
    same(entered, [], "none enters before the third")
    runs.append(background(work, 2))
    for run in runs:
        run.result()
    same((sorted(entered), sorted(left)), ([0, 1, 2], [0, 1, 2]))


@test
def counter(p):
    zks = [client() for _ in range(4)]

    def add(zk):
        mine = zk.Counter(p)
        for _ in range(10):
            mine += 1

    for run in [background(add, zk) for zk in zks]:
        run.result(20)
    last = zks[0].Counter(p)
    same(last.value, 40)
    last -= 3
    same((last.pre_value, last.post_value, zks[1].Counter(p).value), (40, 37, 37))
    curator = zks[0].Counter(p + "-shared", support_curator=True)
    curator += 7
    same(zks[1].get(p + "-shared")[0], b"\0\0\0\x07")


@test
def set_partitioner(p):
    zks = [client() for _ in range(2)]
    items = tuple(f"part{i}" for i in range(6))

    def join(zk, name):
        return zk.SetPartitioner(p, set=items, identifier=name, time_boundary=0.2, max_reaction_time=0.2)

    def settle(members):
        def step():
            for member in members:
                check(not member.failed, "the partitioner failed")
                if member.release:
                    member.release_set()
            shares = [list(member) for member in members]
            return all(member.acquired for member in members) and sorted(sum(shares, [])) == sorted(items) and shares

        return until(step, f"{len(members)} members share all parts")

    one = join(zks[0], "one")
    same(len(settle([one])[0]), 6)
    two = join(zks[1], "two")
    same(sorted(len(share) for share in settle([one, two])), [3, 3])
    two.finish()
    same(len(settle([one])[0]), 6)
    one.finish()


@test
def tree_cache(p):
    zk, other = client(timeout=30), client(timeout=30)
    other.create(p + "/a/b", b"ab", makepath=True)
    events, changed = [], threading.Condition()
    cache = TreeCache(zk, p)

    @cache.listen
    def listener(event):
        with changed:
            events.append((event.event_type, event.event_data.path if event.event_data else None))
            changed.notify_all()

    def wait(event):
        with changed:
            check(changed.wait_for(lambda: event in events, 10), f"no {event} in {events}")

    cache.start()
    wait((TreeEvent.INITIALIZED, None))
    same(cache.get_data(p + "/a/b").data, b"ab")
    same(cache.get_children(p), frozenset(["a"]))
    other.set(p + "/a", b"new")
    wait((TreeEvent.NODE_UPDATED, p + "/a"))
    other.create(p + "/a/c", b"ac")
    wait((TreeEvent.NODE_ADDED, p + "/a/c"))
    other.delete(p + "/a/b")
    wait((TreeEvent.NODE_REMOVED, p + "/a/b"))
    same(cache.get_data(p + "/a").data, b"new")
    same(cache.get_children(p + "/a"), frozenset(["c"]))
    control("restart")
    wait((TreeEvent.CONNECTION_RECONNECTED, None))
    other.retry(other.set, p + "/a/c", b"after")
    until(lambda: cache.get_data(p + "/a/c").data == b"after", "the cache follows after the restart")
    cache.close()


@test
def leases(p):
    one, two = client(), client()
    hour = datetime.timedelta(hours=1)
    check(one.NonBlockingLease(p, hour, "one"))
    check(not two.NonBlockingLease(p, hour, "two"))
    check(one.NonBlockingLease(p, hour, "one"), "the holder may renew it")
    later = lambda: datetime.datetime.utcnow() + 2 * hour  # noqa: E731
    check(two.NonBlockingLease(p, hour, "two", utcnow=later), "it has run out")
    check(one.MultiNonBlockingLease(2, p + "-many", hour, "one"))
    check(two.MultiNonBlockingLease(2, p + "-many", hour, "two"))
    check(not two.MultiNonBlockingLease(2, p + "-many", hour, "three"))


@test
def configuration_by_plain_operations(p):
    """One writes a new configuration and then its pointer; the others are told and read all of it."""
    owner = client()
    owner.ensure_path(p + "/versions")
    owner.create(p + "/current", b"")
    readers, seen = [client() for _ in range(3)], {}

    def follow(i, zk):
        def changed(event=None):
            data, stat = zk.get(p + "/current", watch=changed)
            if data:
                seen[i] = zk.get(data.decode())[0]

        changed()

    for i, zk in enumerate(readers):
        follow(i, zk)
    for round_ in range(5):
        value = b"%d" % round_ * 1000
        t = owner.transaction()
        path = f"{p}/versions/v{round_}"
        t.create(path, value)
        t.set_data(p + "/current", path.encode())
        same(t.commit()[0], path)
        until(lambda: all(seen.get(i) == value for i in range(3)), f"all read version {round_}")


@test
def queue_by_plain_operations(p):
    """Several takers of one queue: every element exactly once, each producer's in its order."""
    zks = [client() for _ in range(4)]
    zks[0].create(p)
    taken, lock_ = [], threading.Lock()

    def produce(zk, who):
        for i in range(25):
            zk.create(p + "/q-", b"%s-%d" % (who, i), sequence=True)

    def consume(zk):
        while True:
            with lock_:
                if len(taken) == 50:
                    return
            changed = threading.Event()
            names = sorted(zk.get_children(p, watch=lambda event: changed.set()))
            if not names:
                changed.wait(0.5)
            for name in names:
                try:
                    data, stat = zk.get(f"{p}/{name}")
                    zk.delete(f"{p}/{name}", version=stat.version)
                except ex.NoNodeError:
                    continue
                with lock_:
                    taken.append((int(name[2:]), data))

    runs = [background(produce, zk, b"p%d" % i) for i, zk in enumerate(zks[:2])]
    runs += [background(consume, zk) for zk in zks[2:]]
    for run in runs:
        run.result(20)
    same(len({data for _, data in taken}), 50)
    in_order = [data for _, data in sorted(taken)]
    for who in (b"p0", b"p1"):
        same([d for d in in_order if d.startswith(who)], [b"%s-%d" % (who, i) for i in range(25)])
    same(zks[0].get_children(p), [])


@test
def master_with_a_standby(p):
    """A standby takes over when the master's session ends, and a late write of the old master is refused."""
    watcher, standby = client(), client(timeout=30)
    watcher.create(p)
    watcher.create(p + "/state", b"")
    old = client(timeout=30)
    old.create(p + "/master", b"old", ephemeral=True)
    fence = old.set(p + "/state", b"by old").version
    took_over = threading.Event()

    def claim(event=None):
        if event and event.type != EventType.DELETED:
            return
        try:
            standby.create(p + "/master", b"new", ephemeral=True)
            standby.set(p + "/state", b"by new", version=fence)
            took_over.set()
        except ex.NodeExistsError:
            if standby.exists(p + "/master", watch=claim) is None:
                claim()

    claim()
    check(not took_over.is_set(), "the master lives")
    vanish(old)
    settled(took_over, "the standby takes over")
    same(watcher.get(p + "/master")[0], b"new")
    with raises(ex.BadVersionError):
        watcher.set(p + "/state", b"late write of the old", version=fence)
    states = []
    standby.add_listener(states.append)
    control("restart")
    same(standby.retry(standby.get, p + "/master")[1].ephemeralOwner, standby.client_id[0])
    check(KazooState.LOST not in states, states)
