// Steps that follow each other closely.
#pragma once

#include <algorithm>
#include <chrono>

namespace lstm_fast::python {

// Whether the threads that a step would use are awake, as they are for a while after each use. Waking them, or waiting
// for one whose core is busy, takes longer than a step, so they are asked only by one of a series of steps, and not for
// a while after that was slow.
class Series {
 public:
  // `gap`: how long threads stay awake.
  explicit Series(std::chrono::microseconds gap) : gap_(gap) {}

  bool goes_on() {
    start_ = Clock::now();
    length_ = start_ - end_ < gap_ ? std::min(length_ + 1, long_enough) : 0;
    if (rest_ > 0) --rest_;
    return length_ == long_enough && rest_ == 0;
  }

  // After a step of so many flops by that many threads.
  void step(double flops, int threads) {
    end_ = Clock::now();
    const std::chrono::duration<double> alone{flops / 2e10};  // that many a second
    // The first one woke them.
    if (threads > 1 && together_) judge(end_ - start_ > 3 * alone + patience);
    together_ = threads > 1;
  }

 private:
  // The longer a rest, the more slow steps came close together: now and then a core is lost to somebody for a moment,
  // which is no reason to stay alone.
  void judge(bool slow) {
    if (slow) {
      rest_ = next_rest_;
      next_rest_ = std::min(2 * next_rest_, longest_rest);
      good_ = 0;
    } else if (++good_ == forgiven_after) {
      next_rest_ = shortest_rest;
      good_ = 0;
    }
  }

  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds patience{20};
  static constexpr int long_enough = 4;  // steps before this one
  static constexpr int shortest_rest = 64, longest_rest = 4096, forgiven_after = 256;

  std::chrono::microseconds gap_;
  Clock::time_point start_, end_;
  int length_ = 0;  // up to long_enough
  int rest_ = 0;
  int next_rest_ = shortest_rest;
  int good_ = 0;  // steps together since the last slow one
  bool together_ = false;
};

}  // namespace lstm_fast::python
