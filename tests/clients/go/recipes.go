package main

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// candidate stands for leader: the one with the lowest number leads, each watches the one before it.
type candidate struct {
	c    *zk.Conn
	name string
}

func stand(c *zk.Conn, path, who string) *candidate {
	return &candidate{c, must(c.CreateProtectedEphemeralSequential(path+"/n-", []byte(who), open))}
}

func number(name string) string { return name[strings.LastIndex(name, "-")+1:] }

// lead returns once the candidate leads.
func (l *candidate) lead(path string) {
	for {
		names, _, err := l.c.Children(path)
		ok(err)
		sort.Slice(names, func(i, j int) bool { return number(names[i]) < number(names[j]) })
		before := ""
		for _, name := range names {
			if number(name) < number(l.name) {
				before = name
			}
		}
		if before == "" {
			return
		}
		there, _, gone, err := l.c.ExistsW(path + "/" + before)
		ok(err)
		if there {
			event(gone, zk.EventNodeDeleted, path+"/"+before)
		}
	}
}

func init() {
	register("lock", func(t *test) {
		var inside, turns int32
		var waits []func()
		for worker := 0; worker < 4; worker++ {
			c := t.conn()
			waits = append(waits, async(func() {
				for i := 0; i < 10; i++ {
					l := zk.NewLock(c, t.path, open)
					ok(l.Lock())
					same(atomic.AddInt32(&inside, 1), int32(1), "holders")
					atomic.AddInt32(&turns, 1)
					atomic.AddInt32(&inside, -1)
					ok(l.Unlock())
				}
			}))
		}
		for _, wait := range waits {
			wait()
		}
		same(turns, int32(40), "turns")
		names, _, err := t.conn().Children(t.path)
		ok(err)
		same(len(names), 0, "nothing is left")
	})

	register("lock_passes_on_when_its_holder_goes", func(t *test) {
		holder, waiter := t.conn(), t.conn()
		first, second := zk.NewLock(holder, t.path, open), zk.NewLock(waiter, t.path, open)
		ok(first.LockWithData([]byte("holder")))
		refused(first.Lock(), zk.ErrDeadlock, "twice")
		var held int32
		wait := async(func() { ok(second.Lock()); atomic.StoreInt32(&held, 1) })
		until("the waiter stands in line", func() bool { n, _, err := waiter.Children(t.path); ok(err); return len(n) == 2 })
		same(atomic.LoadInt32(&held), int32(0), "held")
		holder.Close()
		wait()
		ok(second.Unlock())
		refused(second.Unlock(), zk.ErrNotLocked, "twice")
	})

	register("leader_election_by_plain_operations", func(t *test) {
		watcher := t.conn()
		must(watcher.Create(t.path, nil, 0, open))
		var lock sync.Mutex
		var order []int
		var conns []*zk.Conn
		var waits []func()
		for i := 0; i < 4; i++ {
			mine, c := i, t.conn()
			conns = append(conns, c)
			l := stand(c, t.path, fmt.Sprint(mine))
			waits = append(waits, async(func() {
				l.lead(t.path)
				lock.Lock()
				order = append(order, mine)
				lock.Unlock()
			}))
		}
		conns[2].Close() // one in the middle goes: nobody may lead early because of it
		for _, i := range []int{0, 1, 3} {
			waits[i]()
			lock.Lock()
			same(order[len(order)-1], i, "leader")
			lock.Unlock()
			conns[i].Close()
		}
		same(order, []int{0, 1, 3}, "leaders")
	})

	register("master_with_a_standby", func(t *test) {
		watcher := t.conn()
		must(watcher.Create(t.path, nil, 0, open))
		l := &line{}
		master, j := t.client(time.Second, l.dial)
		standby := t.conn()
		must(master.Create(t.path+"/master", []byte("first"), zk.FlagEphemeral, open))
		_, err := standby.Create(t.path+"/master", []byte("second"), zk.FlagEphemeral, open)
		refused(err, zk.ErrNodeExists, "the master lives")
		there, _, gone, err := standby.ExistsW(t.path + "/master")
		ok(err)
		check(there, "the master lives")
		mark := j.mark()
		atomic.StoreInt32(&l.dead, 1) // the master hangs
		event(gone, zk.EventNodeDeleted, t.path+"/master")
		must(standby.Create(t.path+"/master", []byte("second"), zk.FlagEphemeral, open))
		atomic.StoreInt32(&l.dead, 0)
		j.wait(mark, zk.StateExpired) // and learns that it is none any more
		j.wait(mark, zk.StateHasSession)
		again(func() error {
			_, err := master.Create(t.path+"/master", []byte("first"), zk.FlagEphemeral, open)
			if err == zk.ErrConnectionClosed || err == zk.ErrNoServer {
				return err
			}
			refused(err, zk.ErrNodeExists, "the standby took over")
			return nil
		})
	})

	register("configuration_by_plain_operations", func(t *test) {
		owner := t.conn()
		must(owner.Create(t.path, []byte("v0"), 0, open))
		var waits []func()
		for reader := 0; reader < 4; reader++ {
			c := t.conn()
			started := make(chan struct{})
			waits = append(waits, async(func() {
				last := int32(-1)
				for first := true; last < 20; first = false {
					data, stat, changed, err := c.GetW(t.path)
					ok(err)
					check(stat.Version > last, "version %d after %d", stat.Version, last)
					same(string(data), fmt.Sprintf("v%d", stat.Version), "data of its version")
					last = stat.Version
					if first {
						close(started)
					}
					if last < 20 {
						event(changed, zk.EventNodeDataChanged, t.path)
					}
				}
			}))
			select {
			case <-started:
			case <-time.After(10 * slow):
				fail("a reader does not start")
			}
		}
		for i := 1; i <= 20; i++ {
			must(owner.Set(t.path, []byte(fmt.Sprintf("v%d", i)), int32(i-1)))
		}
		for _, wait := range waits {
			wait()
		}
	})

	register("queue_by_plain_operations", func(t *test) {
		const total = 60
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		var lock sync.Mutex
		taken := map[string]int{}
		var count int32
		var waits []func()
		for i := 0; i < 2; i++ {
			mine, producer := i, t.conn()
			waits = append(waits, async(func() {
				for n := 0; n < total/2; n++ {
					must(producer.Create(t.path+"/q-", []byte(fmt.Sprintf("%d-%d", mine, n)), zk.FlagSequence, open))
				}
			}))
		}
		for i := 0; i < 3; i++ {
			taker := t.conn()
			waits = append(waits, async(func() {
				for atomic.LoadInt32(&count) < total {
					names, _, changed, err := taker.ChildrenW(t.path)
					ok(err)
					if len(names) == 0 {
						select {
						case <-changed:
						case <-time.After(200 * time.Millisecond): // the last one may be gone already
						}
					}
					for _, name := range sorted(names) {
						data, stat, err := taker.Get(t.path + "/" + name)
						if err == nil {
							err = taker.Delete(t.path+"/"+name, stat.Version)
						}
						if errors.Is(err, zk.ErrNoNode) {
							continue // another was faster
						}
						ok(err)
						lock.Lock()
						taken[string(data)]++
						lock.Unlock()
						atomic.AddInt32(&count, 1)
					}
				}
			}))
		}
		for _, wait := range waits {
			wait()
		}
		same(len(taken), total, "elements")
		for name, times := range taken {
			same(times, 1, name)
		}
	})
}
