// THE EQUATIONS of the LSTM on `lanes` hidden units of one row, for every dtype and instruction set: PyTorch's nn.LSTM.

template <class V>
struct LstmGates {
  V i, f, g, o;
};

template <class V>
struct LstmStep {
  LstmGates<V> gates;  // activated
  V c, h;
};

template <class V>
struct LstmStepGradient {
  LstmGates<V> dgates;  // of the pre-activations
  V dc_prev;
};

template <class V>
struct LstmCell {
  static constexpr int gates = 4;

  static LF_INLINE V next_c(V i, V f, V g, V c_prev) { return fma(f, c_prev, mul(i, g)); }

  // a: pre-activations
  static LF_INLINE LstmStep<V> forward(LstmGates<V> a, V c_prev) {
    const V i = sigmoid(a.i);
    const V f = sigmoid(a.f);
    const V g = tanh(a.g);
    const V o = sigmoid(a.o);
    const V c = next_c(i, f, g, c_prev);
    return {{i, f, g, o}, c, mul(o, tanh(c))};
  }

  // dc: gradient that reaches c from the step after
  static LF_INLINE LstmStepGradient<V> backward(LstmGates<V> s, V c_prev, V c, V dh, V dc) {
    const V one = V::set(1);
    const V tc = tanh(c);
    dc = fma(mul(dh, s.o), fma(neg(tc), tc, one), dc);
    const V da_i = mul(mul(dc, s.g), mul(s.i, sub(one, s.i)));
    const V da_f = mul(mul(dc, c_prev), mul(s.f, sub(one, s.f)));
    const V da_g = mul(mul(dc, s.i), fma(neg(s.g), s.g, one));
    const V da_o = mul(mul(dh, tc), mul(s.o, sub(one, s.o)));
    return {{da_i, da_f, da_g, da_o}, mul(dc, s.f)};
  }
};
