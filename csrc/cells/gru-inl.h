// THE EQUATIONS of the GRU on `lanes` hidden units of one row, for every dtype and instruction set: PyTorch's nn.GRU,
// whose reset gate multiplies what the candidate gets from h after the product (Cho et al., 2014, variant 3).

template <class V>
struct GruCell {
  static constexpr int gates = 3;  // r, z, n; in a gate row n_x, r, z, n_h, of which n takes the place of n_x
  static constexpr int apart = 1;  // n
  static constexpr int slots = gates + apart;
  static constexpr Carry carry = Carry::h;
  static constexpr bool from_registers = true;

  static LF_INLINE V next_carry(const Vectors<V, slots>& s, V h_prev) {
    const auto& [n, r, z, n_h] = s;
    return fma(z, sub(h_prev, n), n);
  }

  // a: pre-activations, of n from x and from h
  static LF_INLINE CellStep<V, slots> forward(const Vectors<V, slots>& a, V h_prev, Activation) {
    const auto& [n_x, a_r, a_z, n_h] = a;
    const V r = sigmoid(a_r);
    const V z = sigmoid(a_z);
    const V n = tanh(fma(r, n_h, n_x));
    const V h = next_carry({n, r, z, n_h}, h_prev);
    return {{n, r, z, n_h}, h, h};
  }

  static LF_INLINE CellGradient<V, slots> backward(const Vectors<V, slots>& s, V h_prev, V, V dh, V, Activation) {
    const auto& [n, r, z, n_h] = s;
    const V one = V::set(1);
    const V da_n = mul(mul(dh, sub(one, z)), fma(neg(n), n, one));
    const V da_r = mul(mul(da_n, n_h), mul(r, sub(one, r)));
    const V da_z = mul(mul(dh, sub(h_prev, n)), mul(z, sub(one, z)));
    return {{da_n, da_r, da_z, mul(da_n, r)}, mul(dh, z)};
  }
};
