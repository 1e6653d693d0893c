// What a cell is: a template CellOf<V> with the members below, in a file of cells/. Included inside a target region,
// once per instruction set.
//
//   gates           blocks of H rows of the weights
//   apart           the last of them whose sums over x and over h stand apart, since the cell needs both
//   carry           what it takes from step to step beside the product with h
//   from_registers  whether it runs on the sums in a tile's registers, or later on those that the tile has stored
//   forward         pre-activations of one unit, in the order of a gate row, and what is carried: one step
//   next_carry      the same from activated gates, for cells that carry something
//   backward        activated gates, what was carried into the step and out of it, and the gradients of h and of it; if
//   that is h,
//                   the first is the whole gradient
//   output          for cells with a projection: what that multiplies
//
// A gate row has `slots` vectors for `lanes` units: first `apart` sums over x that stand apart, then those that have
// parts from both, then `apart` over h. So the sums over x are the first `gates` slots, those over h the last.

template <class V, int count>
using Vectors = V[count];

template <class V, int slots>
struct CellStep {
  V gates[slots];  // activated
  V carry, h;
};

template <class V, int slots>
struct CellGradient {
  V dgates[slots];  // of the pre-activations
  V dcarry;
};

// The slots that a product reads or writes, and which gate's rows of the weights belong to each. Products depend on
// nothing else, so that cells share them.
template <int of_gates, int of_slots, int first_slot, int turn>
struct Slots {
  static constexpr int gates = of_gates;
  static constexpr int slots = of_slots;
  static constexpr int first = first_slot;
  static constexpr int gate(int position) { return (position + turn) % gates; }
  static constexpr int slot(int gate) { return first + (gate + gates - turn) % gates; }
};

// Rows of plain vectors, as the projection multiplies them.
using PlainSlots = Slots<1, 1, 0, 0>;

// The sums over x or over h, and what the packed weights have beside the weights.
template <int of_gates, int of_apart, bool from_x>
struct Window
    : Slots<of_gates, of_gates + of_apart, from_x ? 0 : of_apart, from_x ? (of_gates - of_apart) % of_gates : 0> {
  using Own =
      Slots<of_gates, of_gates + of_apart, from_x ? 0 : of_apart, from_x ? (of_gates - of_apart) % of_gates : 0>;
  static constexpr bool over_x = from_x;
  static constexpr int apart = of_apart;
  // Whether there is a row for a bias: over h only for gates that stand apart.
  static constexpr bool bias_row = over_x || apart > 0;
};

template <template <class> class CellOf, class V>
using InputWindow = Window<CellOf<V>::gates, CellOf<V>::apart, true>;
template <template <class> class CellOf, class V>
using RecurrentWindow = Window<CellOf<V>::gates, CellOf<V>::apart, false>;
