/* What every test of the C suite stands on. Each test runs in a process of its own. */
#pragma once
#define _GNU_SOURCE
#define THREADED /* shows the synchronous calls */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

#define LIMIT (25 * slow) /* seconds for one test */
#define WAIT (10 * slow)  /* seconds for one condition */

extern const char *servers;
extern int slow; /* multiplies every limit */

typedef void (*test_fn)(const char *p); /* p: a node of the test's own, which does not exist yet */
struct test {
    const char *name;
    test_fn run;
};
extern const struct test operations[], watches[], sessions[]; /* each ends with a null name */

/* Ends the test; what stays unmet is its reason. */
void fail_at(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
#define fail(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define check(condition) \
    do { \
        if (!(condition)) \
            fail("not true: %s", #condition); \
    } while (0)
#define same(got, wanted) \
    do { \
        long long got_ = (long long)(got), wanted_ = (long long)(wanted); \
        if (got_ != wanted_) \
            fail("%s: got %lld, wanted %lld", #got, got_, wanted_); \
    } while (0)
#define same_text(got, wanted) \
    do { \
        const char *got_ = (got), *wanted_ = (wanted); \
        if (!got_ || strcmp(got_, wanted_)) \
            fail("%s: got '%s', wanted '%s'", #got, got_ ? got_ : "(null)", wanted_); \
    } while (0)
#define is(call, code) same(call, code)
#define ok(call) same(call, ZOK)

/* Text made of a format; it lives as long as the test. */
char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Everything a watcher saw, in order. */
struct event {
    int type, state;
    char path[512];
};
struct journal {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count;
    struct event events[64];
};
struct journal *journal(void);
void note(zhandle_t *zh, int type, int state, const char *path, void *journal); /* the watcher function */
void note_node(zhandle_t *zh, int type, int state, const char *path, void *journal); /* without the session's events */
void expect_event(struct journal *j, int index, int type, const char *path);    /* waits for the index-th event */
void expect_count(struct journal *j, int count);                                /* now, without waiting */
int wait_state(struct journal *j, int from, int state); /* waits for a session event; gives the index after it */

/* A connected client and its session's journal. */
zhandle_t *client(const char *chroot, int timeout_ms, const clientid_t *id, struct journal **j);
zhandle_t *plain_client(void);
void leave(zhandle_t *zh); /* an orderly end before the test's own */

/* The answer of one asynchronous call. */
struct answer {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    int rc;
    char string[512];
    char data[4096];
    int length, names, acls;
    struct Stat stat;
};
struct answer *answer(void);
void got_void(int rc, const void *a);
void got_stat(int rc, const struct Stat *stat, const void *a);
void got_data(int rc, const char *value, int length, const struct Stat *stat, const void *a);
void got_strings(int rc, const struct String_vector *names, const void *a);
void got_strings_stat(int rc, const struct String_vector *names, const struct Stat *stat, const void *a);
void got_string(int rc, const char *value, const void *a);
void got_string_stat(int rc, const char *value, const struct Stat *stat, const void *a);
void got_acl(int rc, struct ACL_vector *acl, struct Stat *stat, const void *a);
int await(struct answer *a); /* gives its code */

bool same_stat(const struct Stat *a, const struct Stat *b);
void control(const char *verb);
int again(int rc); /* true while a call failed for want of a connection */
char *plain_create(zhandle_t *zh, const char *path, const char *value, int mode);
