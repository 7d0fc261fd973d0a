/* Sessions: their end, and their life through the server's death. */
#include "harness.h"

#include <signal.h>
#include <sys/wait.h>

/* The timeout of a session that outlives a restart. A ZooKeeper that is just starting may lose a client's handshake and
   keep the connection; this client then gives up after two thirds of its timeout, while the session still lives. */
#define AWAY 12000

static void timeout_is_negotiated(const char *p) {
    (void)p;
    same(zoo_recv_timeout(client("", 100, NULL, NULL)), 1000);
    same(zoo_recv_timeout(client("", 12345, NULL, NULL)), 12345);
    same(zoo_recv_timeout(client("", 1000000, NULL, NULL)), 40000);
}

static void closing_ends_the_session(const char *p) {
    zhandle_t *zh = plain_client(), *other = plain_client();
    struct journal *gone = journal();
    struct Stat s;
    plain_create(other, p, "", ZOO_EPHEMERAL);
    ok(zoo_wexists(zh, p, note, gone, &s));
    same(s.ephemeralOwner, zoo_client_id(other)->client_id);
    leave(other);
    expect_event(gone, 0, ZOO_DELETED_EVENT, p);
}

/* The client's process is stopped until its session is over, and learns so when it goes on. */
static void stopped_client_expires(const char *p) {
    int ready[2];
    char byte;
    check(!pipe(ready));
    pid_t child = fork(); /* before this process has threads */
    if (child == 0) {
        struct journal *j;
        zhandle_t *zh = client("", 1000, NULL, &j);
        plain_create(zh, p, "", ZOO_EPHEMERAL);
        check(write(ready[1], "c", 1) == 1);
        wait_state(j, 0, ZOO_EXPIRED_SESSION_STATE);
        struct Stat s;
        is(zoo_exists(zh, p, 0, &s), ZINVALIDSTATE);
        check(is_unrecoverable(zh));
        check(write(ready[1], "x", 1) == 1);
        _exit(0);
    }
    close(ready[1]);
    same(read(ready[0], &byte, 1), 1);
    zhandle_t *zh = plain_client();
    struct journal *gone = journal();
    struct Stat s;
    ok(zoo_wexists(zh, p, note, gone, &s));
    kill(child, SIGSTOP);
    expect_event(gone, 0, ZOO_DELETED_EVENT, p);
    kill(child, SIGCONT);
    same(read(ready[0], &byte, 1), 1);
    same(byte, 'x');
    int status;
    same(waitpid(child, &status, 0), child);
    same(status, 0);
}

/* A second handle with the first one's session; when it closes, the first learns that the session is over. */
static void closed_by_a_second_handle(const char *p) {
    struct journal *j;
    zhandle_t *first = client("", 10000, NULL, &j);
    plain_create(first, p, "", ZOO_EPHEMERAL);
    zhandle_t *zh = plain_client();
    struct journal *gone = journal();
    struct Stat s;
    ok(zoo_wexists(zh, p, note, gone, &s));
    clientid_t id = *zoo_client_id(first);
    zhandle_t *second = client("", 10000, &id, NULL);
    same(zoo_client_id(second)->client_id, id.client_id);
    /* Both handles fight for the session from now on, so that closing may need more than one attempt. */
    while (zoo_state(second) != ZOO_CONNECTED_STATE)
        usleep(1000);
    leave(second);
    for (int turn = 0; gone->count == 0 && turn < 50; turn++) {
        struct journal *third_journal = journal();
        zhandle_t *third = zookeeper_init(servers, note, 10000, &id, third_journal, 0);
        check(third);
        while (zoo_state(third) != ZOO_CONNECTED_STATE && zoo_state(third) != ZOO_EXPIRED_SESSION_STATE)
            usleep(1000);
        zookeeper_close(third);
    }
    expect_event(gone, 0, ZOO_DELETED_EVENT, p);
    wait_state(j, 0, ZOO_EXPIRED_SESSION_STATE);
}

static void wrong_password(const char *p) {
    (void)p;
    zhandle_t *zh = plain_client();
    clientid_t id = *zoo_client_id(zh);
    memset(id.passwd, 'x', sizeof id.passwd);
    struct journal *j = journal();
    zhandle_t *thief = zookeeper_init(servers, note, 10000, &id, j, 0);
    check(thief);
    wait_state(j, 0, ZOO_EXPIRED_SESSION_STATE);
    struct Stat s;
    int rc;
    while (again(rc = zoo_exists(zh, "/", 0, &s)))
        ;
    same(rc, ZOK);
}

static void restart_keeps_session_and_ephemerals(const char *p) {
    struct journal *j;
    zhandle_t *zh = client("", AWAY, NULL, &j);
    struct Stat before, after;
    int rc;
    plain_create(zh, p, "kept", 0);
    plain_create(zh, text("%s/e", p), "", ZOO_EPHEMERAL);
    for (int i = 0; i < 50; i++)
        plain_create(zh, text("%s/s-", p), "", ZOO_PERSISTENT_SEQUENTIAL);
    ok(zoo_exists(zh, p, 0, &before));
    int64_t session = zoo_client_id(zh)->client_id;
    int from = wait_state(j, 0, ZOO_CONNECTED_STATE);
    control("restart");
    from = wait_state(j, from, ZOO_CONNECTING_STATE);
    wait_state(j, from, ZOO_CONNECTED_STATE);
    while (again(rc = zoo_exists(zh, p, 0, &after)))
        ;
    same(rc, ZOK);
    check(same_stat(&before, &after));
    same(zoo_client_id(zh)->client_id, session);
    ok(zoo_exists(zh, text("%s/e", p), 0, &after));
    same(after.ephemeralOwner, session);
    same_text(plain_create(zh, text("%s/s-", p), "", ZOO_PERSISTENT_SEQUENTIAL), text("%s/s-%010d", p, 51));
}

/* The client sends its watches and its password again by itself. */
static void watches_and_password_after_a_restart(const char *p) {
    struct journal *j, *data = journal(), *there = journal(), *names = journal();
    zhandle_t *zh = client("", AWAY, NULL, &j);
    struct String_vector got;
    struct Stat s;
    struct answer *a = answer();
    char value[8];
    int length = sizeof value;
    ok(zoo_add_auth(zh, "digest", "user:word", 9, got_void, a));
    ok(await(a));
    ok(zoo_create(zh, p, "", 0, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    ok(zoo_wget(zh, p, note_node, data, value, &length, &s));
    ok(zoo_wget_children(zh, p, note_node, names, &got));
    is(zoo_wexists(zh, text("%s/c", p), note_node, there, &s), ZNONODE);
    int from = wait_state(j, 0, ZOO_CONNECTED_STATE);
    control("restart");
    from = wait_state(j, from, ZOO_CONNECTING_STATE);
    wait_state(j, from, ZOO_CONNECTED_STATE);
    int rc;
    while (again(rc = zoo_set(zh, p, "1", 1, -1)))
        ;
    same(rc, ZOK);
    plain_create(zh, text("%s/c", p), "", 0);
    expect_event(data, 0, ZOO_CHANGED_EVENT, p);
    expect_event(names, 0, ZOO_CHILD_EVENT, p);
    expect_event(there, 0, ZOO_CREATED_EVENT, text("%s/c", p));
}

const struct test sessions[] = {
    {"timeout_is_negotiated", timeout_is_negotiated},
    {"closing_ends_the_session", closing_ends_the_session},
    {"stopped_client_expires", stopped_client_expires},
    {"closed_by_a_second_handle", closed_by_a_second_handle},
    {"wrong_password", wrong_password},
    {"restart_keeps_session_and_ephemerals", restart_keeps_session_and_ephemerals},
    {"watches_and_password_after_a_restart", watches_and_password_after_a_restart},
    {NULL, NULL},
};
