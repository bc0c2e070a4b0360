/*
 * Firmware-ROM test guest: dirties a working set and checks its own memory
 *
 * Every page of the working set holds a counter, a check value computed from
 * page number and counter, and the check value again in its last word.  A
 * table outside the working set holds the counter that each page should have,
 * so that a page that is consistent but *old* is found as well.  A page is
 * checked before every rewrite, and the whole set is scanned now and then.
 * A mismatch is reported on the serial port ("E ...") and in the progress
 * block, and all vCPUs stop.
 *
 * There is no libc, no interrupt and no writable static data.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "layout.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define PAGE_SIZE   4096u
#define LAST_WORD   (PAGE_SIZE / 4 - 1)
#define BATCH       64u         /* pages between two looks at the clock */
#define COM1        0x3f8
#define APIC_ICR    ((volatile u32 *)0xfee00300)

enum { PATTERN_SEQ, PATTERN_UNIFORM, PATTERN_HOTCOLD, PATTERN_WINDOW };

#define FLAG_VERIFY 1u          /* check a page before its rewrite */
#define FLAG_FILL   2u          /* write every page once at the start */
#define FLAG_CLOCK  4u          /* use a kvmclock, which the host looks at */

/* Patched by mkrom.py, which knows the same layout */
struct params {
    char magic[8];
    u32 size;                   /* of this structure */
    u32 start_page;
    u32 ws_pages;
    u32 pattern;
    u32 rate;                   /* pages/s of all vCPUs together; 0: no limit */
    u32 hot_percent;            /* hotcold: size of the hot part;
                                   window: size of the window */
    u32 hot_share;              /* hotcold: percent of writes that go there */
    u32 stride;                 /* seq: pages from one write to the next */
    u32 vcpus;
    u32 heartbeat_ms;
    u32 scan_ms;                /* pause between two scans; 0: no scans */
    u32 tsc_khz;                /* 0: measured with the PIT */
    u32 flags;
    u32 seed;
};

__attribute__((section(".params"), used))
static const volatile struct params params = {
    .magic = { 'T', 'L', 'M', 'R', 'O', 'M', 'P', '1' },
    .size = sizeof(struct params),
};

/* Read by the host; same layout in mkrom.py */
struct vcpu_progress {
    u64 pages;                  /* written since the start */
    u32 passes;                 /* as many pages written as the share has */
    u32 scans;                  /* full scans without a mismatch */
    u32 beats;                  /* heartbeats printed */
    u32 state;
    u32 first_page;             /* of this vCPU's share of the set */
    u32 num_pages;
    u32 unused[8];
};

struct progress {
    u32 magic;                  /* "TLMP" once the guest has started */
    u32 vcpus;
    u32 error;                  /* ERR_* */
    volatile u32 ap_counter;    /* index for the next AP that starts */
    volatile u32 go;            /* APs wait for this */
    volatile u32 serial_lock;
    u32 tsc_khz;
    u32 err_vcpu;
    u32 err_page;               /* page number within the working set */
    u32 err_want;               /* counter wanted */
    u32 err_got;                /* counter, check value, last word found */
    u32 err_check;
    u32 err_last;
    u32 table_base;             /* physical address of the counter table */
    u32 start_page;
    u32 ws_pages;
    u32 unused[48];
    struct vcpu_progress vcpu[MAX_VCPUS];
};

_Static_assert(sizeof(struct vcpu_progress) == 64, "host layout");
_Static_assert(__builtin_offsetof(struct progress, vcpu) == 256, "host layout");
_Static_assert(__builtin_offsetof(struct progress, ap_counter) ==
               PROGRESS_AP_COUNTER, "start.S");

#define PROGRESS_MAGIC 0x504d4c54u    /* "TLMP" */

enum { ERR_NONE, ERR_PAGE, ERR_SCAN, ERR_PARAMS, ERR_VCPUS };
enum { STATE_OFF, STATE_FILL, STATE_RUN, STATE_SCAN, STATE_STOPPED };

#define PROGRESS    ((volatile struct progress *)PROGRESS_BASE)

extern const u8 trampoline[], trampoline_end[];

/* Called from start.S */
void bsp_setup(void);
void worker(u32 cpu);

static inline void outb(u16 port, u8 val)
{
    asm volatile("outb %0, %1" : : "a"(val), "Nd"(port));
}

static inline u8 inb(u16 port)
{
    u8 val;

    asm volatile("inb %1, %0" : "=a"(val) : "Nd"(port));
    return val;
}

static inline u64 rdtsc(void)
{
    u64 val;

    asm volatile("rdtsc" : "=A"(val));
    return val;
}

/* Whether KVM offers MSR_KVM_SYSTEM_TIME_NEW */
static int has_kvmclock(void)
{
    u32 eax = 0x40000000, ebx, ecx = 0, edx;

    asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if (ebx != 0x4b4d564b) {    /* "KVMK" */
        return 0;
    }
    eax = 0x40000001;
    asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return eax >> 3 & 1;
}

static void start_kvmclock(u32 cpu)
{
    asm volatile("wrmsr" : : "c"(0x4b564d01), "d"(0),
                 "a"((CLOCK_BASE + cpu * CLOCK_SIZE) | 1) : "memory");
}

static inline void cpu_pause(void)
{
    asm volatile("pause" : : : "memory");
}

static inline u32 xchg(volatile u32 *p, u32 val)
{
    asm volatile("xchgl %0, %1" : "+r"(val), "+m"(*p) : : "memory");
    return val;
}

/* No libgcc: 64 by 32 bit division in two steps */
static u64 div64(u64 n, u32 d)
{
    u32 hi = n >> 32, lo = n, q_hi = hi / d, rem = hi % d, q_lo;

    asm("divl %4" : "=a"(q_lo), "=d"(rem) : "a"(lo), "d"(rem), "r"(d));
    return (u64)q_hi << 32 | q_lo;
}

/* (a * b) >> 32: scales a random 32-bit number down to 0..b-1 */
static inline u32 scale(u32 a, u32 b)
{
    return ((u64)a * b) >> 32;
}

static void put_char(char c)
{
    outb(COM1, c);
}

static void put_str(const char *s)
{
    while (*s) {
        put_char(*s++);
    }
}

static void put_hex(u64 val)
{
    int shift = 60;

    while (shift && !(val >> shift)) {
        shift -= 4;
    }
    for (; shift >= 0; shift -= 4) {
        put_char("0123456789abcdef"[(val >> shift) & 15]);
    }
}

static void put_field(const char *name, u64 val)
{
    put_str(name);
    put_hex(val);
}

static void serial_lock(void)
{
    while (xchg(&PROGRESS->serial_lock, 1)) {
        cpu_pause();
    }
}

static void serial_unlock(void)
{
    xchg(&PROGRESS->serial_lock, 0);
}

static void fail_setup(u32 error, const char *why)
{
    PROGRESS->error = error;
    put_str("E ");
    put_str(why);
    put_str("\n");
    for (;;) {
        cpu_pause();
    }
}

/* TSC ticks in 4 ms of PIT channel 2 */
static u32 measure_tsc(void)
{
    const u32 count = 4773;     /* at 1193182 Hz */
    u32 patience = 100000000;
    u64 start;

    outb(0x61, (inb(0x61) & ~2) | 1);
    outb(0x43, 0xb0);
    outb(0x42, count & 0xff);
    start = rdtsc();            /* before the PIT starts */
    outb(0x42, count >> 8);
    while (!(inb(0x61) & 0x20)) {
        if (!--patience) {
            fail_setup(ERR_PARAMS, "the PIT does not run");
        }
    }
    return rdtsc() - start;
}

/*
 * TSC ticks per ms.  A host that takes the CPU away in the middle makes a
 * measurement too long, never too short: the shortest counts.
 */
static u32 measure_tsc_khz(void)
{
    u32 i, best = ~0u, ticks;

    for (i = 0; i < 10; i++) {
        ticks = measure_tsc();
        if (ticks < best) {
            best = ticks;
        }
    }
    return best / 4;
}

static void delay_ms(u32 ms)
{
    u64 end = rdtsc() + (u64)ms * PROGRESS->tsc_khz;

    while (rdtsc() < end) {
        cpu_pause();
    }
}

/* RAM below 4 GiB as the machine tells it in CMOS; 64 KiB units from 16 MiB */
static u32 ram_end_page(void)
{
    u32 units;

    outb(0x70, 0x34);
    units = inb(0x71);
    outb(0x70, 0x35);
    units |= inb(0x71) << 8;
    return (16u << 20) / PAGE_SIZE + units * (65536 / PAGE_SIZE);
}

/* Startup of the other vCPUs: INIT, startup IPI, to all but this one */
static void start_aps(u32 vcpus)
{
    volatile u8 *ram = (volatile u8 *)TRAMPOLINE_BASE;
    u32 i, waited;

    for (i = 0; i < (u32)(trampoline_end - trampoline); i++) {
        ram[i] = trampoline[i];
    }
    *APIC_ICR = 0x000c4500;
    delay_ms(10);
    *APIC_ICR = 0x000c4600 | (TRAMPOLINE_BASE >> 12);
    for (waited = 0; PROGRESS->ap_counter < vcpus; waited++) {
        if (waited == 10000) {
            fail_setup(ERR_VCPUS, "fewer vCPUs than expected");
        }
        delay_ms(1);
    }
}

static inline u32 *page_address(u32 start_page, u32 page)
{
    return (u32 *)((start_page + page) * PAGE_SIZE);
}

/* A reset of the machine leaves RAM as it was: not corruption, just old */
static void clear_set(void)
{
    u32 *table = (u32 *)PROGRESS->table_base, *page, i;

    for (i = 0; i < params.ws_pages; i++) {
        page = page_address(params.start_page, i);
        page[0] = page[1] = page[LAST_WORD] = 0;
        table[i] = 0;
    }
}

void bsp_setup(void)
{
    volatile u32 *p = (volatile u32 *)PROGRESS_BASE;
    u32 table_pages = (params.ws_pages + 1023) / 1024;
    u32 i, reset;

    reset = PROGRESS->magic == PROGRESS_MAGIC;
    for (i = 0; i < sizeof(struct progress) / 4; i++) {
        p[i] = 0;
    }
    PROGRESS->vcpus = params.vcpus;
    PROGRESS->ap_counter = 1;
    PROGRESS->start_page = params.start_page;
    PROGRESS->ws_pages = params.ws_pages;
    PROGRESS->table_base = (params.start_page + params.ws_pages) * PAGE_SIZE;
    if (!params.vcpus || params.vcpus > MAX_VCPUS ||
        params.ws_pages < params.vcpus || params.start_page < 256 ||
        params.start_page + params.ws_pages + table_pages > ram_end_page()) {
        fail_setup(ERR_PARAMS, "the working set does not fit into RAM");
    }
    PROGRESS->tsc_khz = params.tsc_khz ? params.tsc_khz : measure_tsc_khz();
    if (params.flags & FLAG_CLOCK && !has_kvmclock()) {
        fail_setup(ERR_PARAMS, "no kvmclock");
    }
    if (params.vcpus > 1) {
        start_aps(params.vcpus);
    }
    if (reset) {
        clear_set();
    }
    put_field("TLM-ROM vcpus=", params.vcpus);
    put_field(" pages=", params.ws_pages);
    put_field(" pattern=", params.pattern);
    put_field(" rate=", params.rate);
    put_field(" tsc_khz=", PROGRESS->tsc_khz);
    put_str("\n");
    PROGRESS->magic = PROGRESS_MAGIC;
    PROGRESS->go = 1;
}

/* 0 for counter 0, so that a page never written is right as well */
static inline u32 check_value(u32 page, u32 counter)
{
    return (page * 2 + 1) * counter * 0x9e3779b1u;
}

static void report_mismatch(u32 cpu, u32 error, u32 page, u32 want)
{
    volatile u32 *p = page_address(params.start_page, page);

    serial_lock();
    if (!PROGRESS->error) {
        PROGRESS->err_vcpu = cpu;
        PROGRESS->err_page = page;
        PROGRESS->err_want = want;
        PROGRESS->err_got = p[0];
        PROGRESS->err_check = p[1];
        PROGRESS->err_last = p[LAST_WORD];
        /* last: the host, and the other vCPUs, look at this one first */
        PROGRESS->error = error;
        put_field("E vcpu=", cpu);
        put_field(" page=", page);
        put_field(" addr=", (u32)p);
        put_field(" want=", want);
        put_field(" got=", p[0]);
        put_field(" check=", p[1]);
        put_field(" last=", p[LAST_WORD]);
        put_field(" wantcheck=", check_value(page, want));
        put_str("\n");
    }
    serial_unlock();
}

struct state {
    u32 cpu;
    u32 first, num;             /* this vCPU's share */
    u32 start_page;
    u32 *table;
    u32 verify;
    u32 pattern, stride;
    u32 hot_pages, hot_share;   /* share: of 2^32 */
    u32 cursor;
    u32 random;
    u64 in_pass;
};

static inline u32 next_random(struct state *s)
{
    /* xorshift32 */
    s->random ^= s->random << 13;
    s->random ^= s->random >> 17;
    s->random ^= s->random << 5;
    return s->random;
}

/* Checks a page against the table and writes its next version */
static inline int rewrite(struct state *s, u32 page)
{
    u32 *p = page_address(s->start_page, page);
    u32 counter = s->table[page];
    u32 check;

    if (s->verify) {
        check = check_value(page, counter);
        if (p[0] != counter || p[1] != check || p[LAST_WORD] != check) {
            report_mismatch(s->cpu, ERR_PAGE, page, counter);
            return -1;
        }
    }
    counter++;
    check = check_value(page, counter);
    p[0] = counter;
    p[1] = check;
    p[LAST_WORD] = check;
    s->table[page] = counter;
    return 0;
}

static inline u32 next_page(struct state *s)
{
    u32 page;

    switch (s->pattern) {
    case PATTERN_UNIFORM:
        return s->first + scale(next_random(s), s->num);
    case PATTERN_HOTCOLD:
        if (next_random(s) <= s->hot_share || s->hot_pages == s->num) {
            return s->first + scale(next_random(s), s->hot_pages);
        }
        return s->first + s->hot_pages +
               scale(next_random(s), s->num - s->hot_pages);
    case PATTERN_WINDOW:
        page = s->cursor + scale(next_random(s), s->hot_pages);
        return s->first + (page < s->num ? page : page - s->num);
    default:
        page = s->first + s->cursor;
        s->cursor += s->stride;
        if (s->cursor >= s->num) {
            /* the next residue, so that any stride visits every page */
            s->cursor = s->cursor % s->stride + 1;
            if (s->cursor >= s->stride || s->cursor >= s->num) {
                s->cursor = 0;
            }
        }
        return page;
    }
}

static int scan(struct state *s)
{
    u32 i, page, counter, check, *p;

    for (i = 0; i < s->num; i++) {
        page = s->first + i;
        p = page_address(s->start_page, page);
        counter = s->table[page];
        check = check_value(page, counter);
        if (p[0] != counter || p[1] != check || p[LAST_WORD] != check) {
            report_mismatch(s->cpu, ERR_SCAN, page, counter);
            return -1;
        }
        if (i % 4096 == 0 && PROGRESS->error) {
            return -1;
        }
    }
    return 0;
}

static void heartbeat(struct state *s, volatile struct vcpu_progress *v)
{
    v->beats++;
    serial_lock();
    put_field("H ", s->cpu);
    put_field(" ", v->passes);
    put_field(" ", v->pages);
    put_field(" ", v->scans);
    put_str("\n");
    serial_unlock();
}

void worker(u32 cpu)
{
    volatile struct vcpu_progress *v = &PROGRESS->vcpu[cpu];
    u32 vcpus = params.vcpus, i, batch = BATCH;
    u64 now, next_write, next_beat, next_scan, ticks = 0, slack;
    u64 beat_ticks, scan_ticks;
    struct state s;

    while (!PROGRESS->go) {
        cpu_pause();
    }
    if (cpu >= vcpus) {
        for (;;) {
            cpu_pause();
        }
    }

    if (params.flags & FLAG_CLOCK) {
        start_kvmclock(cpu);
    }
    s.cpu = cpu;
    s.first = div64((u64)params.ws_pages * cpu, vcpus);
    s.num = div64((u64)params.ws_pages * (cpu + 1), vcpus) - s.first;
    s.start_page = params.start_page;
    s.table = (u32 *)PROGRESS->table_base;
    s.verify = params.flags & FLAG_VERIFY;
    s.pattern = params.pattern;
    s.stride = params.stride ? params.stride : 1;
    s.hot_pages = div64((u64)s.num * params.hot_percent, 100);
    if (!s.hot_pages) {
        s.hot_pages = 1;
    }
    if (s.hot_pages > s.num) {
        s.hot_pages = s.num;
    }
    s.hot_share = params.hot_share >= 100 ? ~0u :
                  (u32)div64((u64)params.hot_share << 32, 100);
    s.cursor = 0;
    s.random = (params.seed + cpu * 0x9e3779b9u) | 1;
    s.in_pass = 0;

    v->first_page = s.first;
    v->num_pages = s.num;
    if (params.rate) {
        /* small batches at low rates: writes spread evenly over time */
        while (batch > 1 && params.rate / vcpus / batch < 1000) {
            batch /= 2;
        }
        ticks = div64((u64)PROGRESS->tsc_khz * 1000 * batch, params.rate);
        ticks *= vcpus;
    }
    slack = (u64)PROGRESS->tsc_khz * 20;
    beat_ticks = (u64)PROGRESS->tsc_khz * params.heartbeat_ms;
    scan_ticks = (u64)PROGRESS->tsc_khz * params.scan_ms;

    if (params.flags & FLAG_FILL) {
        v->state = STATE_FILL;
        for (i = 0; i < s.num; i++) {
            if (rewrite(&s, s.first + i) < 0) {
                goto stop;
            }
            v->pages++;
        }
    }

    v->state = STATE_RUN;
    now = rdtsc();
    next_write = now;
    next_beat = now;
    next_scan = now + scan_ticks;

    while (!PROGRESS->error) {
        for (i = 0; i < batch; i++) {
            if (rewrite(&s, next_page(&s)) < 0) {
                goto stop;
            }
        }
        v->pages += batch;
        s.in_pass += batch;
        if (s.in_pass >= s.num) {
            s.in_pass -= s.num;
            v->passes++;
            if (s.pattern == PATTERN_WINDOW) {
                s.cursor += s.hot_pages;
                if (s.cursor >= s.num) {
                    s.cursor -= s.num;
                }
            }
        }

        now = rdtsc();
        if (beat_ticks && now >= next_beat) {
            heartbeat(&s, v);
            next_beat = now + beat_ticks;
        }
        if (scan_ticks && now >= next_scan) {
            v->state = STATE_SCAN;
            if (scan(&s) < 0) {
                goto stop;
            }
            v->scans++;
            v->state = STATE_RUN;
            now = rdtsc();
            next_scan = now + scan_ticks;
        }
        if (ticks) {
            next_write += ticks;
            if (now > next_write + slack) {
                /* was not running, or cannot keep up: no burst afterwards */
                next_write = now;
            }
            while (rdtsc() < next_write && !PROGRESS->error) {
                cpu_pause();
            }
        }
    }
stop:
    v->state = STATE_STOPPED;
}
