// THE EQUATIONS of the LSTM on `lanes` hidden units of one row, for every dtype and instruction set: PyTorch's nn.LSTM.

template <class V>
struct LstmCell {
  static constexpr int gates = 4;  // i, f, g, o
  static constexpr int apart = 0;
  static constexpr Carry carry = Carry::c;
  static constexpr bool from_registers = true;

  // s: activated gates
  static LF_INLINE V next_carry(const Vectors<V, gates>& s, V c_prev) {
    const auto& [i, f, g, o] = s;
    return fma(f, c_prev, mul(i, g));
  }

  // a: pre-activations
  static LF_INLINE CellStep<V, gates> forward(const Vectors<V, gates>& a, V c_prev, Activation) {
    const auto& [a_i, a_f, a_g, a_o] = a;
    const V i = sigmoid(a_i);
    const V f = sigmoid(a_f);
    const V g = tanh(a_g);
    const V o = sigmoid(a_o);
    const V c = next_carry({i, f, g, o}, c_prev);
    return {{i, f, g, o}, c, mul(o, tanh(c))};
  }

  // dc: gradient that reaches c from the step after
  static LF_INLINE CellGradient<V, gates> backward(const Vectors<V, gates>& s, V c_prev, V c, V dh, V dc, Activation) {
    const auto& [i, f, g, o] = s;
    const V one = V::set(1);
    const V tc = tanh(c);
    dc = fma(mul(dh, o), fma(neg(tc), tc, one), dc);
    const V da_i = mul(mul(dc, g), mul(i, sub(one, i)));
    const V da_f = mul(mul(dc, c_prev), mul(f, sub(one, f)));
    const V da_g = mul(mul(dc, i), fma(neg(g), g, one));
    const V da_o = mul(mul(dh, tc), mul(o, sub(one, o)));
    return {{da_i, da_f, da_g, da_o}, mul(dc, f)};
  }

  // What the projection multiplies.
  static LF_INLINE V output(const Vectors<V, gates>& s, V c) {
    const auto& [i, f, g, o] = s;
    return mul(o, tanh(c));
  }
};
