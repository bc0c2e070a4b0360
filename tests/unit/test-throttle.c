/*
 * Test of throttle.c: pulses, and others that pause and resume the vCPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "fake-vcpus.h"
#include "throttle.h"

CPUState fake_cpu[2];
bool fake_vm_runs = true;

static int64_t now_ns;
static bool clock_on = true;
static QEMUTimer *timer;
static unsigned asked, resumed;
static int64_t told_ns;         /* longest pause that the guest was told of */

int64_t qemu_clock_get_ns(int clock)
{
    g_assert_cmpint(clock, ==, QEMU_CLOCK_REALTIME);
    return now_ns;
}

void qemu_clock_enable(int clock, bool enabled)
{
    g_assert_cmpint(clock, ==, QEMU_CLOCK_VIRTUAL);
    clock_on = enabled;
}

QEMUTimer *timer_new_ns(int clock, void (*cb)(void *), void *opaque)
{
    timer = g_new(QEMUTimer, 1);
    *timer = (QEMUTimer) { cb, opaque, -1 };
    return timer;
}

void timer_mod_ns(QEMUTimer *t, int64_t due_ns)
{
    t->due_ns = due_ns;
}

void timer_mod_anticipate_ns(QEMUTimer *t, int64_t due_ns)
{
    if (t->due_ns < 0 || due_ns < t->due_ns) {
        t->due_ns = due_ns;
    }
}

void timer_del(QEMUTimer *t)
{
    t->due_ns = -1;
}

/* A vCPU that is not busy stops as soon as it is kicked */
void qemu_cpu_kick(CPUState *cpu)
{
    asked++;
    if (cpu->stop && !cpu->busy) {
        cpu->stop = false;
        cpu->stopped = true;
    }
}

void resume_all_vcpus(void)
{
    if (!fake_vm_runs) {
        return;
    }
    resumed++;
    clock_on = true;
    for (unsigned i = 0; i < ARRAY_SIZE(fake_cpu); i++) {
        fake_cpu[i].stop = fake_cpu[i].stopped = false;
    }
}

bool runstate_is_running(void)
{
    return fake_vm_runs;
}

void tlm_tell_guest_paused(int64_t since_ns)
{
    told_ns = MAX(told_ns, now_ns - since_ns);
}

static bool paused(void)
{
    return fake_cpu[0].stopped && fake_cpu[1].stopped;
}

static bool running(void)
{
    return !fake_cpu[0].stopped && !fake_cpu[0].stop &&
           !fake_cpu[1].stopped && !fake_cpu[1].stop;
}

/* The main loop runs for @ms; returns how long all vCPUs were paused */
static double run(double ms)
{
    int64_t end_ns = now_ns + ms * SCALE_MS;
    int64_t paused_ns = 0;

    while (true) {
        int64_t next_ns = timer->due_ns >= 0 ? MIN(timer->due_ns, end_ns)
                                             : end_ns;

        next_ns = MAX(next_ns, now_ns);
        paused_ns += paused() ? next_ns - now_ns : 0;
        now_ns = next_ns;
        if (timer->due_ns < 0 || timer->due_ns > now_ns) {
            return (double)paused_ns / SCALE_MS;
        }
        timer->due_ns = -1;
        timer->cb(timer->opaque);
    }
}

static void begin(void)
{
    fake_vm_runs = true;
    fake_cpu[0].busy = fake_cpu[1].busy = false;
    now_ns += SCALE_MS;
    tlm_throttle_reset();
    tlm_throttle_set(1);
    run(1000);
    g_assert_true(running());
    tlm_throttle_reset();
    asked = resumed = 0;
    told_ns = 0;
}

static double booked_ms(void)
{
    return (double)tlm_throttle_paused_ns() / SCALE_MS;
}

static void test_pulses(void)
{
    static const double speeds[] = { 0.002, 0.01, 0.1, 0.5, 0.9 };

    for (unsigned i = 0; i < ARRAY_SIZE(speeds); i++) {
        double is;

        begin();
        tlm_throttle_set(speeds[i]);
        is = 1 - run(10000) / 10000;
        g_assert_cmpfloat(is, >, speeds[i] * 0.8);
        g_assert_cmpfloat(is, <, speeds[i] * 1.2 + 0.001);
        g_assert_cmpfloat(fabs(booked_ms() - (1 - is) * 10000), <, 0.01);
        tlm_throttle_set(1);
        run(2);
        g_assert_true(running() && clock_on);
    }
}

static void test_paused(void)
{
    begin();
    tlm_throttle_set(0);
    g_assert_cmpfloat(run(5000), >, 4999.9);
    g_assert_cmpint(resumed, ==, 0);
    g_assert_false(clock_on);
    tlm_throttle_set(0.5);
    run(200);
    g_assert_cmpint(told_ns, >=, 5000 * SCALE_MS);
    tlm_throttle_set(1);
    run(2);
    g_assert_true(running());
}

/*
 * Somebody resumes the vCPUs before all of them have paused (a vCPU that
 * patches the guest's code), and again later: they are asked again.
 */
static void test_resumed_by_another(void)
{
    begin();
    fake_cpu[1].busy = true;
    tlm_throttle_set(0);
    run(0.5);
    g_assert_false(paused());
    resume_all_vcpus();
    fake_cpu[1].busy = false;
    run(5);
    g_assert_true(paused());
    resume_all_vcpus();
    run(150);
    g_assert_true(paused());
    tlm_throttle_set(1);
    run(3);
    g_assert_true(running());
}

/*
 * A vCPU that has not paused may wait for the others to pause: they stay
 * paused, until it is through.
 */
static void test_no_resume_under_a_wait(void)
{
    begin();
    fake_cpu[1].busy = true;
    tlm_throttle_set(0);
    run(50);
    tlm_throttle_set(1);
    run(50);
    g_assert_cmpint(resumed, ==, 0);
    g_assert_true(fake_cpu[0].stopped);
    /* It has come through, and resumes them itself */
    fake_cpu[1].busy = false;
    resume_all_vcpus();
    asked = 0;
    run(200);
    g_assert_true(running());
    g_assert_cmpint(resumed, ==, 1);
    g_assert_cmpint(asked, ==, 0);
}

/*
 * When the last one has just paused, whoever waited for that is to have its
 * turn first: no resume at the first look.
 */
static void test_no_resume_at_first_sight(void)
{
    begin();
    fake_cpu[1].busy = true;
    tlm_throttle_set(0);
    run(50);
    tlm_throttle_set(1);
    fake_cpu[1].busy = false;
    run(1);
    g_assert_true(paused());
    g_assert_cmpint(resumed, ==, 0);
    run(3);
    g_assert_true(running());
}

/* "stop" and "cont" in the middle of it */
static void test_stopped_by_the_user(void)
{
    begin();
    tlm_throttle_set(0);
    run(50);
    fake_vm_runs = false;
    run(500);
    g_assert_cmpfloat(booked_ms(), <, 160);
    tlm_throttle_set(1);
    run(500);
    g_assert_cmpint(resumed, ==, 0);
    fake_vm_runs = true;
    resume_all_vcpus();
    run(500);
    g_assert_true(running());
    tlm_throttle_set(0);
    run(50);
    g_assert_true(paused());
}

/* The switchover: the vCPUs stay as they are; then it fails */
static void test_kept(void)
{
    double booked;

    begin();
    tlm_throttle_set(0);
    run(250);
    tlm_throttle_end(true);
    booked = booked_ms();
    run(500);
    g_assert_true(paused());
    g_assert_cmpfloat(booked_ms(), ==, booked);
    fake_vm_runs = false;
    tlm_throttle_end(false);
    run(10);
    fake_vm_runs = true;
    resume_all_vcpus();
    asked = 0;
    run(500);
    g_assert_true(running());
    g_assert_cmpint(asked, ==, 0);

    /* The VM is started before the main loop has a look */
    tlm_throttle_reset();
    tlm_throttle_set(0);
    run(250);
    tlm_throttle_end(true);
    resume_all_vcpus();
    asked = 0;
    tlm_throttle_end(false);
    run(500);
    g_assert_true(running());
    g_assert_cmpint(asked, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle/pulses", test_pulses);
    g_test_add_func("/throttle/paused", test_paused);
    g_test_add_func("/throttle/resumed-by-another", test_resumed_by_another);
    g_test_add_func("/throttle/no-resume-under-a-wait",
                    test_no_resume_under_a_wait);
    g_test_add_func("/throttle/no-resume-at-first-sight",
                    test_no_resume_at_first_sight);
    g_test_add_func("/throttle/stopped-by-the-user",
                    test_stopped_by_the_user);
    g_test_add_func("/throttle/kept", test_kept);
    return g_test_run();
}
