// The thread team: persistent threads that run one piece of work together with the caller.
#pragma once

#include <atomic>
#include <memory>

#include "lstm_fast.h"

namespace lstm_fast {

// All participants of a crew wait here for each other. Spins, since it stands between pieces of work of microseconds;
// gives the core away when the others do not come soon.
class Barrier {
 public:
  static constexpr int max_size = 256;

  explicit Barrier(int most) : slots_(most > 1 ? std::make_unique<Slot[]>(static_cast<std::size_t>(most)) : nullptr) {}

  // Called by every participant with its own number; size participants in all, always as many unless each of them
  // first tells start() how often they, or those before them, have met so far.
  void wait(int id, int size);
  void start(int id, std::uint64_t met);

 private:
  struct alignas(128) Slot {
    std::atomic<std::uint64_t> arrivals{0};
  };
  std::unique_ptr<Slot[]> slots_;
};

// The participants of one piece of work, as one of them sees it.
class Crew {
 public:
  struct Shared {
    explicit Shared(int most) : barrier(most) {}
    Barrier barrier;
    bool halt[2] = {};  // in turns; written by participant 0 before a barrier, read by all between it and the next
  };

  Crew(int id, int size, Shared* shared) : id_(id), size_(size), shared_(shared) {}

  int id() const { return id_; }
  int size() const { return size_; }
  bool leads() const { return id_ == 0; }
  void wait() const {
    if (size_ > 1) shared_->barrier.wait(id_, size_);
  }

  // Before the first wait() in what others have used before, perhaps more or fewer, who met so often.
  void start(std::uint64_t met) const { shared_->barrier.start(id_, met); }

  // wait() that tells all participants what the first one said.
  bool agree(bool halt) {
    bool& said = shared_->halt[turn_];
    turn_ = 1 - turn_;
    if (leads()) said = halt;
    wait();
    return said;
  }

  // This participant's part of [0, count), in whole granules.
  Range share(index count, index granule = 1) const {
    const index granules = (count + granule - 1) / granule;
    const index begin = granules * id_ / size_ * granule;
    const index end = granules * (id_ + 1) / size_ * granule;
    return {begin < count ? begin : count, end < count ? end : count};
  }

 private:
  int id_;
  int size_;
  int turn_ = 0;
  Shared* shared_;
};

// Runs work(context, id, size) on `size` threads, the caller being number 0, and returns size when all are done. It is
// at most `wanted`; 1 when another thread is using the team, when no thread can be made, or when wanted is 1. work must
// not throw. The threads have the caller's floating-point environment. Safe to call from several threads and after
// fork. The threads are our own, or those of the lender, if there is one, but never in the child of a fork, where it
// has lost them; a lender may end the process when it can make no thread.
int run_team(int wanted, void (*work)(void* context, int id, int size), void* context, const Threads& whose = {});

// The same, from a few tries at most a second ago, in the threads that such a call would use. It changes while a
// program runs: the system moves threads from core to core.
double recent_barrier_ns(int threads, const Threads& whose);

// Nanoseconds of one barrier among up to `threads` threads: the median of several tries; 0 when there is only one.
double barrier_ns(int threads);

}  // namespace lstm_fast
