/*
 * Parser of the main stream: the device state, up to its end
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <json-c/json.h>
#include <string.h>

#include "be.h"
#include "error.h"
#include "stream-internal.h"

/*
 * The description of a machine with 100 devices has 0.3 MB.  Each struct in a
 * struct of a device takes three levels of it.
 */
#define VMDESC_MAX (16 << 20)
#define VMDESC_DEPTH 200

/* Whether the JSON text at @at has an array "devices", as QEMU writes it. */
static bool is_vmdesc(const uint8_t *at, size_t size)
{
    struct json_tokener *tokener = json_tokener_new_ex(VMDESC_DEPTH);
    struct json_object *json, *devices;
    bool ok;

    json = json_tokener_parse_ex(tokener, (const char *)at, size);
    /* An object is complete at its brace; then nothing may follow. */
    ok = json && json_tokener_get_parse_end(tokener) == size &&
         json_object_is_type(json, json_type_object) &&
         json_object_object_get_ex(json, "devices", &devices) &&
         json_object_is_type(devices, json_type_array);
    json_object_put(json);
    json_tokener_free(tokener);
    return ok;
}

/*
 * The device state ends with 00 (end of the sections), 06, be32 length, and
 * so many bytes of JSON.  JSON has no byte 0, and the length is below 16 MiB.
 * So the last zero of all is in the length, and few places come into question.
 */
static bool state_ends_here(const Stream *s)
{
    const uint8_t *state = s->device_state->data;
    size_t size = s->device_state->len;

    if (!size || state[size - 1] != '}') {
        return false;
    }
    for (size_t back = 3; back <= 6; back++) {
        size_t at = s->last_zero - back;        /* of the 00 */
        uint32_t length;

        if (s->last_zero < back || at + 6 >= size) {
            continue;
        }
        length = get_be32(state + at + 2);
        if (state[at] == SECTION_EOF && state[at + 1] == SECTION_VMDESC &&
            length < VMDESC_MAX && length == size - at - 6 &&
            is_vmdesc(state + at + 6, length)) {
            return true;
        }
    }
    return false;
}

bool stream_device_state(Stream *s, const uint8_t *data, size_t size,
                         GError **errp)
{
    const uint8_t *zero = memrchr(data, 0, size);

    if (size > s->max_state - s->device_state->len) {
        return ms_fail(errp, "the device state has more than %" PRIu64
                       " bytes", s->max_state);
    }
    if (zero) {
        s->last_zero = s->device_state->len + (zero - data) + 1;
    }
    g_byte_array_append(s->device_state, data, size);
    if (state_ends_here(s)) {
        s->state = COMPLETE;
    }
    return true;
}
