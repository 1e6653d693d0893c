"""Defects of the thread team, of what callers share, and of the memory kept between calls."""

from __future__ import annotations

from .parts import FORWARD, GIL, LAYERS_BACKWARD, LAYERS_FORWARD, MEMORY, STACK, TEAM, THREADS, replaced

DEFECTS = [
    replaced(
        "36",
        "one thread's share skipped",
        TEAM,
        "const index end = granules * (id_ + 1) / size_ * granule;",
        "const index end = granules * (id_ + (size_ > 2 && leads() ? 0 : 1)) / size_ * granule;",
    ),
    replaced(
        "36b",
        "one thread's rows of a step skipped",
        FORWARD,
        "return active > deal.id ? ceil_div(active - deal.id, deal.size) : 0;",
        "return active > deal.id && deal.id < 2 ? ceil_div(active - deal.id, deal.size) : 0;",
    ),
    replaced(
        "t1",
        "no barrier between the input product and the steps",
        LAYERS_FORWARD,
        "      crew.wait();\n      kernels.forward_steps",
        "      kernels.forward_steps",
    ),
    replaced(
        "t2",
        "no barrier between the steps and the deferred products",
        LAYERS_BACKWARD,
        "      crew.wait();\n      if (dx)",
        "      if (dx)",
    ),
    replaced(
        "t3",
        "no barrier between packing panels and the weight gradients",
        LAYERS_BACKWARD,
        "        crew.wait();\n        kernels.weight_gradient",
        "        kernels.weight_gradient",
    ),
    replaced(
        "t4",
        "y_rows of one buffer only",
        LAYERS_FORWARD,
        "work.y_rows[(&span - schedule.spans().data()) % 2]",
        "work.y_rows[0]",
    ),
    replaced(
        "t5",
        "a barrier that waits for the others but the last",
        THREADS,
        "for (int other = 0; other < size; ++other) {",
        "for (int other = 0; other < size - (size > 2); ++other) {",
    ),
    replaced("t6", "workers in the default rounding mode", THREADS, "std::fesetenv(&environment_);", ""),
    replaced(
        "t7",
        "a child goes on with the team of its parent",
        THREADS,
        "pthread_atfork(nullptr, nullptr, abandon_team_in_child)",
        "pthread_atfork(nullptr, nullptr, nullptr)",
    ),
    replaced(
        "t8",
        "two callers in one team",
        THREADS,
        "if (crew.busy.test_and_set(std::memory_order_acquire)) return alone();",
        "crew.busy.test_and_set(std::memory_order_acquire);",
    ),
    replaced(
        "t9",
        "all threads asked for, one used",
        THREADS,
        "if (wanted <= 1) return alone();",
        "if (wanted >= 1) return alone();",
    ),
    replaced(
        "t10",
        "signals may reach the workers",
        THREADS,
        "pthread_sigmask(SIG_SETMASK, &all, &before);",
        "pthread_sigmask(SIG_SETMASK, nullptr, &before);",
    ),
    replaced(
        "t11",
        "a daemon thread unwound at shutdown",
        GIL,
        "while (true) std::this_thread::sleep_for(std::chrono::hours(1));",
        "throw;",
    ),
    replaced(
        "t12",
        "layers not separated by a barrier",
        STACK,
        "      if (halted(everybody, everybody)) return false;\n",
        "",
    ),
    replaced(
        "t13",
        "layers of two directions at once not separated by a barrier",
        STACK,
        "      return !halted(everybody, everybody);\n",
        "      return !stopped();\n",
    ),
    replaced(
        "t14",
        "with threads(n) sets the number for every thread",
        "src/bind_config.cpp",
        "thread_local int own_threads",
        "int own_threads",
    ),
    replaced(
        "m1",
        "a kept block that is too small",
        MEMORY,
        "if (capacity < bytes || capacity - bytes > bytes / 4) continue;",
        "if (capacity < bytes / 2 || capacity / 2 > bytes) continue;",
    ),
    replaced(
        "m2",
        "the kept blocks taken by two threads at once",
        MEMORY,
        "granted(!own.busy_.test_and_set(std::memory_order_acquire))",
        "granted(!own.busy_.test_and_set(std::memory_order_acquire) || true)",
    ),
    replaced(
        "m3",
        "the sums of dw_hh begin with what the memory held",
        LAYERS_BACKWARD,
        "std::fill_n(work.dw_hh, g.gates * g.padded_H * g.Ho, T(0));",
        "static_cast<void>(work.dw_hh);",
    ),
    replaced("m4", "kept memory not freed when there is no other", MEMORY, "    spares.shrink(0);\n", ""),
    replaced(
        "m5",
        "the newest goes first",
        MEMORY,
        "dropped->add(remove(0));",
        "dropped->add(remove(count_ - 1));",
    ),
    replaced(
        "t15", "a child's main thread is its parent's", GIL, "main_thread.store(PyThread_get_thread_ident());", ""
    ),
    replaced(
        "t16",
        "upper layers do not count as work",
        STACK,
        "above * (shape.layers - 1)",
        "0 * above * (shape.layers - 1)",
    ),
]
