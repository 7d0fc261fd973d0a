// Command suite runs the tests of the Go client: suite [-servers HOST:PORT] [NAME...]
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

var (
	slow    = slowness()
	limit   = 25 * slow // for one test
	servers string
	tests   []entry
)

// slowness is one second, multiplied by what the environment's SLOW says.
func slowness() time.Duration {
	times, err := strconv.Atoi(os.Getenv("SLOW"))
	if err != nil || times < 1 {
		times = 1
	}
	return time.Duration(times) * time.Second
}

type entry struct {
	name string
	run  func(t *test)
}

func register(name string, run func(t *test)) { tests = append(tests, entry{name, run}) }

// failure is what a broken expectation panics with.
type failure struct{ reason string }

// test is what a test works with. Its clients end with it.
type test struct {
	path string // a node of its own, which does not exist yet
	lock sync.Mutex
	open []*zk.Conn
}

func fail(format string, values ...interface{}) {
	where := ""
	for depth := 1; depth < 8; depth++ {
		_, file, line, ok := runtime.Caller(depth)
		if ok && path.Base(file) != "main.go" {
			where = fmt.Sprintf(" (%s:%d)", path.Base(file), line)
			break
		}
	}
	panic(failure{fmt.Sprintf(format, values...) + where})
}

func check(condition bool, format string, values ...interface{}) {
	if !condition {
		fail(format, values...)
	}
}

func same(got, wanted interface{}, what string) {
	if !reflect.DeepEqual(got, wanted) {
		fail("%s: got %v, wanted %v", what, got, wanted)
	}
}

func ok(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		fail("%v", err)
	}
	return value
}

func refused(err, wanted error, what string) {
	if !errors.Is(err, wanted) {
		fail("%s: got error %v, wanted %v", what, err, wanted)
	}
}

// until polls a condition that nothing announces.
func until(what string, condition func() bool) {
	for end := time.Now().Add(10 * slow); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			fail("not within 10 s: %s", what)
		}
	}
}

// event waits for one event of a watch.
func event(ch <-chan zk.Event, kind zk.EventType, path string) {
	select {
	case e := <-ch:
		check(e.Err == nil && e.Type == kind && e.Path == path, "event %v, wanted %v of %s", e, kind, path)
	case <-time.After(10 * slow):
		fail("no event %v of %s within 10 s", kind, path)
	}
}

func silent(ch <-chan zk.Event, what string) {
	select {
	case e := <-ch:
		fail("%s: unexpected event %v", what, e)
	default:
	}
}

// async runs work in a goroutine. The function it returns waits for it, and hands on its failure.
func async(work func()) (wait func()) {
	done := make(chan interface{}, 1)
	go func() {
		defer func() { done <- recover() }()
		work()
	}()
	return func() {
		select {
		case broken := <-done:
			if broken != nil {
				panic(broken)
			}
		case <-time.After(15 * slow):
			fail("still busy after 15 s")
		}
	}
}

// journal collects the session events of one client.
type journal struct {
	lock   sync.Mutex
	states []zk.State
	wake   chan struct{}
}

func (j *journal) add(e zk.Event) {
	if e.Type != zk.EventSession {
		return
	}
	j.lock.Lock()
	j.states = append(j.states, e.State)
	close(j.wake)
	j.wake = make(chan struct{})
	j.lock.Unlock()
}

func (j *journal) since(mark int) ([]zk.State, chan struct{}) {
	j.lock.Lock()
	defer j.lock.Unlock()
	return append([]zk.State(nil), j.states[mark:]...), j.wake
}

func (j *journal) mark() int {
	j.lock.Lock()
	defer j.lock.Unlock()
	return len(j.states)
}

// wait waits until the state is reached after the mark.
func (j *journal) wait(mark int, wanted zk.State) {
	bound := time.After(15 * slow)
	for {
		states, wake := j.since(mark)
		for _, state := range states {
			if state == wanted {
				return
			}
		}
		select {
		case <-wake:
		case <-bound:
			fail("not %v within 15 s, but %v", wanted, states)
		}
	}
}

type quiet struct{}

func (quiet) Printf(string, ...interface{}) {}

// client gives a connected client and its journal.
func (t *test) client(timeout time.Duration, dialer zk.Dialer) (*zk.Conn, *journal) {
	j := &journal{wake: make(chan struct{})}
	if dialer == nil {
		dialer = (&line{}).dial
	}
	c, _, err := zk.Connect([]string{servers}, timeout, zk.WithEventCallback(j.add), zk.WithLogger(quiet{}), zk.WithDialer(dialer))
	ok(err)
	t.lock.Lock()
	t.open = append(t.open, c)
	t.lock.Unlock()
	j.wait(0, zk.StateHasSession)
	return c, j
}

func (t *test) conn() *zk.Conn {
	c, _ := t.client(10*time.Second, nil)
	return c
}

// again repeats a call that the loss of the connection has broken.
func again(call func() error) {
	until("an answer after the reconnection", func() bool {
		err := call()
		if err == zk.ErrConnectionClosed || err == zk.ErrNoServer {
			return false
		}
		ok(err)
		return true
	})
}

// control asks the control script of the server under test.
func control(verb string) {
	out, err := exec.Command(os.Getenv("SERVER_CTL"), verb).CombinedOutput()
	if err != nil {
		fail("%s of the server failed: %s", verb, strings.TrimSpace(string(out)))
	}
}

func runOne(e entry) (reason string) {
	t := &test{path: "/go-" + e.name}
	done := make(chan string, 1)
	go func() {
		defer func() {
			switch broken := recover().(type) {
			case nil:
				done <- ""
			case failure:
				done <- broken.reason
			default:
				done <- fmt.Sprintf("panic: %v", broken)
			}
		}()
		e.run(t)
	}()
	select {
	case reason = <-done:
	case <-time.After(limit):
		reason = fmt.Sprintf("still busy after %v", limit)
	}
	t.lock.Lock()
	defer t.lock.Unlock()
	for _, c := range t.open {
		c.Close()
	}
	if reason != "" && exec.Command(os.Getenv("SERVER_CTL"), "pid").Run() != nil {
		_ = exec.Command(os.Getenv("SERVER_CTL"), "start").Run() // the next test says so if this fails
	}
	return strings.Join(strings.Fields(reason), " ")
}

func main() {
	wanted := map[string]bool{}
	arguments := os.Args[1:]
	for i := 0; i < len(arguments); i++ {
		if arguments[i] == "--servers" && i+1 < len(arguments) {
			i++
			servers = arguments[i]
		} else {
			wanted[arguments[i]] = true
		}
	}
	if servers == "" {
		fmt.Fprintln(os.Stderr, "usage: suite [NAME...] --servers HOST:PORT")
		os.Exit(2)
	}
	some, failed := len(wanted) > 0, false
	for _, e := range tests {
		if some && !wanted[e.name] {
			continue
		}
		begun := time.Now()
		reason := runOne(e)
		if reason == "" {
			fmt.Printf("PASS go/%s\n", e.name)
		} else {
			failed = true
			fmt.Printf("FAIL go/%s: %s\n", e.name, reason)
		}
		delete(wanted, e.name)
		if os.Getenv("TEST_TIMES") != "" {
			fmt.Fprintf(os.Stderr, "  %6.2f s %s\n", time.Since(begun).Seconds(), e.name)
		}
	}
	for name := range wanted {
		failed = true
		fmt.Printf("FAIL go/%s: no such test\n", name)
	}
	if failed {
		os.Exit(1)
	}
}
