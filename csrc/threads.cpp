#include "threads.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <cfenv>
#include <chrono>
#include <csignal>
#include <memory>
#include <new>
#include <system_error>
#include <thread>

#include "isa/relax.h"

namespace lstm_fast {
namespace {

// Long enough to bridge the gap between two calls of a training loop, short enough not to matter as wasted time.
constexpr std::chrono::microseconds idle_spin{50};
// Turns of a spin after which the other participant is taken to have lost its core; few when there are not cores for
// all, since then it has.
constexpr int patient_turns = 4000;
constexpr int crowded_turns = 50;

// Spins until done() holds, giving the core away after `patience` turns.
template <class Done>
void spin(int patience, Done done) {
  for (int turn = 0; !done();) {
    if (turn < patience) {
      ++turn;
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

int patience_of(int size) {
  static const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return size <= cores ? patient_turns : crowded_turns;
}

class Worker {
 public:
  using Work = void (*)(void*, int, int);

  Worker() {
    // Signals are the main thread's business.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([this] { serve(); }).detach();
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void start(Work work, void* context, int id, int size, const std::fenv_t& environment) {
    work_ = work;
    context_ = context;
    id_ = id;
    size_ = size;
    environment_ = environment;
    orders_.fetch_add(1, std::memory_order_release);
    orders_.notify_one();
  }

  void finish() {
    const std::uint32_t order = orders_.load(std::memory_order_relaxed);
    spin(patience_of(size_), [&] { return done_.load(std::memory_order_acquire) == order; });
  }

 private:
  void serve() {
    for (std::uint32_t order = 0;; ++order) {
      const auto idle_since = std::chrono::steady_clock::now();
      for (int turn = 1; orders_.load(std::memory_order_acquire) == order; ++turn) {
        relax();
        if (turn % 64 == 0 && std::chrono::steady_clock::now() - idle_since > idle_spin) {
          orders_.wait(order, std::memory_order_acquire);
        }
      }
      std::fesetenv(&environment_);
      work_(context_, id_, size_);
      done_.store(order + 1, std::memory_order_release);
    }
  }

  alignas(128) std::atomic<std::uint32_t> orders_{0};  // of this size waiting is one futex
  Work work_ = nullptr;
  void* context_ = nullptr;
  int id_ = 0;
  int size_ = 0;
  std::fenv_t environment_{};
  alignas(128) std::atomic<std::uint32_t> done_{0};
};

// Never destroyed: its threads may outlive every static object, and process exit ends them.
struct Team {
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
  int workers = 0;
  std::unique_ptr<Worker> members[Barrier::max_size];
};

std::atomic<Team*> current_team{nullptr};

std::atomic<bool> is_child{false};

// The parent's threads do not exist in the child, and its team may have been in use: leave it and make a new one when
// needed.
void abandon_team_in_child() {
  current_team.store(nullptr);
  is_child.store(true);
}

// When the library is loaded, not at first use: a fork in the middle of that would leave the child waiting for its end.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, abandon_team_in_child);

Team& team() {
  Team* found = current_team.load(std::memory_order_acquire);
  if (!found) {
    auto fresh = std::make_unique<Team>();
    if (current_team.compare_exchange_strong(found, fresh.get())) found = fresh.release();
  }
  return *found;
}

// A piece of work for another library's threads; those that are too many do nothing.
struct Loan {
  const Lender& lender;
  int wanted;
  void (*work)(void*, int, int);
  void* context;
  std::fenv_t environment;
  int size;

  static void run(void* loan) {
    auto& own = *static_cast<Loan*>(loan);
    const int id = own.lender.number();
    const int size = std::min(own.lender.count(), own.wanted);
    if (id >= size) return;
    if (id == 0) {
      own.size = size;
      own.work(own.context, 0, size);
    } else {
      std::fenv_t before;
      std::fegetenv(&before);
      std::fesetenv(&own.environment);
      own.work(own.context, id, size);
      std::fesetenv(&before);
    }
  }
};

int run_with_own(Team& crew, int wanted, void (*work)(void*, int, int), void* context, const std::fenv_t& environment) {
  int size = 1;
  for (; size < wanted && size < Barrier::max_size; ++size) {
    if (size <= crew.workers) continue;
    try {
      crew.members[crew.workers] = std::make_unique<Worker>();
      ++crew.workers;
    } catch (const std::system_error&) {
      break;  // no more threads to be had: go on with those there are
    } catch (const std::bad_alloc&) {
      break;
    }
  }
  for (int id = 1; id < size; ++id) crew.members[id - 1]->start(work, context, id, size, environment);
  work(context, 0, size);
  for (int id = 1; id < size; ++id) crew.members[id - 1]->finish();
  return size;
}

}  // namespace

void Barrier::wait(int id, int size) {
  const std::uint64_t arrivals = slots_[static_cast<std::size_t>(id)].arrivals.load(std::memory_order_relaxed) + 1;
  slots_[static_cast<std::size_t>(id)].arrivals.store(arrivals, std::memory_order_release);
  const int patience = patience_of(size);
  for (int other = 0; other < size; ++other) {
    const auto& slot = slots_[static_cast<std::size_t>(other)].arrivals;
    spin(patience, [&] { return slot.load(std::memory_order_acquire) >= arrivals; });
  }
}

void Barrier::start(int id, std::uint64_t met) {
  slots_[static_cast<std::size_t>(id)].arrivals.store(met, std::memory_order_release);
}

int run_team(int wanted, void (*work)(void* context, int id, int size), void* context, const Threads& whose) {
  const auto alone = [=] {
    work(context, 0, 1);
    return 1;
  };
  if (wanted <= 1) return alone();
  Team& crew = team();
  if (crew.busy.test_and_set(std::memory_order_acquire)) return alone();
  std::fenv_t environment;
  std::fegetenv(&environment);
  int size = 1;
  if (whose.lender && !is_child.load(std::memory_order_relaxed)) {
    Loan loan{*whose.lender, std::min(wanted, Barrier::max_size), work, context, environment, 1};
    loan.lender.parallel(Loan::run, &loan, static_cast<unsigned>(whose.lent), 0);
    size = loan.size;
  } else {
    size = run_with_own(crew, wanted, work, context, environment);
  }
  crew.busy.clear(std::memory_order_release);
  return size;
}

namespace {

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::duration<double, std::nano>;

// Many barriers in a row; how long they took, or a negative time if there was only one participant.
Nanoseconds time_barriers(int threads, int barriers, const Threads& whose) {
  struct Try {
    Crew::Shared shared;
    int barriers;
    Nanoseconds time;
  } run{Crew::Shared(threads), barriers, {}};  // of its own: the next may have another number of participants
  const auto work = [](void* context, int id, int size) {
    auto& own = *static_cast<Try*>(context);
    const Crew crew(id, size, &own.shared);
    crew.wait();  // all are awake
    const auto start = Clock::now();
    for (int barrier = 0; barrier < own.barriers; ++barrier) crew.wait();
    if (crew.leads()) own.time = Clock::now() - start;
  };
  return run_team(threads, work, &run, whose) == 1 ? Nanoseconds(-1) : run.time;
}

}  // namespace

double recent_barrier_ns(int threads, const Threads& whose) {
  // New threads often share a core with the caller until the system moves them: a slow barrier is soon tried again, and
  // with few barriers, since each takes as long as the system lets one of them run.
  constexpr double slow = 2000;
  constexpr std::chrono::seconds recent{1};
  constexpr std::chrono::milliseconds soon{20};
  constexpr double unknown = 1e9;
  thread_local struct {
    Clock::time_point when;
    int threads = 0;
    const Lender* lender = nullptr;
    double ns = 0;
  } last;
  const auto now = Clock::now();
  const bool fits = last.threads == threads && last.lender == whose.lender;
  if (!fits || now - last.when > (last.ns > slow ? Nanoseconds(soon) : Nanoseconds(recent))) {
    double best = unknown;
    for (const int barriers : {4, 64, 64}) {
      const Nanoseconds time = time_barriers(threads, barriers, whose);
      if (time.count() > 0) best = std::min(best, time.count() / barriers);
      if (best > slow) break;
    }
    last = {now, threads, whose.lender, best};
  }
  return last.ns;
}

double barrier_ns(int threads) {
  constexpr Nanoseconds long_enough{2e5};  // of one try, for the clock
  constexpr Nanoseconds given_up{2e7};     // of all tries; cores that are shared take long for a single barrier
  std::array<double, 9> found;
  std::size_t tries = 0;
  int barriers = 16;
  const auto start = Clock::now();
  while (tries < found.size() && (tries == 0 || Clock::now() - start < given_up)) {
    const Nanoseconds time = time_barriers(threads, barriers, {});
    if (time.count() < 0) return 0;
    if (time < long_enough && tries == 0 && Clock::now() - start < given_up) {
      barriers *= 2;
    } else {
      found[tries++] = time.count() / barriers;
    }
  }
  const auto middle = found.begin() + static_cast<std::ptrdiff_t>(tries / 2);
  std::nth_element(found.begin(), middle, found.begin() + static_cast<std::ptrdiff_t>(tries));
  return *middle;
}

}  // namespace lstm_fast
