// Who computes: the participants of one call, the crews of its directions, and when it is to stop.
#pragma once

#include <atomic>

#include "threads.h"

namespace lstm_fast {

// The participants of one call: all of them, and the crews that the directions are given to.
class Company {
 public:
  Company(int threads, const Threads& whose, const Poll& poll)
      : threads_(threads),
        whose_(whose),
        poll_(poll),
        all_(threads),
        halves_{Crew::Shared(threads), Crew::Shared(threads)} {}

  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

  // Runs work(company, crew) in every participant, and says how, if somebody wants to know.
  template <class Work>
  void run(Work& work, bool split_units) {
    struct Call {
      Company* company;
      Work* work;
    } call{this, &work};
    const int participants = run_team(
        threads_,
        [](void* context, int id, int size) {
          auto& c = *static_cast<Call*>(context);
          Crew everybody(id, size, &c.company->all_);
          (*c.work)(*c.company, everybody);
        },
        &call, whose_);
    if (whose_.used) *whose_.used = {participants, split_units && participants > 1};
  }

  // run(crew, direction, workspace) for every direction: two at once, each by its own crew, if `split`, else one after
  // the other. All have finished when it returns. False if the call is to stop.
  template <class Run>
  bool for_directions(Crew& everybody, int directions, bool split, const Run& run) {
    if (split && everybody.size() > 1) {
      const int first = (everybody.size() + 1) / 2;
      const int direction = everybody.id() < first ? 0 : 1;
      Crew crew = direction == 0 ? Crew(everybody.id(), first, &halves_[0])
                                 : Crew(everybody.id() - first, everybody.size() - first, &halves_[1]);
      run(crew, direction, direction);
      return !halted(everybody, everybody);
    }
    for (int direction = 0; direction < directions; ++direction) {
      run(everybody, direction, 0);
      if (halted(everybody, everybody)) return false;
    }
    return true;
  }

  // Barrier of a crew, at which all of it learn whether the call is to stop. Only the calling thread asks.
  bool halted(const Crew& everybody, Crew& crew) {
    if (everybody.leads() && !stopped() && poll_.stop && poll_.stop(poll_.context))
      stop_.store(true, std::memory_order_relaxed);
    return crew.agree(stopped());
  }

 private:
  int threads_;
  const Threads& whose_;
  Poll poll_;
  std::atomic<bool> stop_{false};
  Crew::Shared all_;
  Crew::Shared halves_[2];
};

// Takes turns with the others at a list of small tasks.
class Turns {
 public:
  explicit Turns(const Crew& crew) : crew_(crew) {}
  bool mine() { return next_++ % crew_.size() == crew_.id(); }

 private:
  const Crew& crew_;
  int next_ = 0;
};

}  // namespace lstm_fast
