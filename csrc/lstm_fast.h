// lstm_fast: recurrent-network kernels. READ FIRST. This library knows no Python; src/ binds it.
//
// Legend
//   T, B, I, H, P   steps, batch, input size, hidden size, projection size (0: none); indices t, b, k, j
//   L, D            layers, directions (1 or 2); a state or a weight of layer l and direction d has index l*D + d
//   Ho              P if P > 0, else H: the width of h
//   G               gates of a cell, in the order of its blocks of G*H rows: LSTM i, f, g, o (input gate, forget gate,
//                   candidate, output gate), GRU r, z, n (reset gate, update gate, candidate), RNN its only one
//   x [T,B,I]  y [T,B,D*Ho]  h0, hn [L*D,B,Ho]  c0, cn [L*D,B,H]
//   w_ih [G*H,I] (layer 0), [G*H,D*Ho] (above)  w_hh [G*H,Ho]  b_ih, b_hh [G*H]  w_hr [P,H]
//                   c and w_hr are the LSTM's; where others are asked for them, null stands for none
//   dX              gradient of the loss with respect to X
//   reserve         what forward saves for backward (oneDNN calls it workspace); never written by backward
//   workspace       scratch, dead after the call
//
// Arrays are dense and row-major unless a stride is named. No output may overlap an input or another output.
// Bits: results do not depend on the instruction set, the other rows of the batch, the chunk size or the number of
// threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "memory.h"

namespace lstm_fast {

using index = std::int64_t;

enum class Cell { lstm, gru, rnn };
inline constexpr int cell_count = 3;

// Of the vanilla RNN; other cells have theirs.
enum class Activation { tanh, relu, sigmoid, identity };

// One instruction set: a row of the best-first list in dispatch.cpp.
struct Isa;

// The set in use: LSTM_FAST_ISA, else the best that this CPU runs. Throws std::invalid_argument at first use if the
// variable names none of them.
const Isa& active_isa();
void set_isa(std::string_view name);         // throws std::invalid_argument with the choices
const Isa* find_isa(std::string_view name);  // null: not one that this CPU runs
const char* isa_name(const Isa& isa);
std::vector<const char*> isas_built();
std::vector<const char*> isas_usable();  // best first

// GFLOP/s of one core in dependent-free fused multiply-adds, best of several tries within about `seconds`.
template <class T>
double fma_peak(const Isa& isa, double seconds);

// Bytes per nanosecond at which one core reads an array of about `bytes` bytes again and again, best of several tries
// within about `seconds`: the rate of the cache that holds it. Throws std::bad_alloc.
template <class T>
double read_rate(const Isa& isa, std::size_t bytes, double seconds);

// What a training forward keeps for backward. Results do not depend on it.
enum class Save {
  gates,  // the activated gates and c of every step
  // c at the boundaries of chunks of time: backward computes the gates again. Of no effect for one step without
  // projection.
  lean,
};

struct Shape {
  Cell cell = Cell::lstm;
  index T, B, I, H;
  index P = 0;
  int layers = 1;
  int directions = 1;
  bool reverse = false;  // of a single direction: from every row's last step to its first
  // x, y, cells and their gradients are [N,width], N being the sum of lengths: the rows of step 0, then those of step
  // 1, each row as long as it is active. lengths must not increase from row to row. PyTorch's PackedSequence.
  bool packed = false;
  // The caller gives backward the weights that forward had: the reserve need not hold a copy of them. Of no effect but
  // for one step without projection, which the copy would slow down.
  bool weights_again = false;
  Save save = Save::gates;  // of no effect in inference
  Activation activation = Activation::tanh;
};

// A [T,B,width] input whose rows are dense: element (t,b,k) is data[t*t_stride + b*b_stride + k]. Strides may be 0 or
// negative. Of a packed one, b_stride is that of its rows, and t_stride has no meaning.
template <class T>
struct Sequence {
  const T* data;
  index t_stride, b_stride;
};

template <class T>
struct Weights {
  const T* w_ih;
  const T* w_hh;
  const T* b_ih;  // null: none
  const T* b_hh;  // null: none
  const T* w_hr;  // null: no projection
};

// Each may be null: not wanted. Assigned, not accumulated. b is the gradient of either bias, where they are equal; b_hh
// is that of the other of a GRU, and null for other cells.
template <class T>
struct WeightGradients {
  T* w_ih;
  T* w_hh;
  T* b;
  T* w_hr;
  T* b_hh = nullptr;
};

// Another library's threads, by the interface of GCC's OpenMP run-time library, which others have too. A caller that
// has just used them should lend them: idle ones of that library spin for milliseconds, and ours would fight them for
// cores.
struct Lender {
  void (*parallel)(void (*work)(void*), void* context, unsigned threads, unsigned flags);  // GOMP_parallel
  int (*number)();                                                                         // omp_get_thread_num
  int (*count)();                                                                          // omp_get_num_threads
};

// What the participants of a step without projection share out: rows of the batch, or hidden units, after which they
// must wait for each other at every step. The faster one is found from the sizes and the measured cost of a barrier.
enum class Split { faster, rows, units };

// How a call was shared out.
struct Used {
  int threads = 0;
  bool units = false;
};

// How many threads a call may use, the caller included, and how much work each must get: a call of few flops is faster
// alone than with a team that must be woken and waited for. Results do not depend on either.
struct Threads {
  int most = 1;
  double least_flops = 5e7;         // of a call that wakes the team
  double least_chunk_flops = 2e6;   // of each thread in every chunk of time
  double least_step_flops = 1.2e5;  // of each thread for one row of a single step, if `awake`
  bool awake = false;               // the team need not be woken: it serves even a single step
  Split split = Split::faster;
  Used* used = nullptr;            // out, if not null
  const Lender* lender = nullptr;  // null: our own threads
  int lent = 0;                    // that the lender has: asking for fewer would make it end the others
};

// Called by the calling thread between chunks of work; true asks to stop.
struct Poll {
  bool (*stop)(void* context) = nullptr;
  void* context = nullptr;
};

// Between layers, in training: see dropout.h.
struct Dropout {
  double p = 0;  // 0..1
  std::uint64_t seed = 0;
};

// What training may do to the state and its gradient on the way.
struct Aids {
  // Before steps k, 2k, ... of a row, counted from its own start in the direction of the layer, the gradient of its
  // state is cut; 0: never.
  index truncate = 0;
  // The gradient that reaches h after a step, from y and from the step after, is clipped to [-grad_clip, grad_clip]
  // before the step; 0: never.
  double grad_clip = 0;
  // [T,B] in the caller's order: before the step that reads x[t] of row b its state is zeroed, and the gradient of what
  // it was is 0; null: never.
  const std::uint8_t* resets = nullptr;
};

// Work is split into outputs among threads, sums never.
struct Range {
  index begin, end;
};

template <class T>
class PackedWeights;

template <class T>
struct ForwardArgs {
  Shape shape;
  Sequence<T> x;
  const T* h0;                // null: zero
  const T* c0;                // null: zero
  const Weights<T>* weights;  // [L*D]
  const index* lengths;       // [B], each 0..T, in any order; null: every row has T steps
  T* y;
  T* hn;
  T* cn;
  std::byte* reserve;  // reserve_bytes(), aligned to reserve_alignment; null: inference
  Dropout dropout;     // p = 0 in inference
  Threads threads;
  Poll poll;
  T* cells = nullptr;  // [T,B,D*H] c after every step of the last layer; null: not wanted. Needs a reserve
  // These weights, packed for this instruction set; null: they are packed at every call.
  const PackedWeights<T>* packed = nullptr;
  const std::uint8_t* resets = nullptr;  // as in Aids
};

template <class T>
struct BackwardArgs {
  Shape shape;
  Sequence<T> x;             // as given to forward
  const T* y;                // as returned by forward
  const std::byte* reserve;  // as written by forward
  const index* lengths;
  Sequence<T> dy;  // data null: zero
  const T* dhn;    // null: zero
  const T* dcn;    // null: zero
  T* dx;           // null: not wanted
  T* dh0;
  T* dc0;
  const WeightGradients<T>* weights;  // [L*D]
  Dropout dropout;
  Threads threads;
  Poll poll;
  Sequence<T> dcells = {nullptr, 0, 0};       // data null: zero
  const Weights<T>* weights_again = nullptr;  // [L*D], if the shape says so
  Aids aids;
};

// The activated gates of forward and what it carried from step to step, in plain layout: gates [slots(cell),T,B,H],
// c [T,B,H] (LSTM c, GRU h, RNN null). The gates are in the order of a row: LSTM i, f, g, o; GRU n, r, z and what n
// gets from h; RNN h.
template <class T>
struct StatesArgs {
  Shape shape;
  Sequence<T> x;  // x, y: as in BackwardArgs
  const T* y;
  const std::byte* reserve;
  const index* lengths;
  bool dropout;
  int layer;
  int direction;
  T* gates;
  T* c;
  Poll poll;
  const std::uint8_t* resets = nullptr;
};

// Whether it has c: the others carry h alone.
inline bool has_c(Cell cell) { return cell == Cell::lstm; }
// Whether its two biases have gradients of their own.
bool has_two_biases(Cell cell);
// Blocks of H rows of the weights.
int gates_of(Cell cell);
// Arrays of gates that states() gives.
int slots_of(Cell cell);

// Bytes of the reserve; throws std::bad_alloc when they exceed the address space.
template <class T>
std::size_t reserve_bytes(const Isa& isa, const Shape& shape, const index* lengths, bool dropout);

// All return false if `poll` asked to stop: outputs are then undefined. They throw std::bad_alloc before any work,
// never later. A reserve belongs to the instruction set that wrote it.
template <class T>
bool forward(const Isa& isa, const ForwardArgs<T>& args);
template <class T>
bool backward(const Isa& isa, const BackwardArgs<T>& args);
template <class T>
bool states(const Isa& isa, const StatesArgs<T>& args);

}  // namespace lstm_fast
