/*
 * The parser of the main stream, with what QEMU sends and what it never would
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "be.h"
#include "error.h"
#include "recorded.h"
#include "stream.h"

#define MAX_RAM (1ull << 40)
#define MAX_STATE (1 << 20)
#define VMDESC "{\"devices\": []}"

typedef struct Told {
    unsigned return_paths, pings, layouts, ends;
    unsigned blocks;
    uint64_t total, syncs;
    bool refuse;                        /* the layout */
} Told;

static bool on_return_path(void *opaque, GError **errp)
{
    ((Told *)opaque)->return_paths++;
    return true;
}

static bool on_ping(void *opaque, uint32_t value, GError **errp)
{
    ((Told *)opaque)->pings++;
    return true;
}

static bool on_layout(void *opaque, const Layout *l, GError **errp)
{
    Told *t = opaque;

    t->layouts++;
    t->blocks = layout_num_blocks(l);
    t->total = l->total;
    return !t->refuse || ms_fail(errp, "refused");
}

static bool on_ram_end(void *opaque, uint64_t syncs, GError **errp)
{
    Told *t = opaque;

    t->ends++;
    t->syncs = syncs;
    return true;
}

static const StreamOps ops = {
    .return_path = on_return_path,
    .ping = on_ping,
    .layout = on_layout,
    .ram_end = on_ram_end,
};

/* In pieces of @step bytes; returns whether there was no error. */
static bool feed(Told *told, const GByteArray *b, size_t step, bool *complete,
                 GByteArray *state, GError **errp)
{
    Stream *s = stream_new(&ops, told, MAX_RAM, MAX_STATE);
    bool ok = true;

    for (size_t at = 0; ok && at < b->len; at += step) {
        ok = stream_feed(s, b->data + at, MIN(step, b->len - at), errp);
    }
    *complete = stream_complete(s);
    if (state) {
        g_byte_array_append(state, stream_state(s)->data,
                            stream_state(s)->len);
    }
    g_assert_nonnull(stream_awaits(s));
    stream_free(s);
    return ok;
}

static void test_recorded(void)
{
    g_autoptr(GByteArray) b = recorded("main");
    g_autoptr(GByteArray) first = NULL;
    const size_t steps[] = { 1, 2, 7, 1000, 1 << 20 };

    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        g_autoptr(GByteArray) state = g_byte_array_new();
        Told told = { 0 };
        bool complete;

        g_assert_true(feed(&told, b, steps[i], &complete, state, NULL));
        g_assert_true(complete);
        g_assert_cmpuint(told.return_paths, ==, 1);
        g_assert_cmpuint(told.pings, ==, 1);
        g_assert_cmpuint(told.layouts, ==, 1);
        g_assert_cmpuint(told.ends, ==, 1);
        g_assert_cmpuint(told.blocks, >, 1);
        g_assert_cmpuint(told.total, >, 16 << 20);
        g_assert_cmpuint(told.syncs, >=, 2);
        /* The state is all that is left of the stream. */
        g_assert_cmpmem(state->data, state->len,
                        b->data + b->len - state->len, state->len);
        g_assert_true(!first || (first->len == state->len));
        if (!first) {
            first = g_byte_array_ref(state);
        }
    }
}

/* No part of it is taken for the whole. */
static void test_truncated(void)
{
    g_autoptr(GByteArray) b = recorded("main");
    Told told = { 0 };
    Stream *s = stream_new(&ops, &told, MAX_RAM, MAX_STATE);

    for (size_t at = 0; at < b->len; at++) {
        g_assert_false(stream_complete(s));
        g_assert_true(stream_feed(s, b->data + at, 1, NULL));
    }
    g_assert_true(stream_complete(s));
    g_assert_false(stream_feed(s, "", 1, NULL));
    stream_free(s);
}

/* Streams made by hand: what is left out or wrong is said by the case. */

static void name(GByteArray *b, const char *text)
{
    put_u8(b, strlen(text));
    g_byte_array_append(b, (void *)text, strlen(text));
}

static void header(GByteArray *b)
{
    put_be32(b, 0x5145564d);
    put_be32(b, 3);
    put_u8(b, 7);
    put_be32(b, 2);
    g_byte_array_append(b, (void *)"pc", 2);
}

static void start(GByteArray *b, const char *section)
{
    put_u8(b, 1);
    put_be32(b, 5);
    name(b, section);
    put_be32(b, 0);
    put_be32(b, 4);
}

static void block(GByteArray *b, const char *text, uint64_t length)
{
    name(b, text);
    put_be64(b, length);
}

static void eos(GByteArray *b)
{
    put_be64(b, 0x10);
    put_u8(b, 0x7e);
    put_be32(b, 5);
}

static void ram(GByteArray *b)
{
    header(b);
    start(b, "ram");
    put_be64(b, 0x3000 | 4);
    block(b, "pc.ram", 0x2000);
    block(b, "pc.rom", 0x1000);
    put_be64(b, 0x200);
    eos(b);
}

static void ram_to_end(GByteArray *b)
{
    ram(b);
    put_u8(b, 3);
    put_be32(b, 5);
    put_be64(b, 0x200);
    eos(b);
}

static void vmdesc(GByteArray *b, const char *json, int more)
{
    put_u8(b, 0);
    put_u8(b, 6);
    put_be32(b, strlen(json) + more);
    g_byte_array_append(b, (void *)json, strlen(json));
}

static void good(GByteArray *b)
{
    ram_to_end(b);
    vmdesc(b, VMDESC, 0);
}

static void no_flush_words(GByteArray *b)
{
    header(b);
    start(b, "ram");
    put_be64(b, 0x1000 | 4);
    block(b, "pc.ram", 0x1000);
    eos(b);
    put_u8(b, 2);
    put_be32(b, 5);
    eos(b);
    put_u8(b, 3);
    put_be32(b, 5);
    eos(b);
    vmdesc(b, VMDESC, 0);
}

static void test_by_hand(void)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    g_autoptr(GByteArray) old = g_byte_array_new();
    Told told = { 0 };
    bool complete;

    good(b);
    g_assert_true(feed(&told, b, 1, &complete, NULL, NULL));
    g_assert_true(complete);
    g_assert_cmpuint(told.syncs, ==, 2);
    /* Old machine types: a SYNC for each section. */
    no_flush_words(old);
    g_assert_true(feed(&told, old, 1, &complete, NULL, NULL));
    g_assert_true(complete);
    g_assert_cmpuint(told.syncs, ==, 3);
}

#define CASE(name, ...) \
    static void case_##name(GByteArray *b) { __VA_ARGS__ }

CASE(magic, put_be32(b, 1); put_be64(b, 0); put_u8(b, 0);)
CASE(version, put_be32(b, 0x5145564d); put_be32(b, 2); put_u8(b, 7);
     put_be32(b, 1);)
CASE(no_configuration, put_be32(b, 0x5145564d); put_be32(b, 3); put_u8(b, 1);
     put_be32(b, 1);)
CASE(long_machine, put_be32(b, 0x5145564d); put_be32(b, 3); put_u8(b, 7);
     put_be32(b, 0xffffffff);)
CASE(odd_machine, put_be32(b, 0x5145564d); put_be32(b, 3); put_u8(b, 7);
     put_be32(b, 1); put_u8(b, 1);)
CASE(capabilities, header(b); put_u8(b, 5);
     name(b, "configuration/capabilities"); put_be32(b, 1);)
CASE(subsection, header(b); put_u8(b, 5); name(b, "configuration/odd");
     put_be32(b, 1);)
CASE(subsection_length, header(b); put_u8(b, 5); put_u8(b, 0);)
CASE(page_bits, header(b); put_u8(b, 5);
     name(b, "configuration/target-page-bits"); put_be32(b, 1);
     put_be32(b, 16);)
CASE(subsections_again, header(b);
     for (int i = 0; i < 100; i++) {
         put_u8(b, 5);
         name(b, "configuration/target-page-bits");
         put_be32(b, 1);
         put_be32(b, 12);
     })
CASE(command, header(b); put_u8(b, 8); put_be16(b, 6); put_be16(b, 0);)
CASE(command_length, header(b); put_u8(b, 8); put_be16(b, 2);
     put_be16(b, 5);)
CASE(part_first, header(b); put_u8(b, 2);)
CASE(full_first, header(b); put_u8(b, 4);)
CASE(eof_first, header(b); put_u8(b, 0);)
CASE(section_type, header(b); put_u8(b, 99);)
CASE(vfio, header(b); start(b, "0000:00:02.0/vfio");)
CASE(no_name, header(b); put_u8(b, 1); put_be32(b, 5); put_u8(b, 0);)
CASE(ram_twice, ram(b); start(b, "ram");)
CASE(ram_version, header(b); put_u8(b, 1); put_be32(b, 5); name(b, "ram");
     put_be32(b, 0); put_be32(b, 3);)
CASE(other_section, ram(b); put_u8(b, 2); put_be32(b, 6);)
CASE(no_footer, header(b); start(b, "ram"); put_be64(b, 0x1004);
     block(b, "a", 0x1000); put_be64(b, 0x10); put_u8(b, 0x7e);
     put_be32(b, 6);)
CASE(too_much_ram, header(b); start(b, "ram"); put_be64(b, MAX_RAM + 0x1004);)
CASE(no_ram, header(b); start(b, "ram"); put_be64(b, 4);)
CASE(half_page, header(b); start(b, "ram"); put_be64(b, 0x1004);
     block(b, "a", 0x800);)
CASE(no_length, header(b); start(b, "ram"); put_be64(b, 0x1004);
     block(b, "a", 0);)
CASE(more_than_all, header(b); start(b, "ram"); put_be64(b, 0x1004);
     block(b, "a", 0x2000);)
CASE(block_twice, header(b); start(b, "ram"); put_be64(b, 0x2004);
     block(b, "a", 0x1000); block(b, "a", 0x1000);)
CASE(block_no_name, header(b); start(b, "ram"); put_be64(b, 0x2004);
     put_u8(b, 0);)
CASE(block_odd_name, header(b); start(b, "ram"); put_be64(b, 0x2004);
     name(b, "\n");)
CASE(many_blocks, header(b); start(b, "ram"); put_be64(b, 2000 * 0x1000 | 4);
     for (int i = 0; i < 2000; i++) {
         g_autofree char *text = g_strdup_printf("%d", i);

         block(b, text, 0x1000);
     })
CASE(sizes_twice, header(b); start(b, "ram"); put_be64(b, 0x1004);
     block(b, "a", 0x1000); put_be64(b, 0x1004);)
CASE(sizes_later, ram(b); put_u8(b, 2); put_be32(b, 5); put_be64(b, 0x1004);)
CASE(zero_page, ram(b); put_u8(b, 2); put_be32(b, 5); put_be64(b, 0x1002);)
CASE(page, ram(b); put_u8(b, 2); put_be32(b, 5); put_be64(b, 0x1028);)
CASE(hook, ram(b); put_u8(b, 2); put_be32(b, 5); put_be64(b, 0x80);)
CASE(word, ram(b); put_u8(b, 2); put_be32(b, 5); put_be64(b, 0x400);)
CASE(flush_first, header(b); start(b, "ram"); put_be64(b, 0x200);)
CASE(flush_offset, ram(b); put_u8(b, 2); put_be32(b, 5);
     put_be64(b, 0x1200);)
CASE(more, good(b); put_u8(b, 0);)
CASE(large_state, ram_to_end(b);
     g_byte_array_set_size(b, b->len + MAX_STATE + 1);
     memset(b->data + b->len - MAX_STATE - 1, 1, MAX_STATE + 1);)

static void test_hostile(void)
{
    static const struct {
        void (*make)(GByteArray *b);
        const char *error;              /* a part of the message */
    } cases[] = {
        { case_magic, "no migration" },
        { case_version, "version 2" },
        { case_no_configuration, "no configuration" },
        { case_long_machine, "4294967295 characters" },
        { case_odd_machine, "not printable" },
        { case_capabilities, "mapped-ram" },
        { case_subsection, "configuration/odd" },
        { case_subsection_length, "0 characters" },
        { case_page_bits, "16 bits" },
        { case_subsections_again, "repeats" },
        { case_command, "command 6" },
        { case_command_length, "5 bytes" },
        { case_part_first, "before its start" },
        { case_full_first, "virtio-mem" },
        { case_eof_first, "ends before" },
        { case_section_type, "type 99" },
        { case_vfio, "0000:00:02.0/vfio" },
        { case_no_name, "no name" },
        { case_ram_twice, "twice" },
        { case_ram_version, "version 3" },
        { case_other_section, "section 6" },
        { case_no_footer, "no footer" },
        { case_too_much_ram, "accepted are up to" },
        { case_no_ram, "has 0 bytes" },
        { case_half_page, "2048 bytes" },
        { case_no_length, "0 bytes" },
        { case_more_than_all, "8192 bytes" },
        { case_block_twice, "twice" },
        { case_block_no_name, "no name" },
        { case_block_odd_name, "not printable" },
        { case_many_blocks, "more than 1024" },
        { case_sizes_twice, "twice" },
        { case_sizes_later, "twice" },
        { case_zero_page, "multifd must be on" },
        { case_page, "multifd must be on" },
        { case_hook, "RDMA" },
        { case_word, "word" },
        { case_flush_first, "word" },
        { case_flush_offset, "word" },
        { case_more, "follows" },
        { case_large_state, "more than" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        const size_t steps[] = { 1, 1 << 22 };

        for (unsigned k = 0; k < 2; k++) {
            g_autoptr(GByteArray) b = g_byte_array_new();
            g_autoptr(GError) error = NULL;
            Told told = { 0 };
            bool complete;

            cases[i].make(b);
            /* "more" is told when it comes, not when the end does. */
            if (cases[i].make == case_more && k) {
                continue;
            }
            g_assert_false(feed(&told, b, steps[k], &complete, NULL, &error));
            g_assert_false(complete);
            g_assert_nonnull(strstr(error->message, cases[i].error));
        }
    }
}

static void test_refused(void)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    Told told = { .refuse = true };
    bool complete;

    good(b);
    g_assert_false(feed(&told, b, 1000, &complete, NULL, &error));
    g_assert_cmpstr(error->message, ==, "refused");
}

/* What only looks like the end of the device state. */
static void test_false_ends(void)
{
    static const struct {
        const char *json;
        int more;                       /* than its length */
        bool end;
    } cases[] = {
        { VMDESC, 0, true },
        { VMDESC, 1, false },
        { VMDESC, -1, false },
        { "{}", 0, false },
        { "{\"devices\": 1}", 0, false },
        { "{\"devices\": [}", 0, false },
        { "{\"devices\": []}}", 0, false },
        { "[{\"devices\": []}", 0, false },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) b = g_byte_array_new();
        Told told = { 0 };
        bool complete;

        ram_to_end(b);
        /* Bytes of a device that look like one before the real one */
        vmdesc(b, "{\"devices\": []", 0);
        put_be32(b, 0);
        vmdesc(b, cases[i].json, cases[i].more);
        g_assert_true(feed(&told, b, 3, &complete, NULL, NULL));
        g_assert_true(complete == cases[i].end);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memserver/stream/recorded", test_recorded);
    g_test_add_func("/memserver/stream/truncated", test_truncated);
    g_test_add_func("/memserver/stream/by-hand", test_by_hand);
    g_test_add_func("/memserver/stream/hostile", test_hostile);
    g_test_add_func("/memserver/stream/refused", test_refused);
    g_test_add_func("/memserver/stream/false-ends", test_false_ends);
    return g_test_run();
}
