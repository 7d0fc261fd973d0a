package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// line is a dialer whose connections can be cut off from the server without either side being told.
type line struct{ dead int32 }

type deadable struct {
	net.Conn
	line     *line
	answered *int32
}

func (l *line) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	if atomic.LoadInt32(&l.dead) == 1 {
		return nil, errors.New("the line is dead")
	}
	c, err := net.DialTimeout(network, address, timeout)
	if err != nil {
		return nil, err
	}
	return deadable{c, l, new(int32)}, nil
}

func (d deadable) Write(b []byte) (int, error) {
	if atomic.LoadInt32(&d.line.dead) == 1 {
		return len(b), nil
	}
	return d.Conn.Write(b)
}

func (d deadable) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if n > 0 {
		atomic.StoreInt32(d.answered, 1)
	}
	return n, err
}

// SetReadDeadline bounds the handshake on ZooKeeper: one that is just starting may lose it and keep the connection, and
// this client would wait for several session timeouts.
func (d deadable) SetReadDeadline(t time.Time) error {
	bound := time.Now().Add(3 * slow)
	if os.Getenv("SERVER_KIND") == "zookeeper" && atomic.LoadInt32(d.answered) == 0 && t.After(bound) {
		t = bound
	}
	return d.Conn.SetReadDeadline(t)
}

func init() {
	register("expiry", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		l := &line{}
		lost, j := t.client(time.Second, l.dial)
		session := lost.SessionID()
		must(lost.Create(t.path+"/e", nil, zk.FlagEphemeral, open))
		_, _, watch, err := lost.GetW(t.path)
		ok(err)
		_, _, gone, err := c.ExistsW(t.path + "/e")
		ok(err)
		mark := j.mark()
		atomic.StoreInt32(&l.dead, 1)
		event(gone, zk.EventNodeDeleted, t.path+"/e")
		atomic.StoreInt32(&l.dead, 0)
		j.wait(mark, zk.StateExpired)
		select {
		case e := <-watch:
			refused(e.Err, zk.ErrSessionExpired, "the watch is told")
		case <-time.After(10 * slow):
			fail("the watch is not told")
		}
		j.wait(mark, zk.StateHasSession)
		check(lost.SessionID() != session, "it has another session")
		again(func() error { _, _, err := lost.Get(t.path); return err })
	})

	register("restart_keeps_session_and_ephemerals", func(t *test) {
		c, j := t.client(30*time.Second, nil)
		session := c.SessionID()
		must(c.Create(t.path, []byte("kept"), 0, open))
		must(c.Create(t.path+"/e", nil, zk.FlagEphemeral, open))
		for i := 0; i < 50; i++ {
			must(c.Create(t.path+"/s", nil, zk.FlagSequence, open))
		}
		_, before, err := c.Get(t.path)
		ok(err)
		mark := j.mark()
		control("restart")
		j.wait(mark, zk.StateDisconnected)
		j.wait(mark, zk.StateHasSession)
		same(c.SessionID(), session, "session")
		again(func() error {
			_, after, err := c.Get(t.path)
			if err == nil {
				same(after, before, "stat")
			}
			return err
		})
		_, stat, err := c.Get(t.path + "/e")
		ok(err)
		same(stat.EphemeralOwner, session, "owner")
		same(must(c.Create(t.path+"/s", nil, zk.FlagSequence, open)), fmt.Sprintf("%s/s%010d", t.path, 51), "sequence")
	})

	// The client sends its watches again when it is back: those whose node changed meanwhile fire at once, the others stay.
	register("watches_after_a_reconnection", func(t *test) {
		l := &line{}
		c, j := t.client(30*time.Second, l.dial)
		other := t.conn()
		for _, name := range []string{"", "/changed", "/deleted", "/same", "/parent", "/quiet"} {
			must(c.Create(t.path+name, nil, 0, open))
		}
		watch := func(_ interface{}, _ *zk.Stat, ch <-chan zk.Event, err error) <-chan zk.Event { ok(err); return ch }
		get := func(name string) <-chan zk.Event { d, s, ch, err := c.GetW(t.path + name); return watch(d, s, ch, err) }
		exists := func(name string) <-chan zk.Event {
			d, s, ch, err := c.ExistsW(t.path + name)
			return watch(d, s, ch, err)
		}
		children := func(name string) <-chan zk.Event {
			d, s, ch, err := c.ChildrenW(t.path + name)
			return watch(d, s, ch, err)
		}
		changed, deleted, stays := get("/changed"), get("/deleted"), get("/same")
		created, absent := exists("/created"), exists("/absent")
		parent, quiet := children("/parent"), children("/quiet")

		mark := j.mark()
		atomic.StoreInt32(&l.dead, 1)
		// The restart ends the connection; the line stays dead until all is changed.
		control("restart")
		j.wait(mark, zk.StateDisconnected)
		again(func() error { _, err := other.Set(t.path+"/changed", nil, -1); return err })
		ok(other.Delete(t.path+"/deleted", -1))
		must(other.Create(t.path+"/created", nil, 0, open))
		must(other.Create(t.path+"/parent/c", nil, 0, open))
		atomic.StoreInt32(&l.dead, 0)
		j.wait(mark, zk.StateHasSession)
		event(changed, zk.EventNodeDataChanged, t.path+"/changed")
		event(deleted, zk.EventNodeDeleted, t.path+"/deleted")
		event(created, zk.EventNodeCreated, t.path+"/created")
		event(parent, zk.EventNodeChildrenChanged, t.path+"/parent")
		must(c.Sync(t.path))
		silent(stays, "unchanged data")
		silent(absent, "a node still absent")
		silent(quiet, "unchanged children")
		must(other.Set(t.path+"/same", nil, -1))
		must(other.Create(t.path+"/absent", nil, 0, open))
		must(other.Create(t.path+"/quiet/c", nil, 0, open))
		event(stays, zk.EventNodeDataChanged, t.path+"/same")
		event(absent, zk.EventNodeCreated, t.path+"/absent")
		event(quiet, zk.EventNodeChildrenChanged, t.path+"/quiet")
	})

	// More watches than fit one packet of the client's 128 kB.
	register("many_watches_after_a_reconnection", func(t *test) {
		l := &line{}
		c, j := t.client(30*time.Second, l.dial)
		other := t.conn()
		must(c.Create(t.path, nil, 0, open))
		long := fmt.Sprintf("%0200d", 0)
		watches := map[string]<-chan zk.Event{}
		for i := 0; i < 1500; i++ {
			name := fmt.Sprintf("%s/%s-%d", t.path, long, i)
			_, _, ch, err := c.ExistsW(name)
			ok(err)
			watches[name] = ch
		}
		mark := j.mark()
		atomic.StoreInt32(&l.dead, 1)
		control("restart")
		j.wait(mark, zk.StateDisconnected)
		again(func() error { _, err := other.Create(fmt.Sprintf("%s/%s-7", t.path, long), nil, 0, open); return err })
		atomic.StoreInt32(&l.dead, 0)
		j.wait(mark, zk.StateHasSession)
		seventh := fmt.Sprintf("%s/%s-7", t.path, long)
		event(watches[seventh], zk.EventNodeCreated, seventh)
		delete(watches, seventh)
		for i := 0; i < 1500; i += 100 {
			name := fmt.Sprintf("%s/%s-%d", t.path, long, i)
			again(func() error { _, err := other.Create(name, nil, 0, open); return err })
			event(watches[name], zk.EventNodeCreated, name)
		}
	})

	register("authentication_is_sent_again", func(t *test) {
		c, j := t.client(30*time.Second, nil)
		ok(c.AddAuth("digest", []byte("user:word")))
		must(c.Create(t.path, nil, 0, zk.AuthACL(zk.PermAll)))
		mark := j.mark()
		control("restart")
		j.wait(mark, zk.StateHasSession)
		again(func() error { _, err := c.Set(t.path, []byte("x"), 0); return err })
	})

	register("orderly_stop_keeps_everything", func(t *test) {
		c, j := t.client(30*time.Second, nil)
		must(c.Create(t.path, []byte("kept"), zk.FlagEphemeral, open))
		session, mark := c.SessionID(), j.mark()
		control("stop")
		j.wait(mark, zk.StateDisconnected)
		control("start")
		j.wait(mark, zk.StateHasSession)
		same(c.SessionID(), session, "session")
		again(func() error { _, _, err := c.Get(t.path); return err })
	})
}
