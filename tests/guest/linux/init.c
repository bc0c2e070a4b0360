/*
 * Linux test guest: process 1, a memory writer that checks its own memory
 *
 * Statically linked, alone in the initramfs.  Settings come from the kernel
 * command line (see build.sh); output goes to the console:
 *
 *   TLM-GUEST-START ws=MiB threads=N pattern=P rate=R words=W
 *   TLM-GUEST beat=N ms=CLOCK passes=N pages=N scans=N
 *   TLM-GUEST-CORRUPT page=N word=N want=X got=X counter=N
 *   TLM-GUEST-CHURN rounds=N
 *   TLM-GUEST-DISK requests=N
 *
 * passes, scans and requests are those of the slowest thread.  After a mismatch
 * the writers stop and the message is repeated, so that it cannot be missed.
 *
 * As in the firmware-ROM guest each page carries values computed from page
 * number and counter, and a table outside the set holds the counter each
 * page should have: a page that is consistent but old is found as well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE_SIZE 4096
#define PAGE_WORDS (PAGE_SIZE / sizeof(uint64_t))
#define BATCH 64                /* pages between two looks at the clock */
#define MAX_THREADS 64
#define DISK_BLOCKS 256         /* of 4 KiB, for each thread */

typedef struct Settings {
    uint64_t ws;                /* MiB */
    uint64_t rate;              /* pages/s, all threads together; 0: no limit */
    uint64_t threads;
    uint64_t hot;               /* percent of the set that is hot */
    uint64_t share;             /* percent of the writes that go there */
    uint64_t words;             /* words written and checked per page */
    uint64_t beat;              /* ms */
    uint64_t scan;              /* ms between two scans; 0: none */
    uint64_t start;             /* ms to wait before the first write */
    uint64_t litter;            /* MiB to fill and give back before that */
    uint64_t churn;             /* MiB to take, fill, check and give back,
                                   again and again */
    uint64_t disk;              /* threads that write to the disk and check
                                   what they read back */
    char pattern[16];           /* seq, uniform, hotcold */
} Settings;

static Settings settings = {
    .ws = 64, .threads = 1, .hot = 10, .share = 90, .words = 2,
    .beat = 100, .scan = 2000, .pattern = "seq",
};

typedef struct Writer {
    pthread_t thread;
    uint64_t first, num;        /* share of the set, in pages */
    uint64_t hot_num;
    uint64_t cursor;
    uint64_t random;
    _Atomic uint64_t pages, passes, scans;
} Writer;

typedef struct DiskUser {
    pthread_t thread;
    _Atomic uint64_t requests;
} DiskUser;

static Writer writers[MAX_THREADS];
static DiskUser disk_users[MAX_THREADS];
static uint64_t *memory;
static uint32_t *table;
static uint64_t num_pages;
static atomic_bool stop;
static char corrupt[256];       /* set before stop */
static pthread_mutex_t corrupt_lock = PTHREAD_MUTEX_INITIALIZER;

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* One write() a line: lines of threads and of the kernel do not mix */
__attribute__((format(printf, 1, 2)))
static void say(const char *fmt, ...)
{
    char line[512];
    va_list ap;
    int len;

    va_start(ap, fmt);
    len = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (write(STDOUT_FILENO, line, len) != len) {
        /* no console, nobody to tell */
        return;
    }
}

_Noreturn static void die(const char *what)
{
    say("TLM-GUEST-FAILED %s\n", what);
    for (;;) {
        pause();
    }
}

static void parse_settings(void)
{
    static const struct {
        const char *name;
        uint64_t *value;
    } numbers[] = {
        { "ws", &settings.ws },
        { "rate", &settings.rate },
        { "threads", &settings.threads },
        { "hot", &settings.hot },
        { "share", &settings.share },
        { "words", &settings.words },
        { "beat", &settings.beat },
        { "scan", &settings.scan },
        { "start", &settings.start },
        { "litter", &settings.litter },
        { "churn", &settings.churn },
        { "disk", &settings.disk },
    };
    char line[2048] = "", *word, *save, *value;
    FILE *f = fopen("/proc/cmdline", "r");
    size_t i;

    if (!f || !fgets(line, sizeof(line), f)) {
        die("cannot read /proc/cmdline");
    }
    fclose(f);
    for (word = strtok_r(line, " \n", &save); word;
         word = strtok_r(NULL, " \n", &save)) {
        if (strncmp(word, "tlm.", 4)) {
            continue;
        }
        word += 4;
        value = strchr(word, '=');
        if (!value) {
            die("a setting has no value");
        }
        *value++ = 0;
        if (!strcmp(word, "pattern")) {
            snprintf(settings.pattern, sizeof(settings.pattern), "%s", value);
            continue;
        }
        for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
            if (!strcmp(word, numbers[i].name)) {
                break;
            }
        }
        if (i == sizeof(numbers) / sizeof(numbers[0])) {
            die("unknown setting");
        }
        *numbers[i].value = strtoull(value, NULL, 10);
    }
    if (strcmp(settings.pattern, "seq") && strcmp(settings.pattern, "uniform") &&
        strcmp(settings.pattern, "hotcold")) {
        die("unknown pattern");
    }
    if (!settings.ws || !settings.threads || settings.threads > MAX_THREADS ||
        settings.disk > MAX_THREADS ||
        !settings.beat || settings.hot > 100 || settings.share > 100 ||
        settings.words < 2 || settings.words > PAGE_WORDS) {
        die("a setting is out of range");
    }
}

/* 0 for counter 0: a page never written is right as well */
static inline uint64_t word_value(uint64_t page, uint32_t counter, unsigned i)
{
    uint64_t x = (page * 2 + 1) * counter * UINT64_C(0x9e3779b97f4a7c15);

    return x ^ (x >> 29) * i;
}

/* The words used are spread from the first to the last of the page */
static inline unsigned word_index(unsigned i)
{
    return i * (PAGE_WORDS - 1) / (settings.words - 1);
}

static bool check_page(uint64_t page)
{
    volatile uint64_t *p = memory + page * PAGE_WORDS;
    uint32_t counter = table[page];
    uint64_t want, got;
    unsigned i;

    for (i = 0; i < settings.words; i++) {
        want = word_value(page, counter, i);
        got = p[word_index(i)];
        if (got != want) {
            pthread_mutex_lock(&corrupt_lock);
            if (!corrupt[0]) {
                snprintf(corrupt, sizeof(corrupt), "TLM-GUEST-CORRUPT"
                         " page=%" PRIu64 " word=%u want=%" PRIx64
                         " got=%" PRIx64 " counter=%u\n",
                         page, word_index(i), want, got, counter);
            }
            pthread_mutex_unlock(&corrupt_lock);
            atomic_store(&stop, true);
            return false;
        }
    }
    return true;
}

static bool rewrite_page(uint64_t page)
{
    volatile uint64_t *p = memory + page * PAGE_WORDS;
    uint32_t counter = table[page] + 1;
    unsigned i;

    if (!check_page(page)) {
        return false;
    }
    for (i = 0; i < settings.words; i++) {
        p[word_index(i)] = word_value(page, counter, i);
    }
    table[page] = counter;
    return true;
}

static uint64_t next_random(Writer *w, uint64_t below)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (w->random >> 32) * below >> 32;
}

static uint64_t next_page(Writer *w)
{
    uint64_t page;

    switch (settings.pattern[0]) {
    case 'u':
        return w->first + next_random(w, w->num);
    case 'h':
        if (w->hot_num == w->num ||
            next_random(w, 100) < settings.share) {
            return w->first + next_random(w, w->hot_num);
        }
        return w->first + w->hot_num + next_random(w, w->num - w->hot_num);
    default:
        page = w->first + w->cursor;
        w->cursor = (w->cursor + 1) % w->num;
        return page;
    }
}

static void *writer_main(void *opaque)
{
    Writer *w = opaque;
    int64_t now, next_scan, next_write, ns = 0;
    uint64_t i, in_pass = 0, batch = BATCH;

    if (settings.rate) {
        while (batch > 1 && settings.rate / settings.threads / batch < 100) {
            batch /= 2;
        }
        ns = INT64_C(1000000000) * batch * settings.threads / settings.rate;
    }
    for (i = 0; i < w->num && !atomic_load(&stop); i++) {
        if (!rewrite_page(w->first + i)) {
            return NULL;
        }
        atomic_fetch_add(&w->pages, 1);
    }
    next_write = now_ns();
    next_scan = next_write + settings.scan * 1000000;
    while (!atomic_load(&stop)) {
        for (i = 0; i < batch; i++) {
            if (!rewrite_page(next_page(w))) {
                return NULL;
            }
        }
        atomic_fetch_add(&w->pages, batch);
        in_pass += batch;
        if (in_pass >= w->num) {
            in_pass -= w->num;
            atomic_fetch_add(&w->passes, 1);
        }
        now = now_ns();
        if (settings.scan && now >= next_scan) {
            for (i = 0; i < w->num && !atomic_load(&stop); i++) {
                if (!check_page(w->first + i)) {
                    return NULL;
                }
            }
            atomic_fetch_add(&w->scans, 1);
            now = now_ns();
            next_scan = now + settings.scan * 1000000;
        }
        if (ns) {
            struct timespec ts;

            next_write += ns;
            if (now > next_write + 20000000) {
                next_write = now;       /* no burst to catch up */
            }
            ts.tv_sec = next_write / 1000000000;
            ts.tv_nsec = next_write % 1000000000;
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
        }
    }
    return NULL;
}

/* Whatever the initramfs has in /modules, in any order */
static void load_modules(void)
{
    DIR *dir = opendir("/modules");
    struct dirent *e;
    char path[512];
    int fd;

    while (dir && (e = readdir(dir))) {
        if (e->d_name[0] == '.') {
            continue;
        }
        snprintf(path, sizeof(path), "/modules/%s", e->d_name);
        fd = open(path, O_RDONLY);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0)) {
            die("cannot load a kernel module");
        }
        close(fd);
    }
    if (dir) {
        closedir(dir);
    }
}

static void *allocate(size_t size, const char *what)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        die(what);
    }
    return p;
}

/* Free memory that is not zero, and that the host has populated */
static void litter(void)
{
    size_t size = settings.litter << 20;
    void *p;

    if (size) {
        p = allocate(size, "no memory to litter");
        memset(p, 0xa5, size);
        munmap(p, size);
    }
}

/* Memory that was free takes data, and is checked before it is free again */
static void *churn_main(void *opaque)
{
    uint64_t words = (settings.churn << 20) / sizeof(uint64_t);
    uint64_t round, i, got = 0;
    uint64_t *p;

    for (round = 1; !atomic_load(&stop); round++) {
        p = allocate(words * sizeof(*p), "no memory to churn");
        for (i = 0; i < words; i += 64) {
            p[i] = word_value(i, round, 1);
        }
        usleep(50000);
        for (i = 0; i < words; i += 64) {
            got = p[i];
            if (got != word_value(i, round, 1)) {
                break;
            }
        }
        if (i < words) {
            pthread_mutex_lock(&corrupt_lock);
            if (!corrupt[0]) {
                snprintf(corrupt, sizeof(corrupt), "TLM-GUEST-CORRUPT"
                         " churn=%" PRIu64 " word=%" PRIu64 " want=%" PRIx64
                         " got=%" PRIx64 "\n", round, i,
                         word_value(i, round, 1), got);
            }
            pthread_mutex_unlock(&corrupt_lock);
            atomic_store(&stop, true);
        } else {
            say("TLM-GUEST-CHURN rounds=%" PRIu64 "\n", round);
        }
        munmap(p, words * sizeof(*p));
    }
    return NULL;
}

/*
 * One request at a time, past the guest's cache: a block of this thread's
 * own is written, or read and compared with what was written last.  Into the
 * memory that it is read to nobody writes but the disk.
 */
static void *disk_main(void *opaque)
{
    DiskUser *d = opaque;
    uint64_t random = UINT64_C(0x9e3779b97f4a7c15) * (d - disk_users + 1);
    uint32_t counters[DISK_BLOCKS] = {};
    uint64_t *out = allocate(PAGE_SIZE, "no memory for the disk");
    uint64_t *in = allocate(DISK_BLOCKS * PAGE_SIZE, "no memory for the disk");
    uint64_t block, page, want, *p;
    off_t at;
    int fd = open("/dev/vda", O_RDWR | O_DIRECT);

    if (fd < 0) {
        die("no disk");
    }
    while (!atomic_load(&stop)) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        block = (random >> 32) % DISK_BLOCKS;
        page = (d - disk_users) * DISK_BLOCKS + block;
        at = page * PAGE_SIZE;
        if (random & 1 || !counters[block]) {
            out[0] = out[PAGE_WORDS - 1] =
                word_value(page, ++counters[block], 1);
            if (pwrite(fd, out, PAGE_SIZE, at) != PAGE_SIZE) {
                die("cannot write to the disk");
            }
        } else {
            p = in + block * PAGE_WORDS;
            if (pread(fd, p, PAGE_SIZE, at) != PAGE_SIZE) {
                die("cannot read from the disk");
            }
            want = word_value(page, counters[block], 1);
            if (p[0] != want || p[PAGE_WORDS - 1] != want) {
                pthread_mutex_lock(&corrupt_lock);
                if (!corrupt[0]) {
                    snprintf(corrupt, sizeof(corrupt), "TLM-GUEST-CORRUPT"
                             " disk=%" PRIu64 " want=%" PRIx64 " got=%" PRIx64
                             " %" PRIx64 "\n", page, want, p[0],
                             p[PAGE_WORDS - 1]);
                }
                pthread_mutex_unlock(&corrupt_lock);
                atomic_store(&stop, true);
            }
        }
        atomic_fetch_add(&d->requests, 1);
    }
    return NULL;
}

int main(void)
{
    pthread_t churner;
    uint64_t beat, i;
    int64_t next;
    int fd;

    mkdir("/dev", 0755);
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    fd = open("/dev/console", O_RDWR);
    if (fd >= 0) {
        dup2(fd, STDIN_FILENO);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
    }
    parse_settings();
    load_modules();

    num_pages = settings.ws * (1048576 / PAGE_SIZE);
    if (num_pages < settings.threads) {
        die("fewer pages than threads");
    }
    memory = allocate(num_pages * PAGE_SIZE, "no memory for the working set");
    table = allocate(num_pages * sizeof(*table), "no memory for the table");
    say("TLM-GUEST-START ws=%" PRIu64 " threads=%" PRIu64 " pattern=%s rate=%"
        PRIu64 " words=%" PRIu64 "\n", settings.ws, settings.threads,
        settings.pattern, settings.rate, settings.words);
    usleep(settings.start * 1000);
    litter();
    if (settings.churn &&
        pthread_create(&churner, NULL, churn_main, NULL)) {
        die("cannot start a thread");
    }
    for (i = 0; i < settings.disk; i++) {
        if (pthread_create(&disk_users[i].thread, NULL, disk_main,
                           &disk_users[i])) {
            die("cannot start a thread");
        }
    }

    for (i = 0; i < settings.threads; i++) {
        Writer *w = &writers[i];

        w->first = num_pages * i / settings.threads;
        w->num = num_pages * (i + 1) / settings.threads - w->first;
        w->hot_num = w->num * settings.hot / 100;
        if (!w->hot_num) {
            w->hot_num = 1;
        }
        w->random = UINT64_C(0x9e3779b97f4a7c15) * (i + 1);
        if (pthread_create(&w->thread, NULL, writer_main, w)) {
            die("cannot start a thread");
        }
    }

    next = now_ns();
    for (beat = 1; ; beat++) {
        uint64_t pages = 0, passes = UINT64_MAX, scans = UINT64_MAX;
        struct timespec ts;

        next += settings.beat * 1000000;
        if (next < now_ns()) {
            next = now_ns();
        }
        ts.tv_sec = next / 1000000000;
        ts.tv_nsec = next % 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
        if (atomic_load(&stop)) {
            say("%s", corrupt);
            sleep(1);
            continue;
        }
        for (i = 0; i < settings.threads; i++) {
            uint64_t n = atomic_load(&writers[i].passes);

            passes = n < passes ? n : passes;
            n = atomic_load(&writers[i].scans);
            scans = n < scans ? n : scans;
            pages += atomic_load(&writers[i].pages);
        }
        say("TLM-GUEST beat=%" PRIu64 " ms=%" PRId64 " passes=%" PRIu64
            " pages=%" PRIu64 " scans=%" PRIu64 "\n", beat,
            now_ns() / 1000000, passes, pages, scans);
        if (settings.disk) {
            uint64_t requests = UINT64_MAX;

            for (i = 0; i < settings.disk; i++) {
                uint64_t n = atomic_load(&disk_users[i].requests);

                requests = n < requests ? n : requests;
            }
            say("TLM-GUEST-DISK requests=%" PRIu64 "\n", requests);
        }
    }
}
