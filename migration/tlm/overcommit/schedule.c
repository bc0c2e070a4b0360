/*
 * TLM: vCPU over-commit: from which progress on how many host CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <math.h>
#include "cpus.h"
#include "error.h"
#include "schedule.h"

struct TlmOcSchedule {
    size_t n;
    TlmOcStep *steps;
};

TlmOcSchedule *tlm_oc_schedule_new(const TlmOcStep *steps, size_t n,
                                   GError **errp)
{
    TlmOcSchedule *s;

    if (!n) {
        g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                    "over-commit schedule has no step");
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        /* Written so that a NaN is refused */
        if (!(steps[i].progress >= 0 && steps[i].progress <= 100)) {
            g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                        "over-commit step %zu: progress %g %% is not in 0..100",
                        i + 1, steps[i].progress);
            return NULL;
        }
        if (steps[i].cpus < 1 || steps[i].cpus > TLM_OC_MAX_CPUS) {
            g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                        "over-commit step %zu: %u host CPUs is not in 1..%d",
                        i + 1, steps[i].cpus, TLM_OC_MAX_CPUS);
            return NULL;
        }
        if (i && !(steps[i].progress > steps[i - 1].progress)) {
            g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                        "over-commit step %zu: progress %g %% does not rise "
                        "above the previous step's %g %%", i + 1,
                        steps[i].progress, steps[i - 1].progress);
            return NULL;
        }
    }
    s = g_new0(TlmOcSchedule, 1);
    s->n = n;
    s->steps = g_new(TlmOcStep, n);
    memcpy(s->steps, steps, n * sizeof(*steps));
    return s;
}

/* One step: FRACTION-(CPUS), blanks around it already removed */
static bool parse_step(const char *text, TlmOcStep *step)
{
    char *end;
    double fraction;
    guint64 cpus;

    /* strtod would take signs, hexadecimal numbers, "inf" and "nan" */
    if (!g_ascii_isdigit(*text) ||
        strspn(text, "0123456789.") != strcspn(text, "-")) {
        return false;
    }
    fraction = g_ascii_strtod(text, &end);
    if (!g_str_has_prefix(end, "-(") || !g_ascii_isdigit(end[2])) {
        return false;
    }
    cpus = g_ascii_strtoull(end + 2, &end, 10);
    if (strcmp(end, ")")) {
        return false;
    }
    /* Rounded to 1/1000000 %: 0.55 * 100 is a little more than 55 */
    step->progress = fraction <= 1 ? (uint64_t)(fraction * 1e8 + 0.5) / 1e6 :
                     fraction * 100;
    step->cpus = MIN(cpus, UINT_MAX);
    return true;
}

TlmOcSchedule *tlm_oc_schedule_parse(const char *text, GError **errp)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    g_autofree TlmOcStep *steps = g_new0(TlmOcStep, g_strv_length(parts) + 1);
    size_t n = 0;

    for (; parts[n]; n++) {
        if (!parse_step(g_strstrip(parts[n]), &steps[n])) {
            g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_INVALID,
                        "over-commit step '%s' is not FRACTION-(CPUS), "
                        "for example 0.5-(2)", parts[n]);
            return NULL;
        }
    }
    return tlm_oc_schedule_new(steps, n, errp);
}

void tlm_oc_schedule_free(TlmOcSchedule *s)
{
    if (s) {
        g_free(s->steps);
        g_free(s);
    }
}

unsigned tlm_oc_schedule_cpus(const TlmOcSchedule *s, double progress)
{
    unsigned cpus = 0;

    for (size_t i = 0; i < s->n && progress >= s->steps[i].progress; i++) {
        cpus = s->steps[i].cpus;
    }
    return cpus;
}

double tlm_oc_schedule_next(const TlmOcSchedule *s, double progress)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->steps[i].progress > progress) {
            return s->steps[i].progress;
        }
    }
    return HUGE_VAL;
}

bool tlm_oc_schedule_step(const TlmOcSchedule *s, size_t i, TlmOcStep *step)
{
    if (i >= s->n) {
        return false;
    }
    *step = s->steps[i];
    return true;
}

char *tlm_oc_schedule_to_string(const TlmOcSchedule *s)
{
    GString *text = g_string_new(NULL);
    char number[G_ASCII_DTOSTR_BUF_SIZE];

    for (size_t i = 0; i < s->n; i++) {
        g_ascii_formatd(number, sizeof(number), "%.10g",
                        s->steps[i].progress / 100);
        g_string_append_printf(text, "%s%s-(%u)", i ? "," : "", number,
                               s->steps[i].cpus);
    }
    return g_string_free(text, FALSE);
}
