// THE EQUATIONS of the vanilla RNN on `lanes` hidden units of one row, for every dtype and instruction set: PyTorch's
// nn.RNN, and two activations more.

template <class V>
struct RnnCell {
  static constexpr int gates = 1;  // in a gate row h takes the place of the pre-activation
  static constexpr int apart = 0;
  static constexpr Carry carry = Carry::nothing;
  static constexpr bool from_registers = false;  // four activations in every tile would be much code

  static LF_INLINE CellStep<V, gates> forward(const Vectors<V, gates>& a, V, Activation activation) {
    const auto& [sum] = a;
    const V h = activated(sum, activation);
    return {{h}, h, h};
  }

  static LF_INLINE CellGradient<V, gates> backward(const Vectors<V, gates>& s, V, V, V dh, V, Activation activation) {
    const auto& [h] = s;
    return {{through(dh, h, activation)}, dh};
  }

 private:
  static LF_INLINE V activated(V a, Activation activation) {
    switch (activation) {
      case Activation::tanh:
        return tanh(a);
      case Activation::relu:
        return max(V::set(0), a);
      case Activation::sigmoid:
        return sigmoid(a);
      default:
        return a;
    }
  }

  // dh times the derivative of the activation that gave h. That of relu is 0 at 0, as in PyTorch.
  static LF_INLINE V through(V dh, V h, Activation activation) {
    const V one = V::set(1);
    switch (activation) {
      case Activation::tanh:
        return mul(dh, fma(neg(h), h, one));
      case Activation::relu:
        return where_positive(h, dh);
      case Activation::sigmoid:
        return mul(dh, mul(h, sub(one, h)));
      default:
        return dh;
    }
  }
};
