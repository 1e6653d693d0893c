// A stack of layers in one direction, one step at a time.
#pragma once

#include <vector>

#include "packed.h"
#include "plan.h"

namespace lstm_fast {

template <class T>
class Stream {
 public:
  // Copies the weights; all states are zero. Of the shape, T does not matter. Throws std::bad_alloc.
  Stream(const Isa& isa, Shape shape, const Weights<T>* weights);

  // y [B,Ho] is the last layer's h after one more step, with x [B,I] in rows `x_stride` apart. Allocates nothing, but
  // the first time that a team is asked for. Not for two callers at once.
  void step(const T* x, index x_stride, T* y, const Threads& threads);

  // h [L,B,Ho] and c [L,B,H] after the last step. c: null for cells without.
  void get_state(T* h, T* c) const;
  void set_state(const T* h, const T* c);

  const Shape& shape() const { return plan_.shape; }

 private:
  void place(Arena& arena);
  void run(Crew& crew) const;

  const Plan<T> plan_;
  const PackedWeights<T> weights_;
  Block block_;
  Crew::Shared shared_;
  std::uint64_t met_ = 0;  // how often the participants of all steps so far have waited for each other
  std::vector<ForwardChunk<T>> layers_;
  std::vector<T**> y_rows_;  // [layer][B]
  const T** x_rows_ = nullptr;
  index* all_rows_ = nullptr;  // 0..B-1
  index* first_row_ = nullptr;
};

}  // namespace lstm_fast
