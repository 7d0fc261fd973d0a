/* Watches of each kind, set and removed. */
#include "harness.h"

static void watch_data(const char *p) {
    zhandle_t *zh = plain_client(), *other = plain_client();
    struct journal *j = journal();
    char data[8];
    int length = sizeof data;
    struct Stat s;
    plain_create(other, p, "", 0);
    ok(zoo_wget(zh, p, note, j, data, &length, &s));
    ok(zoo_set(other, p, "1", 1, -1));
    expect_event(j, 0, ZOO_CHANGED_EVENT, p);
    length = sizeof data;
    ok(zoo_wget(zh, p, note, j, data, &length, &s));
    ok(zoo_delete(other, p, -1));
    expect_event(j, 1, ZOO_DELETED_EVENT, p);
    length = sizeof data;
    is(zoo_wget(zh, p, note, j, data, &length, &s), ZNONODE);
    plain_create(other, p, "", 0);
    struct answer *a = answer();
    ok(zoo_async(zh, p, got_string, a));
    ok(await(a));
    expect_count(j, 2); /* a get that failed left no watch */
}

static void watch_exists(const char *p) {
    zhandle_t *zh = plain_client(), *other = plain_client();
    struct journal *j = journal();
    struct Stat s;
    is(zoo_wexists(zh, p, note, j, &s), ZNONODE);
    plain_create(other, p, "", 0);
    expect_event(j, 0, ZOO_CREATED_EVENT, p);
    ok(zoo_wexists(zh, p, note, j, &s));
    ok(zoo_set(other, p, "", 0, -1));
    expect_event(j, 1, ZOO_CHANGED_EVENT, p);
    ok(zoo_wexists(zh, p, note, j, &s));
    ok(zoo_delete(other, p, -1));
    expect_event(j, 2, ZOO_DELETED_EVENT, p);
}

static void watch_children(const char *p) {
    zhandle_t *zh = plain_client(), *other = plain_client();
    struct journal *j = journal();
    struct String_vector names;
    struct Stat s;
    plain_create(other, p, "", 0);
    ok(zoo_wget_children(zh, p, note, j, &names));
    plain_create(other, text("%s/c", p), "", 0);
    expect_event(j, 0, ZOO_CHILD_EVENT, p);
    ok(zoo_wget_children2(zh, p, note, j, &names, &s));
    ok(zoo_delete(other, text("%s/c", p), -1));
    expect_event(j, 1, ZOO_CHILD_EVENT, p);
    ok(zoo_wget_children(zh, p, note, j, &names));
    ok(zoo_delete(other, p, -1));
    expect_event(j, 2, ZOO_DELETED_EVENT, p);
}

static void watch_by_the_default_watcher(const char *p) {
    struct journal *j;
    zhandle_t *zh = client("", 10000, NULL, &j), *other = plain_client();
    int from = wait_state(j, 0, ZOO_CONNECTED_STATE);
    struct Stat s;
    is(zoo_exists(zh, p, 1, &s), ZNONODE);
    plain_create(other, p, "", 0);
    expect_event(j, from, ZOO_CREATED_EVENT, p);
}

static void watch_asynchronously(const char *p) {
    zhandle_t *zh = plain_client(), *other = plain_client();
    struct journal *data = journal(), *there = journal(), *names = journal(), *names2 = journal();
    struct answer *a;
    plain_create(other, p, "", 0);
    ok(zoo_awget(zh, p, note, data, got_data, a = answer()));
    ok(await(a));
    ok(zoo_awget_children(zh, p, note, names, got_strings, a = answer()));
    ok(await(a));
    ok(zoo_awget_children2(zh, p, note, names2, got_strings_stat, a = answer()));
    ok(await(a));
    ok(zoo_awexists(zh, text("%s/c", p), note, there, got_stat, a = answer()));
    is(await(a), ZNONODE);
    plain_create(other, text("%s/c", p), "", 0);
    ok(zoo_set(other, p, "", 0, -1));
    expect_event(there, 0, ZOO_CREATED_EVENT, text("%s/c", p));
    expect_event(names, 0, ZOO_CHILD_EVENT, p);
    expect_event(names2, 0, ZOO_CHILD_EVENT, p);
    expect_event(data, 0, ZOO_CHANGED_EVENT, p);
}

/* A deleted node with a watch for its data and one for its children: each watcher is told once. */
static void watch_of_both_kinds_and_a_delete(const char *p) {
    zhandle_t *zh = plain_client(), *other = plain_client();
    struct journal *data = journal(), *names = journal();
    struct String_vector got;
    struct Stat s;
    char value[8];
    int length = sizeof value;
    plain_create(other, p, "", 0);
    ok(zoo_wget(zh, p, note, data, value, &length, &s));
    ok(zoo_wget_children(zh, p, note, names, &got));
    ok(zoo_delete(other, p, -1));
    expect_event(data, 0, ZOO_DELETED_EVENT, p);
    expect_event(names, 0, ZOO_DELETED_EVENT, p);
    struct answer *a = answer();
    ok(zoo_async(zh, p, got_string, a));
    ok(await(a));
    expect_count(data, 1);
    expect_count(names, 1);
}

static void remove_watches(const char *p) {
    zhandle_t *zh = plain_client(), *other = plain_client();
    struct journal *data = journal(), *names = journal();
    struct String_vector got;
    struct Stat s;
    struct answer *a;
    char value[8];
    int length = sizeof value;
    plain_create(other, p, "", 0);
    ok(zoo_wget(zh, p, note, data, value, &length, &s));
    ok(zoo_wget_children(zh, p, note, names, &got));
    ok(zoo_remove_watches(zh, p, ZWATCHTYPE_DATA, note, data, 0));
    is(zoo_remove_watches(zh, p, ZWATCHTYPE_DATA, note, data, 0), ZNOWATCHER);
    int told = data->count; /* the client itself may tell that the watch is gone */
    ok(zoo_set(other, p, "", 0, -1));
    plain_create(other, text("%s/c", p), "", 0);
    expect_event(names, 0, ZOO_CHILD_EVENT, p);
    same(data->count, told);

    struct journal *more = journal();
    ok(zoo_wexists(zh, p, note, more, &s));
    ok(zoo_wget_children(zh, p, note, more, &got));
    ok(zoo_remove_all_watches(zh, p, ZWATCHTYPE_ANY, 0));
    told = more->count;
    ok(zoo_delete(other, text("%s/c", p), -1));
    ok(zoo_delete(other, p, -1));
    ok(zoo_async(zh, p, got_string, a = answer()));
    ok(await(a));
    same(more->count, told);
    is(zoo_remove_all_watches(zh, p, ZWATCHTYPE_ANY, 0), ZNOWATCHER);
}

const struct test watches[] = {
    {"watch_data", watch_data},
    {"watch_exists", watch_exists},
    {"watch_children", watch_children},
    {"watch_by_the_default_watcher", watch_by_the_default_watcher},
    {"watch_asynchronously", watch_asynchronously},
    {"watch_of_both_kinds_and_a_delete", watch_of_both_kinds_and_a_delete},
    {"remove_watches", remove_watches},
    {NULL, NULL},
};
