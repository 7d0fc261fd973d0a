package main

import (
	"bytes"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
)

var (
	open     = zk.WorldACL(zk.PermAll)
	readOnly = zk.WorldACL(zk.PermRead)
)

func sorted(names []string) []string {
	sort.Strings(names)
	return names
}

func init() {
	register("create_and_stat", func(t *test) {
		c := t.conn()
		same(must(c.Create(t.path, []byte("one"), zk.FlagPersistent, open)), t.path, "path")
		data, stat, err := c.Get(t.path)
		ok(err)
		same(string(data), "one", "data")
		check(stat.Czxid > 0 && stat.Czxid == stat.Mzxid && stat.Czxid == stat.Pzxid, "zxids of %+v", stat)
		check(stat.Ctime == stat.Mtime && stat.Ctime > 1_600_000_000_000, "times of %+v", stat)
		same([]int32{stat.Version, stat.Cversion, stat.Aversion, stat.DataLength, stat.NumChildren}, []int32{0, 0, 0, 3, 0}, "counts")
		same(stat.EphemeralOwner, int64(0), "owner")
	})

	register("create_errors", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		_, err := c.Create(t.path, nil, 0, open)
		refused(err, zk.ErrNodeExists, "again")
		_, err = c.Create(t.path+"/no/child", nil, 0, open)
		refused(err, zk.ErrNoNode, "no parent")
		_, err = c.Create(t.path+"/acl", nil, 0, []zk.ACL{})
		refused(err, zk.ErrInvalidACL, "no ACL")
		_, err = c.Create(t.path+"/acl", nil, 0, zk.AuthACL(zk.PermAll))
		refused(err, zk.ErrInvalidACL, "nobody has logged in")
		must(c.Create(t.path+"/e", nil, zk.FlagEphemeral, open))
		_, err = c.Create(t.path+"/e/child", nil, 0, open)
		refused(err, zk.ErrNoChildrenForEphemerals, "below an ephemeral")
		_, err = c.Create("/", nil, 0, open)
		refused(err, zk.ErrNodeExists, "the root")
		_, err = c.Create(t.path+"/\ue000", nil, 0, open)
		refused(err, zk.ErrBadArguments, "a character that only the server refuses")
	})

	register("create_sequence", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		same(must(c.Create(t.path+"/", nil, zk.FlagSequence, open)), t.path+"/0000000000", "first")
		same(must(c.Create(t.path+"/x", nil, zk.FlagEphemeralSequential, open)), t.path+"/x0000000001", "second")
		must(c.Create(t.path+"/plain", nil, 0, open))
		ok(c.Delete(t.path+"/x0000000001", -1))
		same(must(c.Create(t.path+"/x", nil, zk.FlagSequence, open)), t.path+"/x0000000003", "after a plain one and a delete")
	})

	register("create_ttl", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		same(must(c.CreateTTL(t.path+"/t", []byte("x"), zk.FlagTTL, open, 200*time.Millisecond)), t.path+"/t", "path")
		there, stat, gone, err := c.ExistsW(t.path + "/t")
		ok(err)
		if there { // a slow machine may see it gone already
			same(stat.EphemeralOwner, int64(0), "owner")
			event(gone, zk.EventNodeDeleted, t.path+"/t")
		}
		same(must(c.CreateTTL(t.path+"/s", nil, zk.FlagPersistentSequentialWithTTL, open, time.Hour)), t.path+"/s0000000001", "sequence")
		must(c.Create(t.path+"/s0000000001/c", nil, 0, open))
		_, err = c.CreateTTL(t.path+"/bad", nil, zk.FlagTTL, open, 0)
		refused(err, zk.ErrBadArguments, "no time to live")
	})

	register("create_container", func(t *test) {
		c := t.conn()
		same(must(c.CreateContainer(t.path, []byte("x"), zk.FlagContainer, open)), t.path, "path")
		must(c.Create(t.path+"/c", nil, 0, open))
		data, stat, gone, err := c.GetW(t.path)
		ok(err)
		same(string(data), "x", "data")
		same(stat.EphemeralOwner, int64(0), "owner")
		ok(c.Delete(t.path+"/c", -1))
		event(gone, zk.EventNodeDeleted, t.path) // it was in use and is empty now
	})

	register("create_protected_ephemeral_sequential", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		name := must(c.CreateProtectedEphemeralSequential(t.path+"/lock-", []byte("x"), open))
		check(strings.HasPrefix(name, t.path+"/_c_") && strings.HasSuffix(name, "-lock-0000000000"), "name %s", name)
		_, stat, err := c.Get(name)
		ok(err)
		same(stat.EphemeralOwner, c.SessionID(), "owner")
	})

	register("ephemeral_ends_with_its_session", func(t *test) {
		c, other := t.conn(), t.conn()
		must(other.Create(t.path, nil, zk.FlagEphemeral, open))
		_, stat, gone, err := c.ExistsW(t.path)
		ok(err)
		same(stat.EphemeralOwner, other.SessionID(), "owner")
		other.Close()
		event(gone, zk.EventNodeDeleted, t.path)
	})

	register("set_and_versions", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		first := must(c.Set(t.path, []byte("one"), -1))
		second := must(c.Set(t.path, []byte("three"), 1))
		same([]int32{first.Version, second.Version, second.DataLength}, []int32{1, 2, 5}, "versions and length")
		check(second.Mzxid > first.Mzxid && second.Czxid == first.Czxid, "zxids")
		_, err := c.Set(t.path, nil, 1)
		refused(err, zk.ErrBadVersion, "old version")
		_, err = c.Set(t.path+"/no", nil, -1)
		refused(err, zk.ErrNoNode, "no node")
	})

	register("delete_and_versions", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		must(c.Create(t.path+"/c", nil, 0, open))
		refused(c.Delete(t.path, -1), zk.ErrNotEmpty, "with a child")
		refused(c.Delete(t.path+"/c", 1), zk.ErrBadVersion, "version")
		ok(c.Delete(t.path+"/c", 0))
		refused(c.Delete(t.path+"/c", -1), zk.ErrNoNode, "again")
		refused(c.Delete("/", -1), zk.ErrBadArguments, "the root")
		ok(c.Delete(t.path, -1))
		there, _, err := c.Exists(t.path)
		ok(err)
		check(!there, "it is gone")
	})

	register("children", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, []byte("data"), 0, open))
		var wanted []string
		for i := 0; i < 100; i++ {
			wanted = append(wanted, must(c.Create(fmt.Sprintf("%s/n%03d", t.path, i), nil, 0, open))[len(t.path)+1:])
		}
		names, stat, err := c.Children(t.path)
		ok(err)
		same(sorted(names), wanted, "names")
		same([]int32{stat.NumChildren, stat.Cversion, stat.DataLength}, []int32{100, 100, 4}, "stat")
		_, _, err = c.Children(t.path + "/no")
		refused(err, zk.ErrNoNode, "no node")
		_, _, err = c.Get(t.path + "/no")
		refused(err, zk.ErrNoNode, "no node")
	})

	register("large_data", func(t *test) {
		c := t.conn()
		large := bytes.Repeat([]byte("0123456789"), 100_000)
		must(c.Create(t.path, large, 0, open))
		data, _, err := c.Get(t.path)
		ok(err)
		check(bytes.Equal(data, large), "the data of a million bytes comes back")
	})

	register("null_and_empty_data", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		data, _, err := c.Get(t.path)
		ok(err)
		check(data == nil, "null data: %v", data)
		must(c.Set(t.path, []byte{}, -1))
		data, _, err = c.Get(t.path)
		ok(err)
		check(data != nil && len(data) == 0, "empty data: %v", data)
	})

	register("acls", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		acl, stat, err := c.GetACL(t.path)
		ok(err)
		same(acl, open, "ACL")
		same(stat.Aversion, int32(0), "aversion")
		same(must(c.SetACL(t.path, zk.WorldACL(zk.PermRead|zk.PermAdmin), 0)).Aversion, int32(1), "aversion")
		_, err = c.Set(t.path, nil, -1)
		refused(err, zk.ErrNoAuth, "set")
		_, err = c.Create(t.path+"/c", nil, 0, open)
		refused(err, zk.ErrNoAuth, "create")
		_, err = c.SetACL(t.path, open, 0)
		refused(err, zk.ErrBadVersion, "aversion")
		must(c.SetACL(t.path, open, -1))
		must(c.Set(t.path, nil, -1))
	})

	register("digest_authentication", func(t *test) {
		c, owner := t.conn(), t.conn()
		must(c.Create(t.path, []byte("x"), 0, zk.DigestACL(zk.PermAll, "user", "word")))
		_, _, err := c.Get(t.path)
		refused(err, zk.ErrNoAuth, "get")
		_, _, err = c.Exists(t.path)
		refused(err, zk.ErrNoAuth, "exists")
		ok(owner.AddAuth("digest", []byte("user:word")))
		data, _, err := owner.Get(t.path)
		ok(err)
		same(string(data), "x", "data")
		must(owner.Create(t.path+"/c", nil, 0, zk.AuthACL(zk.PermAll)))
		acl, _, err := owner.GetACL(t.path + "/c")
		ok(err)
		same(acl, zk.DigestACL(zk.PermAll, "user", "word"), "the ids that are logged in")
		refused(c.Delete(t.path+"/c", -1), zk.ErrNoAuth, "delete")
		root := t.conn()
		ok(root.AddAuth("digest", []byte("super:secret")))
		ok(root.Delete(t.path+"/c", -1))
	})

	register("failed_authentication", func(t *test) {
		c, j := t.client(10*time.Second, nil)
		mark := j.mark()
		refused(c.AddAuth("nosuch", []byte("x")), zk.ErrAuthFailed, "an unknown scheme")
		j.wait(mark, zk.StateDisconnected)
	})

	register("multi_succeeds", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		got, err := c.Multi(
			&zk.CheckVersionRequest{Path: t.path, Version: 0},
			&zk.CreateRequest{Path: t.path + "/a", Data: []byte("a"), Acl: open},
			&zk.CreateRequest{Path: t.path + "/s", Acl: open, Flags: zk.FlagSequence},
			&zk.SetDataRequest{Path: t.path + "/a", Data: []byte("bb"), Version: 0},
			&zk.DeleteRequest{Path: t.path + "/a", Version: 1},
		)
		ok(err)
		same(len(got), 5, "results")
		for i, each := range got {
			check(each.Error == nil, "result %d: %v", i, each.Error)
		}
		same([]string{got[1].String, got[2].String}, []string{t.path + "/a", t.path + "/s0000000001"}, "paths")
		same([]int32{got[3].Stat.Version, got[3].Stat.DataLength}, []int32{1, 2}, "stat")
		same(got[3].Stat.Czxid, got[3].Stat.Mzxid, "one zxid for all")
		got, err = c.Multi()
		ok(err)
		same(len(got), 0, "an empty multi")
	})

	register("multi_of_an_ephemeral_with_null_data", func(t *test) {
		c := t.conn()
		got, err := c.Multi(
			&zk.CreateRequest{Path: t.path, Acl: open, Flags: zk.FlagEphemeral},
			&zk.SetDataRequest{Path: t.path, Data: []byte("broker"), Version: 0},
		)
		ok(err)
		same(got[1].Stat.EphemeralOwner, c.SessionID(), "owner")
	})

	register("multi_fails", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		got, err := c.Multi(
			&zk.CreateRequest{Path: t.path + "/a", Acl: open},
			&zk.DeleteRequest{Path: t.path + "/no", Version: -1},
			&zk.CreateRequest{Path: t.path + "/b", Acl: open},
		)
		// The reply's header has no error; this client takes the first one of the results.
		refused(err, zk.ErrNoNode, "the multi")
		same(len(got), 3, "results")
		check(got[0].Error == nil, "before the failing one: %v", got[0].Error)
		refused(got[1].Error, zk.ErrNoNode, "the failing one")
		check(got[2].Error != nil, "after the failing one")
		names, _, err := c.Children(t.path)
		ok(err)
		same(len(names), 0, "nothing was done")
	})

	register("sync", func(t *test) {
		writer, reader := t.conn(), t.conn()
		must(writer.Create(t.path, nil, 0, open))
		for i := 0; i < 20; i++ {
			must(writer.Set(t.path, []byte{byte(i)}, -1))
			same(must(reader.Sync(t.path)), t.path, "path")
			data, _, err := reader.Get(t.path)
			ok(err)
			same(data, []byte{byte(i)}, "data")
		}
	})

	register("reconfig_is_refused", func(t *test) {
		c := t.conn()
		_, err := c.IncrementalReconfig([]string{"server.9=127.0.0.1:1:2;3"}, nil, -1)
		refused(err, zk.ErrReconfigDisabled, "adding")
		_, err = c.Reconfig([]string{"server.9=127.0.0.1:1:2;3"}, -1)
		refused(err, zk.ErrReconfigDisabled, "replacing")
		_, _, err = c.Exists("/")
		ok(err)
	})

	register("many_callers_of_one_connection", func(t *test) {
		c := t.conn()
		must(c.Create(t.path, nil, 0, open))
		var waits []func()
		for worker := 0; worker < 16; worker++ {
			mine := fmt.Sprintf("%s/w%d", t.path, worker)
			waits = append(waits, async(func() {
				must(c.Create(mine, nil, 0, open))
				for i := int32(0); i < 50; i++ {
					same(must(c.Set(mine, []byte(mine), i)).Version, i+1, "version")
					data, _, err := c.Get(mine)
					ok(err)
					same(string(data), mine, "data")
				}
			}))
		}
		for _, wait := range waits {
			wait()
		}
	})

	register("watch_data", func(t *test) {
		c, other := t.conn(), t.conn()
		must(c.Create(t.path, nil, 0, open))
		_, _, ch, err := c.GetW(t.path)
		ok(err)
		must(other.Set(t.path, []byte("x"), -1))
		event(ch, zk.EventNodeDataChanged, t.path)
		_, _, ch, err = c.GetW(t.path)
		ok(err)
		must(other.Create(t.path+"/c", nil, 0, open))
		ok(other.Delete(t.path+"/c", -1))
		must(c.Sync(t.path))
		silent(ch, "children do not matter to it")
		ok(other.Delete(t.path, -1))
		event(ch, zk.EventNodeDeleted, t.path)
		_, _, _, err = c.GetW(t.path)
		refused(err, zk.ErrNoNode, "no node")
	})

	register("watch_exists", func(t *test) {
		c, other := t.conn(), t.conn()
		there, _, ch, err := c.ExistsW(t.path)
		ok(err)
		check(!there, "not there yet")
		must(other.Create(t.path, nil, 0, open))
		event(ch, zk.EventNodeCreated, t.path)
		_, _, ch, err = c.ExistsW(t.path)
		ok(err)
		must(other.Set(t.path, nil, -1))
		event(ch, zk.EventNodeDataChanged, t.path)
		_, _, ch, err = c.ExistsW(t.path)
		ok(err)
		ok(other.Delete(t.path, -1))
		event(ch, zk.EventNodeDeleted, t.path)
	})

	register("watch_children", func(t *test) {
		c, other := t.conn(), t.conn()
		must(c.Create(t.path, nil, 0, open))
		_, _, ch, err := c.ChildrenW(t.path)
		ok(err)
		must(other.Set(t.path, nil, -1))
		must(c.Sync(t.path))
		silent(ch, "data does not matter to it")
		must(other.Create(t.path+"/c", nil, 0, open))
		event(ch, zk.EventNodeChildrenChanged, t.path)
		_, _, ch, err = c.ChildrenW(t.path)
		ok(err)
		ok(other.Delete(t.path+"/c", -1))
		event(ch, zk.EventNodeChildrenChanged, t.path)
		_, _, ch, err = c.ChildrenW(t.path)
		ok(err)
		ok(other.Delete(t.path, -1))
		event(ch, zk.EventNodeDeleted, t.path)
	})

	register("watch_of_a_multi", func(t *test) {
		c, other := t.conn(), t.conn()
		must(c.Create(t.path, nil, 0, open))
		_, _, children, err := c.ChildrenW(t.path)
		ok(err)
		_, _, data, err := c.GetW(t.path)
		ok(err)
		_, _, created, err := c.ExistsW(t.path + "/a")
		ok(err)
		_, err = other.Multi(
			&zk.CreateRequest{Path: t.path + "/a", Acl: open},
			&zk.SetDataRequest{Path: t.path, Version: -1},
		)
		ok(err)
		event(created, zk.EventNodeCreated, t.path+"/a")
		event(children, zk.EventNodeChildrenChanged, t.path)
		event(data, zk.EventNodeDataChanged, t.path)
	})
}
