package main

import (
	"io"
	"net"
	"regexp"
	"time"

	"github.com/go-zookeeper/zk"
)

func word(text string) string {
	c := must(net.DialTimeout("tcp", servers, 5*time.Second))
	defer c.Close()
	ok(c.SetDeadline(time.Now().Add(5 * time.Second)))
	must(c.Write([]byte(text)))
	return string(must(io.ReadAll(c)))
}

func init() {
	register("word_ruok", func(t *test) {
		same(zk.FLWRuok([]string{servers}, 5*time.Second), []bool{true}, "answer")
	})

	// The client's reader of srvr wants a build date of the years before ZooKeeper 3.6 (month/day/year). A server that
	// writes the date as today's ZooKeeper does is not readable to it, and that is no fault of the server.
	register("word_srvr", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		stats, parsed := zk.FLWSrvr([]string{servers}, 5*time.Second)
		same(len(stats), 1, "servers")
		if parsed {
			same(stats[0].Mode, zk.ModeStandalone, "mode")
			check(stats[0].NodeCount >= 6 && stats[0].Connections >= 1 && stats[0].Counter > 0, "%+v", stats[0])
			return
		}
		text := word("srvr")
		form := regexp.MustCompile(`(?m)\AZookeeper version: 3\.9\.[\w.\-]+, built on \d{4}-\d\d-\d\d \d\d:\d\d [\w:+\-]+\n` +
			`Latency min/avg/max: \d+/[0-9.]+/\d+\nReceived: \d+\nSent: \d+\nConnections: \d+\nOutstanding: \d+\n` +
			`Zxid: 0x[0-9a-f]+\nMode: standalone\nNode count: \d+\n\z`)
		check(form.MatchString(text), "%q", text)
	})

	register("word_cons", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		// The line of the connection that asks has no session; this client calls it unreadable and goes on to the next.
		answers, _ := zk.FLWCons([]string{servers}, 5*time.Second)
		same(len(answers), 1, "servers")
		for _, each := range answers[0].Clients {
			if each.SessionID == c.SessionID() {
				same(each.Timeout, int32(10000), "timeout")
				same(each.LastOperation, "CREA", "last operation")
				check(each.Received >= 2 && each.Sent >= 2 && each.Lzxid > 0 && each.Lcxid > 0, "%+v", each)
				return
			}
		}
		fail("the session is not listed: %+v", answers[0])
	})
}
