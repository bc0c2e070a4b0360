/*
 * tlm-sim: the result of one migration in a line
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "tlm-sim-print.h"

void sim_print_result(const SimConfig *c, const SimResult *r, bool json)
{
    if (json) {
        printf("{\"mode\": \"%s\", \"model\": \"%s\", \"ended\": %s, "
               "\"cancelled\": %s, \"total\": %.4f, \"downtime\": %.4f, "
               "\"bytes\": %.0f, \"again\": %.0f, \"lost\": %.4f, "
               "\"epochs\": %u, \"offline\": %.4f, \"throttled_at\": %.4f, "
               "\"said_bound\": %s, \"said_downtime\": %s, "
               "\"first_total\": %.4f, \"first_downtime\": %.4f, "
               "\"half_total\": %.4f, \"half_downtime\": %.4f, "
               "\"smallest_bound\": %.4f, \"reason\": \"%s\"}\n",
               sim_mode_names[c->mode], sim_model_names[c->model],
               r->ended ? "true" : "false", r->cancelled ? "true" : "false",
               r->total, r->downtime, r->bytes, r->again, r->lost, r->epochs,
               r->offline, r->throttled_at, r->said_bound ? "true" : "false",
               r->said_downtime ? "true" : "false", r->first_total,
               r->first_downtime, r->half_total, r->half_downtime,
               r->smallest_bound, r->reason ? r->reason : "");
        return;
    }
    printf("%-7s %-10s total %10.3f s (offline %.3f s, %.2fx)  downtime "
           "%8.3f s  sent %.1f MB (%.1f MB again)  lost work %.3f s",
           sim_mode_names[c->mode], sim_model_names[c->model], r->total,
           r->offline, r->total / r->offline, r->downtime, r->bytes / 1e6,
           r->again / 1e6, r->lost);
    if (c->mode != SIM_OFFLINE) {
        printf("  half-way: total %.3f s, downtime %.3f s  %s%s",
               r->half_total, r->half_downtime,
               r->ended ? "" : "NEVER ENDED: ", r->reason);
    }
    putchar('\n');
}
