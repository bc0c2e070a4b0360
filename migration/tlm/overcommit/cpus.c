/*
 * TLM: vCPU over-commit: sets of host CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "cpus.h"
#include "error.h"

#define WORD_BITS (8 * sizeof(unsigned long))

void tlm_cpus_add(TlmCpuSet *s, unsigned cpu)
{
    assert(cpu < TLM_OC_MAX_CPUS);
    s->bits[cpu / WORD_BITS] |= 1UL << (cpu % WORD_BITS);
}

void tlm_cpus_remove(TlmCpuSet *s, unsigned cpu)
{
    assert(cpu < TLM_OC_MAX_CPUS);
    s->bits[cpu / WORD_BITS] &= ~(1UL << (cpu % WORD_BITS));
}

bool tlm_cpus_has(const TlmCpuSet *s, unsigned cpu)
{
    return cpu < TLM_OC_MAX_CPUS &&
           (s->bits[cpu / WORD_BITS] >> (cpu % WORD_BITS) & 1);
}

unsigned tlm_cpus_count(const TlmCpuSet *s)
{
    unsigned n = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(s->bits); i++) {
        n += __builtin_popcountl(s->bits[i]);
    }
    return n;
}

void tlm_cpus_or(TlmCpuSet *s, const TlmCpuSet *other)
{
    for (size_t i = 0; i < G_N_ELEMENTS(s->bits); i++) {
        s->bits[i] |= other->bits[i];
    }
}

void tlm_cpus_and(TlmCpuSet *s, const TlmCpuSet *other)
{
    for (size_t i = 0; i < G_N_ELEMENTS(s->bits); i++) {
        s->bits[i] &= other->bits[i];
    }
}

bool tlm_cpus_equal(const TlmCpuSet *a, const TlmCpuSet *b)
{
    return !memcmp(a, b, sizeof(*a));
}

bool tlm_cpus_subset(const TlmCpuSet *a, const TlmCpuSet *of)
{
    for (size_t i = 0; i < G_N_ELEMENTS(a->bits); i++) {
        if (a->bits[i] & ~of->bits[i]) {
            return false;
        }
    }
    return true;
}

/* Reads a CPU number and moves *p behind it */
static bool parse_cpu(const char **p, unsigned *cpu)
{
    guint64 value;
    char *end;

    if (!g_ascii_isdigit(**p)) {
        return false;
    }
    value = g_ascii_strtoull(*p, &end, 10);
    *p = end;
    *cpu = MIN(value, TLM_OC_MAX_CPUS);
    return value < TLM_OC_MAX_CPUS;
}

bool tlm_cpus_parse(const char *list, TlmCpuSet *s, GError **errp)
{
    g_autofree char *text = g_strstrip(g_strdup(list));
    const char *p = text;

    memset(s, 0, sizeof(*s));
    while (*p) {
        unsigned first, last;

        if (!parse_cpu(&p, &first)) {
            goto bad;
        }
        last = first;
        if (*p == '-') {
            p++;
            if (!parse_cpu(&p, &last) || last < first) {
                goto bad;
            }
        }
        for (unsigned cpu = first; cpu <= last; cpu++) {
            tlm_cpus_add(s, cpu);
        }
        if (*p == ',' && p[1]) {
            p++;
        } else if (*p) {
            goto bad;
        }
    }
    return true;

bad:
    g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                "'%s' is not a list of CPUs such as 0-3,8", text);
    return false;
}

char *tlm_cpus_format(const TlmCpuSet *s)
{
    GString *text = g_string_new(NULL);

    for (unsigned cpu = 0; cpu < TLM_OC_MAX_CPUS; cpu++) {
        unsigned last = cpu;

        if (!tlm_cpus_has(s, cpu)) {
            continue;
        }
        while (tlm_cpus_has(s, last + 1)) {
            last++;
        }
        g_string_append_printf(text, "%s%u", text->len ? "," : "", cpu);
        if (last > cpu) {
            g_string_append_printf(text, "-%u", last);
        }
        cpu = last;
    }
    return g_string_free(text, FALSE);
}
