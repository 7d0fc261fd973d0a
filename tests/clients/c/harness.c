#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>

const char *servers;
int slow = 1;

static int report = -1; /* where the running test writes its reason */
static zhandle_t *open_clients[32];
static int open_count;

void fail_at(const char *file, int line, const char *format, ...) {
    char said[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(said, sizeof said, format, values);
    va_end(values);
    const char *base = strrchr(file, '/');
    dprintf(report, "%s (%s:%d)", said, base ? base + 1 : file, line);
    _exit(1);
}

char *text(const char *format, ...) {
    char *made = NULL;
    va_list values;
    va_start(values, format);
    if (vasprintf(&made, format, values) < 0)
        abort();
    va_end(values);
    return made;
}

static struct timespec bound(int seconds) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += seconds;
    return end;
}

struct journal *journal(void) {
    struct journal *j = calloc(1, sizeof *j);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->changed, NULL);
    return j;
}

void note(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh;
    struct journal *j = context;
    pthread_mutex_lock(&j->lock);
    if (j->count < 64) {
        struct event *e = &j->events[j->count++];
        e->type = type;
        e->state = state;
        snprintf(e->path, sizeof e->path, "%s", path ? path : "");
    }
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

void note_node(zhandle_t *zh, int type, int state, const char *path, void *context) {
    if (type != ZOO_SESSION_EVENT)
        note(zh, type, state, path, context);
}

void expect_event(struct journal *j, int index, int type, const char *path) {
    struct timespec end = bound(WAIT);
    pthread_mutex_lock(&j->lock);
    while (j->count <= index)
        if (pthread_cond_timedwait(&j->changed, &j->lock, &end))
            fail("no event %d of type %d for %s within %d s", index, type, path, WAIT);
    struct event e = j->events[index];
    pthread_mutex_unlock(&j->lock);
    if (e.type != type || strcmp(e.path, path))
        fail("event %d is type %d of %s, wanted type %d of %s", index, e.type, e.path, type, path);
}

void expect_count(struct journal *j, int count) {
    pthread_mutex_lock(&j->lock);
    int now = j->count;
    pthread_mutex_unlock(&j->lock);
    same(now, count);
}

int wait_state(struct journal *j, int from, int state) {
    struct timespec end = bound(15 * slow);
    pthread_mutex_lock(&j->lock);
    for (int i = from;; i++) {
        while (j->count <= i)
            if (pthread_cond_timedwait(&j->changed, &j->lock, &end))
                fail("state %d not within %d s", state, 15 * slow);
        if (j->events[i].type == ZOO_SESSION_EVENT && j->events[i].state == state) {
            pthread_mutex_unlock(&j->lock);
            return i + 1;
        }
    }
}

zhandle_t *client(const char *chroot, int timeout_ms, const clientid_t *id, struct journal **j) {
    struct journal *own = journal();
    zhandle_t *zh = zookeeper_init(text("%s%s", servers, chroot), note, timeout_ms, id, own, 0);
    if (!zh)
        fail("no handle: %s", strerror(errno));
    wait_state(own, 0, ZOO_CONNECTED_STATE);
    if (j)
        *j = own;
    if (open_count < 32)
        open_clients[open_count++] = zh;
    return zh;
}

zhandle_t *plain_client(void) { return client("", 10000, NULL, NULL); }

void leave(zhandle_t *zh) {
    for (int i = 0; i < open_count; i++)
        if (open_clients[i] == zh)
            open_clients[i] = open_clients[--open_count];
    ok(zookeeper_close(zh));
}

struct answer *answer(void) {
    struct answer *a = calloc(1, sizeof *a);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    return a;
}

static void got(int rc, const char *string, const char *value, int length, const struct Stat *stat, int names, int acls,
                const void *context) {
    struct answer *a = (struct answer *)context;
    pthread_mutex_lock(&a->lock);
    a->rc = rc;
    if (rc == ZOK) {
        if (string)
            snprintf(a->string, sizeof a->string, "%s", string);
        if (value && length > 0 && length < (int)sizeof a->data)
            memcpy(a->data, value, length);
        if (stat)
            a->stat = *stat;
        a->length = length;
        a->names = names;
        a->acls = acls;
    }
    a->done = true;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

void got_void(int rc, const void *a) { got(rc, NULL, NULL, 0, NULL, 0, 0, a); }
void got_stat(int rc, const struct Stat *stat, const void *a) { got(rc, NULL, NULL, 0, stat, 0, 0, a); }
void got_data(int rc, const char *value, int length, const struct Stat *stat, const void *a) {
    got(rc, NULL, value, length, stat, 0, 0, a);
}
void got_strings(int rc, const struct String_vector *names, const void *a) {
    got(rc, NULL, NULL, 0, NULL, names ? names->count : 0, 0, a);
}
void got_strings_stat(int rc, const struct String_vector *names, const struct Stat *stat, const void *a) {
    got(rc, NULL, NULL, 0, stat, names ? names->count : 0, 0, a);
}
void got_string(int rc, const char *value, const void *a) { got(rc, value, NULL, 0, NULL, 0, 0, a); }
void got_string_stat(int rc, const char *value, const struct Stat *stat, const void *a) {
    got(rc, value, NULL, 0, stat, 0, 0, a);
}
void got_acl(int rc, struct ACL_vector *acl, struct Stat *stat, const void *a) {
    got(rc, NULL, NULL, 0, stat, 0, acl ? acl->count : 0, a);
}

int await(struct answer *a) {
    struct timespec end = bound(WAIT);
    pthread_mutex_lock(&a->lock);
    while (!a->done)
        if (pthread_cond_timedwait(&a->changed, &a->lock, &end))
            fail("no answer within %d s", WAIT);
    pthread_mutex_unlock(&a->lock);
    return a->rc;
}

bool same_stat(const struct Stat *a, const struct Stat *b) {
    return a->czxid == b->czxid && a->mzxid == b->mzxid && a->pzxid == b->pzxid && a->ctime == b->ctime &&
           a->mtime == b->mtime && a->version == b->version && a->cversion == b->cversion && a->aversion == b->aversion &&
           a->ephemeralOwner == b->ephemeralOwner && a->dataLength == b->dataLength && a->numChildren == b->numChildren;
}

void control(const char *verb) {
    const char *script = getenv("SERVER_CTL");
    if (!script)
        fail("SERVER_CTL is not set");
    if (system(text("'%s' %s >/dev/null 2>&1", script, verb)))
        fail("%s of the server failed", verb);
}

int again(int rc) {
    if (rc != ZCONNECTIONLOSS && rc != ZOPERATIONTIMEOUT)
        return 0;
    usleep(20000); /* the test's own limit bounds it */
    return 1;
}

char *plain_create(zhandle_t *zh, const char *path, const char *value, int mode) {
    char *made = malloc(1024);
    int rc = zoo_create(zh, path, value, value ? (int)strlen(value) : -1, &ZOO_OPEN_ACL_UNSAFE, mode, made, 1024);
    if (rc != ZOK)
        fail("create of %s: %d", path, rc);
    return made;
}

static int run(const struct test *t) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) /* the server that a test starts must not keep it open */
        abort();
    fflush(stdout);
    struct timespec begun, ended;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        report = ends[1];
        alarm(LIMIT);
        zoo_set_debug_level(0);
        t->run(text("/c-%s", t->name));
        for (int i = 0; i < open_count; i++)
            if (zoo_state(open_clients[i]) == ZOO_CONNECTED_STATE)
                zookeeper_close(open_clients[i]);
        _exit(0);
    }
    close(ends[1]);
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    char reason[1200];
    ssize_t length = read(ends[0], reason, sizeof reason - 1);
    close(ends[0]);
    reason[length > 0 ? length : 0] = 0;
    if (WIFSIGNALED(status)) {
        if (WTERMSIG(status) == SIGALRM)
            snprintf(reason, sizeof reason, "still busy after %d s", LIMIT);
        else
            snprintf(reason, sizeof reason, "ended by signal %d", WTERMSIG(status));
    }
    int failed = status != 0;
    if (failed) {
        printf("FAIL c/%s: %s\n", t->name, reason);
        fflush(stdout);
        const char *script = getenv("SERVER_CTL"); /* it may have left the server down */
        int done = script ? system(text("'%s' pid >/dev/null 2>&1 || '%s' start >/dev/null 2>&1", script, script)) : 0;
        (void)done; /* the next test says so */
    } else {
        printf("PASS c/%s\n", t->name);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    if (getenv("TEST_TIMES"))
        fprintf(stderr, "  %6.2f s %s\n", (ended.tv_sec - begun.tv_sec) + (ended.tv_nsec - begun.tv_nsec) / 1e9, t->name);
    return failed;
}

int main(int count, char **arguments) {
    const char *wanted[64];
    if (getenv("SLOW") && atoi(getenv("SLOW")) > 1)
        slow = atoi(getenv("SLOW"));
    int some = 0, failed = 0;
    for (int i = 1; i < count; i++) {
        if (!strcmp(arguments[i], "--servers") && i + 1 < count)
            servers = arguments[++i];
        else if (some < 64)
            wanted[some++] = arguments[i];
    }
    if (!servers) {
        fprintf(stderr, "usage: suite [NAME...] --servers HOST:PORT\n");
        return 2;
    }
    const struct test *lists[] = {operations, watches, sessions};
    for (int l = 0; l < 3; l++)
        for (const struct test *t = lists[l]; t->name; t++) {
            bool take = !some;
            for (int i = 0; i < some; i++)
                if (wanted[i] && !strcmp(wanted[i], t->name)) {
                    take = true;
                    wanted[i] = NULL;
                }
            if (take)
                failed |= run(t);
        }
    for (int i = 0; i < some; i++)
        if (wanted[i]) {
            printf("FAIL c/%s: no such test\n", wanted[i]);
            failed = 1;
        }
    return failed;
}
