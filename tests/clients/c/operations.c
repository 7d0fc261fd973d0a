/* Every operation, in its synchronous and its asynchronous form. */
#include "harness.h"

#include <sys/wait.h>

static const struct ACL_vector *open_acl = &ZOO_OPEN_ACL_UNSAFE;

static struct Stat stat_of(zhandle_t *zh, const char *path) {
    struct Stat s;
    ok(zoo_exists(zh, path, 0, &s));
    return s;
}

static void create(const char *p) {
    zhandle_t *zh = plain_client();
    char made[256];
    ok(zoo_create(zh, p, "one", 3, open_acl, ZOO_PERSISTENT, made, sizeof made));
    same_text(made, p);
    struct Stat s = stat_of(zh, p);
    check(s.czxid > 0 && s.czxid == s.mzxid && s.czxid == s.pzxid && s.ctime == s.mtime);
    same(s.dataLength, 3);
    same(s.ephemeralOwner, 0);
    is(zoo_create(zh, p, NULL, -1, open_acl, 0, NULL, 0), ZNODEEXISTS);
    is(zoo_create(zh, text("%s/no/child", p), NULL, -1, open_acl, 0, NULL, 0), ZNONODE);
    same_text(plain_create(zh, text("%s/s-", p), "", ZOO_PERSISTENT_SEQUENTIAL), text("%s/s-0000000000", p));
    same_text(plain_create(zh, text("%s/e-", p), "", ZOO_EPHEMERAL_SEQUENTIAL), text("%s/e-0000000001", p));
    char *e = plain_create(zh, text("%s/e", p), "", ZOO_EPHEMERAL);
    same(stat_of(zh, e).ephemeralOwner, zoo_client_id(zh)->client_id);
    is(zoo_create(zh, text("%s/c", e), NULL, -1, open_acl, 0, NULL, 0), ZNOCHILDRENFOREPHEMERALS);
    struct ACL_vector none = {0, NULL};
    is(zoo_create(zh, text("%s/a", p), NULL, -1, &none, 0, NULL, 0), ZINVALIDACL);
    is(zoo_create(zh, text("%s/a", p), NULL, -1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), ZINVALIDACL);
}

static void create2(const char *p) {
    zhandle_t *zh = plain_client();
    char made[256];
    struct Stat s;
    ok(zoo_create2(zh, p, "four", 4, open_acl, ZOO_PERSISTENT, made, sizeof made, &s));
    same_text(made, p);
    struct Stat seen = stat_of(zh, p);
    check(same_stat(&s, &seen));
    ok(zoo_create2(zh, text("%s/s-", p), "", 0, open_acl, ZOO_EPHEMERAL_SEQUENTIAL, made, sizeof made, &s));
    same_text(made, text("%s/s-0000000000", p));
    same(s.ephemeralOwner, zoo_client_id(zh)->client_id);
    is(zoo_create2(zh, p, "", 0, open_acl, 0, made, sizeof made, &s), ZNODEEXISTS);
}

static void create_container(const char *p) {
    zhandle_t *zh = plain_client();
    char made[256];
    ok(zoo_create(zh, p, "x", 1, open_acl, ZOO_CONTAINER, made, sizeof made));
    same(stat_of(zh, p).ephemeralOwner, 0);
    plain_create(zh, text("%s/c", p), "", 0);
    struct journal *gone = journal();
    struct Stat s;
    ok(zoo_wexists(zh, p, note, gone, &s));
    ok(zoo_delete(zh, text("%s/c", p), -1));
    expect_event(gone, 0, ZOO_DELETED_EVENT, p);
    ok(zoo_create2(zh, text("%s-2", p), "x", 1, open_acl, ZOO_CONTAINER, made, sizeof made, &s));
    same(s.dataLength, 1);
}

static void create_ttl(const char *p) {
    zhandle_t *zh = plain_client();
    char made[256];
    struct Stat s;
    struct journal *gone = journal();
    is(zoo_wexists(zh, p, note, gone, &s), ZNONODE);
    ok(zoo_create_ttl(zh, p, "x", 1, open_acl, ZOO_PERSISTENT_WITH_TTL, 200, made, sizeof made));
    same_text(made, p);
    expect_event(gone, 0, ZOO_CREATED_EVENT, p);
    int rc = zoo_wexists(zh, p, note, gone, &s);
    if (rc == ZOK) { /* a slow machine may see it gone already */
        same(s.ephemeralOwner, 0);
        expect_event(gone, 1, ZOO_DELETED_EVENT, p);
    } else {
        same(rc, ZNONODE);
    }
    ok(zoo_create2_ttl(zh, text("%s-s-", p), "", 0, open_acl, ZOO_PERSISTENT_SEQUENTIAL_WITH_TTL, 3600000, made, sizeof made, &s));
    same(strncmp(made, text("%s-s-", p), strlen(p) + 3), 0);
    is(zoo_create_ttl(zh, text("%s-0", p), "", 0, open_acl, ZOO_PERSISTENT_WITH_TTL, 0, made, sizeof made), ZBADARGUMENTS);
}

static void get_and_set(const char *p) {
    zhandle_t *zh = plain_client();
    char data[64];
    int length = sizeof data;
    struct Stat s;
    plain_create(zh, p, NULL, 0);
    ok(zoo_get(zh, p, 0, data, &length, &s));
    same(length, -1); /* null */
    ok(zoo_set(zh, p, "", 0, 0));
    length = sizeof data;
    ok(zoo_get(zh, p, 0, data, &length, &s));
    same(length, 0); /* empty */
    ok(zoo_set2(zh, p, "hello", 5, 1, &s));
    same(s.version, 2);
    length = sizeof data;
    ok(zoo_get(zh, p, 0, data, &length, &s));
    same(length, 5);
    same(memcmp(data, "hello", 5), 0);
    is(zoo_set(zh, p, "", 0, 1), ZBADVERSION);
    is(zoo_set(zh, text("%s/no", p), "", 0, -1), ZNONODE);
    is(zoo_get(zh, text("%s/no", p), 0, data, &length, &s), ZNONODE);
    is(zoo_exists(zh, text("%s/no", p), 0, &s), ZNONODE);
}

static void large_data(const char *p) {
    zhandle_t *zh = plain_client();
    int size = 1000000, length = size;
    char *data = malloc(size), *back = malloc(size);
    for (int i = 0; i < size; i++)
        data[i] = (char)(i * 31);
    ok(zoo_create(zh, p, data, size, open_acl, 0, NULL, 0));
    ok(zoo_get(zh, p, 0, back, &length, NULL));
    same(length, size);
    same(memcmp(data, back, size), 0);
}

static void delete_(const char *p) {
    zhandle_t *zh = plain_client();
    plain_create(zh, p, "", 0);
    plain_create(zh, text("%s/c", p), "", 0);
    is(zoo_delete(zh, p, -1), ZNOTEMPTY);
    is(zoo_delete(zh, text("%s/c", p), 3), ZBADVERSION);
    ok(zoo_delete(zh, text("%s/c", p), 0));
    is(zoo_delete(zh, text("%s/c", p), -1), ZNONODE);
    same(stat_of(zh, p).cversion, 2);
    is(zoo_delete(zh, "/zookeeper", -1), ZBADARGUMENTS);
}

static void children(const char *p) {
    zhandle_t *zh = plain_client();
    struct String_vector names;
    struct Stat s;
    plain_create(zh, p, "data", 0);
    for (int i = 0; i < 50; i++)
        plain_create(zh, text("%s/n%d", p, i), "", 0);
    ok(zoo_get_children(zh, p, 0, &names));
    same(names.count, 50);
    deallocate_String_vector(&names);
    ok(zoo_get_children2(zh, p, 0, &names, &s));
    same(names.count, 50);
    same(s.numChildren, 50);
    same(s.cversion, 50);
    deallocate_String_vector(&names);
    is(zoo_get_children(zh, text("%s/no", p), 0, &names), ZNONODE);
    is(zoo_get_children2(zh, text("%s/no", p), 0, &names, &s), ZNONODE);
}

static void acls(const char *p) {
    zhandle_t *zh = plain_client();
    struct ACL_vector got;
    struct Stat s;
    plain_create(zh, p, "", 0);
    ok(zoo_get_acl(zh, p, &got, &s));
    same(got.count, 1);
    same(got.data[0].perms, ZOO_PERM_ALL);
    same_text(got.data[0].id.scheme, "world");
    same_text(got.data[0].id.id, "anyone");
    deallocate_ACL_vector(&got);
    struct ACL few[] = {{ZOO_PERM_READ | ZOO_PERM_ADMIN, ZOO_ANYONE_ID_UNSAFE}};
    struct ACL_vector restricted = {1, few};
    ok(zoo_set_acl(zh, p, 0, &restricted));
    same(stat_of(zh, p).aversion, 1);
    is(zoo_set(zh, p, "", 0, -1), ZNOAUTH);
    is(zoo_create(zh, text("%s/c", p), "", 0, open_acl, 0, NULL, 0), ZNOAUTH);
    is(zoo_set_acl(zh, p, 0, open_acl), ZBADVERSION);
    ok(zoo_set_acl(zh, p, 1, open_acl));
    is(zoo_set_acl(zh, text("%s/no", p), -1, open_acl), ZNONODE);
}

static void login(zhandle_t *zh, const char *who) {
    struct answer *a = answer();
    ok(zoo_add_auth(zh, "digest", who, (int)strlen(who), got_void, a));
    ok(await(a));
}

static void authentication(const char *p) {
    zhandle_t *zh = plain_client(), *owner = plain_client(), *root = plain_client();
    char data[64];
    int length = sizeof data;
    struct Stat s;
    struct ACL_vector got;
    login(owner, "user:word");
    ok(zoo_create(owner, p, "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    ok(zoo_get_acl(owner, p, &got, &s));
    same(got.count, 1);
    same_text(got.data[0].id.scheme, "digest");
    same(strncmp(got.data[0].id.id, "user:", 5), 0);
    deallocate_ACL_vector(&got);
    is(zoo_get(zh, p, 0, data, &length, &s), ZNOAUTH);
    is(zoo_exists(zh, p, 0, &s), ZNOAUTH);
    is(zoo_get_acl(zh, p, &got, &s), ZNOAUTH);
    login(zh, "user:word");
    length = sizeof data;
    ok(zoo_get(zh, p, 0, data, &length, &s));
    login(root, "super:secret");
    ok(zoo_delete(root, p, -1));
}

static void failed_authentication(const char *p) {
    (void)p;
    struct journal *j;
    zhandle_t *zh = client("", 10000, NULL, &j);
    struct answer *a = answer();
    ok(zoo_add_auth(zh, "nosuch", "x", 1, got_void, a));
    is(await(a), ZAUTHFAILED);
    wait_state(j, 0, ZOO_AUTH_FAILED_STATE);
    check(is_unrecoverable(zh));
}

static void multi_succeeds(const char *p) {
    zhandle_t *zh = plain_client();
    char a[256], s[256];
    struct Stat stat;
    zoo_op_t ops[6];
    zoo_op_result_t results[6];
    plain_create(zh, p, "", 0);
    zoo_check_op_init(&ops[0], p, 0);
    zoo_create_op_init(&ops[1], text("%s/a", p), NULL, -1, open_acl, ZOO_EPHEMERAL, a, sizeof a);
    zoo_create_op_init(&ops[2], text("%s/s-", p), "", 0, open_acl, ZOO_PERSISTENT_SEQUENTIAL, s, sizeof s);
    zoo_set_op_init(&ops[3], text("%s/a", p), "broker", 6, 0, &stat);
    zoo_create_op_init(&ops[4], text("%s/b", p), "", 0, open_acl, 0, NULL, 0);
    zoo_delete_op_init(&ops[5], text("%s/b", p), 0);
    ok(zoo_multi(zh, 6, ops, results));
    for (int i = 0; i < 6; i++)
        same(results[i].err, ZOK);
    same_text(a, text("%s/a", p));
    same_text(s, text("%s/s-0000000001", p));
    same(stat.version, 1);
    same(stat.ephemeralOwner, zoo_client_id(zh)->client_id);
    same(stat.czxid, stat.mzxid);
}

static void multi_fails(const char *p) {
    zhandle_t *zh = plain_client();
    zoo_op_t ops[4];
    zoo_op_result_t results[4];
    struct Stat s;
    plain_create(zh, p, "", 0);
    zoo_create_op_init(&ops[0], text("%s/a", p), "", 0, open_acl, 0, NULL, 0);
    zoo_check_op_init(&ops[1], p, 5);
    zoo_delete_op_init(&ops[2], p, -1);
    zoo_create_op_init(&ops[3], text("%s/b", p), "", 0, open_acl, 0, NULL, 0);
    is(zoo_multi(zh, 4, ops, results), ZBADVERSION);
    same(results[0].err, ZOK);
    same(results[1].err, ZBADVERSION);
    same(results[2].err, ZRUNTIMEINCONSISTENCY);
    same(results[3].err, ZRUNTIMEINCONSISTENCY);
    is(zoo_exists(zh, text("%s/a", p), 0, &s), ZNONODE);
}

static void asynchronous_forms(const char *p) {
    zhandle_t *zh = plain_client();
    struct answer *a;
    const char *c = text("%s/c", p);
#define call(what) \
    do { \
        a = answer(); \
        ok(what); \
        ok(await(a)); \
    } while (0)
    call(zoo_acreate(zh, p, "one", 3, open_acl, 0, got_string, a));
    same_text(a->string, p);
    call(zoo_acreate2(zh, c, "", 0, open_acl, ZOO_EPHEMERAL, got_string_stat, a));
    same_text(a->string, c);
    same(a->stat.ephemeralOwner, zoo_client_id(zh)->client_id);
    call(zoo_acreate_ttl(zh, text("%s/t", p), "", 0, open_acl, ZOO_PERSISTENT_WITH_TTL, 3600000, got_string, a));
    call(zoo_acreate2_ttl(zh, text("%s/u", p), "", 0, open_acl, ZOO_PERSISTENT_WITH_TTL, 3600000, got_string_stat, a));
    call(zoo_adelete(zh, text("%s/u", p), -1, got_void, a));
    call(zoo_aexists(zh, p, 0, got_stat, a));
    same(a->stat.numChildren, 2);
    call(zoo_aget(zh, p, 0, got_data, a));
    same(a->length, 3);
    same(memcmp(a->data, "one", 3), 0);
    call(zoo_aset(zh, p, "three", 5, 0, got_stat, a));
    same(a->stat.version, 1);
    call(zoo_aget_children(zh, p, 0, got_strings, a));
    same(a->names, 2);
    call(zoo_aget_children2(zh, p, 0, got_strings_stat, a));
    same(a->names, 2);
    same(a->stat.version, 1);
    call(zoo_aget_acl(zh, p, got_acl, a));
    same(a->acls, 1);
    call(zoo_aset_acl(zh, p, 0, (struct ACL_vector *)open_acl, got_void, a));
    call(zoo_async(zh, p, got_string, a));
    same_text(a->string, p);
    zoo_op_t ops[2];
    zoo_op_result_t results[2];
    zoo_delete_op_init(&ops[0], c, -1);
    zoo_delete_op_init(&ops[1], text("%s/t", p), -1);
    call(zoo_amulti(zh, 2, ops, results, got_void, a));
#undef call
    a = answer();
    ok(zoo_adelete(zh, c, -1, got_void, a));
    is(await(a), ZNONODE);
    a = answer();
    ok(zoo_aget(zh, c, 0, got_data, a));
    is(await(a), ZNONODE);
}

static void pipeline_keeps_order(const char *p) {
    zhandle_t *zh = plain_client();
    enum { COUNT = 500 };
    struct answer *writes[COUNT], *reads[COUNT];
    plain_create(zh, p, "", 0);
    for (int i = 0; i < COUNT; i++) {
        ok(zoo_acreate(zh, text("%s/n-", p), "", 0, open_acl, ZOO_PERSISTENT_SEQUENTIAL, got_string, writes[i] = answer()));
        ok(zoo_aexists(zh, p, 0, got_stat, reads[i] = answer()));
    }
    for (int i = 0; i < COUNT; i++) {
        ok(await(writes[i]));
        ok(await(reads[i]));
        same_text(writes[i]->string, text("%s/n-%010d", p, i));
        same(reads[i]->stat.numChildren, i + 1);
    }
}

static void chroot_(const char *p) {
    zhandle_t *zh = plain_client();
    plain_create(zh, p, "", 0);
    zhandle_t *inside = client(p, 10000, NULL, NULL);
    char made[256];
    ok(zoo_create(inside, "/a", "x", 1, open_acl, 0, made, sizeof made));
    same_text(made, "/a");
    same(stat_of(zh, text("%s/a", p)).dataLength, 1);
    struct journal *j = journal();
    struct Stat s;
    ok(zoo_wexists(inside, "/a", note, j, &s));
    ok(zoo_set(zh, text("%s/a", p), "", 0, -1));
    expect_event(j, 0, ZOO_CHANGED_EVENT, "/a");
    struct String_vector names;
    ok(zoo_get_children(inside, "/", 0, &names));
    same(names.count, 1);
    same_text(names.data[0], "a");
    struct answer *a = answer();
    ok(zoo_async(inside, "/a", got_string, a));
    ok(await(a));
    same_text(a->string, "/a");
}

static void configuration(const char *p) {
    (void)p;
    zhandle_t *zh = plain_client();
    char data[4096];
    int length = sizeof data;
    struct Stat s;
    ok(zoo_getconfig(zh, 0, data, &length, &s)); /* a standalone server's is empty */
    check(length <= 0);
    length = sizeof data;
    is(zoo_reconfig(zh, "server.9=127.0.0.1:1:2;3", NULL, NULL, -1, data, &length, &s), ZRECONFIGDISABLED);
    ok(zoo_exists(zh, "/", 0, &s));
}

/* The client's own command line. */
static int cli_in, cli_out;
static char cli_seen[1 << 16];

static void cli(const char *command, const char *wanted) {
    dprintf(cli_in, "%s\n", command);
    size_t have = 0;
    while (!strstr(cli_seen, wanted)) {
        ssize_t got = have < sizeof cli_seen - 1 ? read(cli_out, cli_seen + have, sizeof cli_seen - 1 - have) : 0;
        if (got <= 0)
            fail("'%s' did not print '%s'", command, wanted);
        have += got;
        cli_seen[have] = 0;
    }
    cli_seen[0] = 0;
}

static void command_line(const char *p) {
    int to[2], from[2];
    check(!pipe(to) && !pipe(from));
    pid_t child = fork();
    if (child == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        dup2(from[1], 2);
        close(to[1]);
        close(from[0]);
        alarm(LIMIT - 5);
        execl("/usr/lib/zookeeper/bin/cli_mt", "cli_mt", "-h", servers, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    cli_in = to[1];
    cli_out = from[0];
    cli(text("create %s", p), text("[%s]: rc = 0\n", p));
    cli(text("create +s %s/s-", p), text("name = %s/s-0000000000", p));
    cli(text("create +e %s/e", p), text("name = %s/e\n", p));
    cli(text("create2 +c %s/c", p), text("name = %s/c\n", p));
    cli(text("set %s hello", p), text("%s: rc = 0 Stat:\n", p));
    cli(text("get %s", p), "hello");
    cli(text("ls %s", p), "\ts-0000000000");
    cli(text("ls2 %s", p), "\te\n");
    cli(text("create %s/s-0000000000", p), "rc = -110");
    cli(text("delete %s", p), text("%s: rc = -111", p));
    cli(text("delete %s/s-0000000000", p), text("%s/s-0000000000: rc = 0\n", p));
    cli(text("sync %s", p), text("name = %s", p));
    cli("quit", "Quitting...");
    int status;
    same(waitpid(child, &status, 0), child);
    same(status, 0);
    struct Stat s;
    is(zoo_exists(plain_client(), text("%s/e", p), 0, &s), ZNONODE);
}

const struct test operations[] = {
    {"create", create},
    {"create2", create2},
    {"create_container", create_container},
    {"create_ttl", create_ttl},
    {"get_and_set", get_and_set},
    {"large_data", large_data},
    {"delete", delete_},
    {"children", children},
    {"acls", acls},
    {"authentication", authentication},
    {"failed_authentication", failed_authentication},
    {"multi_succeeds", multi_succeeds},
    {"multi_fails", multi_fails},
    {"asynchronous_forms", asynchronous_forms},
    {"pipeline_keeps_order", pipeline_keeps_order},
    {"chroot", chroot_},
    {"configuration", configuration},
    {"command_line", command_line},
    {NULL, NULL},
};
