// The thread team and the kernels that it runs, for ThreadSanitizer: what one participant writes in plain memory and
// another reads must be ordered by the team's barriers. test_stress_threads.py compiles and runs it, without Python.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "kernels.h"
#include "stack.h"
#include "stream.h"
#include "threads.h"

namespace {

using lstm_fast::index;

void require(bool condition, const char* what) {
  if (condition) return;
  std::printf("wrong: %s\n", what);
  std::exit(1);
}

// Every participant writes its slot, then reads those of all others, several times over.
struct Exchange {
  explicit Exchange(int threads) : shared(threads), slots(static_cast<std::size_t>(threads)) {}
  lstm_fast::Crew::Shared shared;
  std::vector<int> slots;
  static constexpr int rounds = 20;

  static void work(void* context, int id, int size) {
    auto& self = *static_cast<Exchange*>(context);
    lstm_fast::Crew crew(id, size, &self.shared);
    for (int round = 0; round < rounds; ++round) {
      self.slots[static_cast<std::size_t>(id)] = round + 1;
      crew.wait();
      for (int other = 0; other < size; ++other) {
        require(self.slots[static_cast<std::size_t>(other)] == round + 1, "a barrier let somebody pass early");
      }
      const bool halt = crew.agree(id == 0 && round == rounds - 1);
      require(halt == (round == rounds - 1), "not all agree with the first participant");
    }
  }
};

void exchange(int threads, int calls) {
  for (int call = 0; call < calls; ++call) {
    Exchange exchange(threads);
    const int size = lstm_fast::run_team(threads, Exchange::work, &exchange);
    require(size == threads || size == 1, "neither the whole team nor the caller alone");
  }
}

template <class T>
std::vector<T> random_numbers(std::mt19937& generator, index count) {
  std::uniform_real_distribution<double> distribution(-0.5, 0.5);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = static_cast<T>(distribution(generator));
  return values;
}

// Forward and backward of one stack; all results in one vector.
template <class T>
std::vector<T> solve(const lstm_fast::Shape& shape, const std::vector<index>& lengths, double p, int threads,
                     lstm_fast::Split split, bool save = true) {
  using namespace lstm_fast;
  std::mt19937 generator(7);
  const Isa& isa = isa_scalar_fma.usable() ? isa_scalar_fma : isa_scalar;
  const index Ho = shape.P > 0 ? shape.P : shape.H;
  const index count = shape.layers * shape.directions;
  const index width = shape.directions * Ho;
  const auto x = random_numbers<T>(generator, shape.T * shape.B * shape.I);
  const auto dy = random_numbers<T>(generator, shape.T * shape.B * width);
  const auto h0 = random_numbers<T>(generator, count * shape.B * Ho);
  const auto c0 = random_numbers<T>(generator, count * shape.B * shape.H);
  std::vector<std::vector<T>> owned;
  std::vector<std::vector<T>> gradients;
  std::vector<Weights<T>> weights;
  std::vector<WeightGradients<T>> weight_gradients;
  const auto give = [&](index size) {
    owned.push_back(random_numbers<T>(generator, size));
    return owned.back().data();
  };
  const auto room = [&](index size) {
    gradients.emplace_back(static_cast<std::size_t>(size));
    return gradients.back().data();
  };
  for (index at = 0; at < count; ++at) {
    const index inputs = at < shape.directions ? shape.I : width;
    const index rows = 4 * shape.H;
    weights.push_back({give(rows * inputs), give(rows * Ho), give(rows), give(rows),
                       shape.P > 0 ? give(shape.P * shape.H) : nullptr});
    weight_gradients.push_back(
        {room(rows * inputs), room(rows * Ho), room(rows), shape.P > 0 ? room(shape.P * shape.H) : nullptr});
  }
  T* const y = room(shape.T * shape.B * width);
  T* const hn = room(count * shape.B * Ho);
  T* const cn = room(count * shape.B * shape.H);
  const index* const own_lengths = lengths.empty() ? nullptr : lengths.data();
  const Dropout dropout{save ? p : 0, 3};
  Used used;
  const Threads team{.most = threads, .least_flops = 0, .least_chunk_flops = 0, .split = split, .used = &used};
  Block reserve(save ? reserve_bytes<T>(isa, shape, own_lengths, p > 0) : 1);
  ForwardArgs<T> forward_args{};
  forward_args.shape = shape;
  forward_args.x = {x.data(), shape.B * shape.I, shape.I};
  forward_args.h0 = h0.data();
  forward_args.c0 = c0.data();
  forward_args.weights = weights.data();
  forward_args.lengths = own_lengths;
  forward_args.y = y;
  forward_args.hn = hn;
  forward_args.cn = cn;
  forward_args.reserve = save ? reserve.data() : nullptr;
  forward_args.dropout = dropout;
  forward_args.threads = team;
  require(forward(isa, forward_args), "forward was stopped");
  require(used.threads == threads || used.threads == 1, "neither the whole team nor the caller alone");
  const bool can_share = threads / shape.directions > 1 && shape.P == 0 && shape.T > 1;
  require(used.units == (used.threads > 1 && can_share && split == Split::units), "rows in place of units");
  if (save) {
    BackwardArgs<T> backward_args{};
    backward_args.shape = shape;
    backward_args.x = forward_args.x;
    backward_args.y = y;
    backward_args.reserve = reserve.data();
    backward_args.lengths = own_lengths;
    backward_args.dy = {dy.data(), shape.B * width, width};
    backward_args.dhn = h0.data();
    backward_args.dcn = c0.data();
    backward_args.dx = room(shape.T * shape.B * shape.I);
    backward_args.dh0 = room(count * shape.B * Ho);
    backward_args.dc0 = room(count * shape.B * shape.H);
    backward_args.weights = weight_gradients.data();
    backward_args.dropout = dropout;
    backward_args.threads = team;
    backward_args.weights_again = weights.data();
    require(backward(isa, backward_args), "backward was stopped");
  }
  std::vector<T> all;
  for (const auto& values : gradients) all.insert(all.end(), values.begin(), values.end());
  return all;
}

template <class T>
void compute(int threads) {
  using lstm_fast::Shape;
  using lstm_fast::Split;
  struct Case {
    Shape shape;
    std::vector<index> lengths;
    double p;
  };
  // Several chunks of 192 rows each, ragged and not, and single steps; every feature that brings a buffer of its own.
  const std::vector<Case> cases{
      {{.T = 9, .B = 5, .I = 3, .H = 7}, {}, 0},
      {{.T = 120, .B = 7, .I = 2, .H = 5}, {120, 3, 0, 77, 50, 120, 1}, 0},
      {{.T = 60, .B = 9, .I = 3, .H = 6, .P = 2, .layers = 2, .directions = 2}, {60, 1, 13, 44, 59, 2, 0, 31, 60}, 0.5},
      {{.T = 130, .B = 4, .I = 2, .H = 4, .P = 3}, {9, 130, 70, 128}, 0},
      {{.T = 70, .B = 6, .I = 1, .H = 3, .layers = 3}, {}, 0.25},
      {{.T = 110, .B = 2, .I = 5, .H = 20, .layers = 2}, {110, 81}, 0.25},
      {{.T = 1, .B = 4, .I = 9, .H = 5, .layers = 2, .weights_again = true}, {}, 0},
      {{.T = 1, .B = 8, .I = 9, .H = 13, .weights_again = true}, {}, 0},
  };
  for (const Case& problem : cases) {
    const auto same = [](const std::vector<T>& one, const std::vector<T>& other) {
      return std::memcmp(one.data(), other.data(), one.size() * sizeof(T)) == 0;
    };
    const auto expected = solve<T>(problem.shape, problem.lengths, problem.p, 1, Split::rows);
    const auto inferred = solve<T>(problem.shape, problem.lengths, problem.p, 1, Split::rows, false);
    Shape lean = problem.shape;
    lean.save = lstm_fast::Save::lean;
    for (const Split split : {Split::rows, Split::units}) {
      require(same(solve<T>(problem.shape, problem.lengths, problem.p, threads, split), expected),
              "bits depend on the threads");
      require(same(solve<T>(lean, problem.lengths, problem.p, threads, split), expected),
              "bits depend on what is saved");
      require(same(solve<T>(problem.shape, problem.lengths, problem.p, threads, split, false), inferred),
              "bits of inference depend on the threads");
    }
  }
}

// Steps of a stream, each by another number of threads; all results in one vector.
std::vector<float> stream(const std::vector<int>& threads) {
  using namespace lstm_fast;
  std::mt19937 generator(11);
  const Isa& isa = isa_scalar_fma.usable() ? isa_scalar_fma : isa_scalar;
  const Shape shape{.T = 1, .B = 2, .I = 3, .H = 70, .layers = 3};
  std::vector<std::vector<float>> owned;
  const auto give = [&](index size) {
    owned.push_back(random_numbers<float>(generator, size));
    return owned.back().data();
  };
  std::vector<Weights<float>> weights;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const index rows = 4 * shape.H;
    weights.push_back(
        {give(rows * (layer == 0 ? shape.I : shape.H)), give(rows * shape.H), give(rows), give(rows), nullptr});
  }
  Stream<float> steps(isa, shape, weights.data());
  std::vector<float> all;
  for (const int count : threads) {
    const auto x = random_numbers<float>(generator, shape.B * shape.I);
    std::vector<float> y(static_cast<std::size_t>(shape.B * shape.H));
    Used used;
    const Threads team{.most = count, .least_step_flops = 0, .awake = true, .used = &used};
    steps.step(x.data(), shape.I, y.data(), team);
    require(used.threads == count || used.threads == 1, "neither the whole team nor the caller alone");
    all.insert(all.end(), y.begin(), y.end());
  }
  return all;
}

void streams() {
  const std::vector<int> threads{2, 3, 1, 4, 2, 4, 3};
  require(stream(threads) == stream(std::vector<int>(threads.size(), 1)), "bits of a stream depend on the threads");
}

}  // namespace

int main() {
  for (const int threads : {2, 3, 7, 4}) exchange(threads, 20);
  compute<float>(2);
  compute<double>(4);
  streams();
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([caller] {
      exchange(2 + caller, 20);
      compute<float>(2 + caller % 2);
      streams();
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::puts("right");
}
