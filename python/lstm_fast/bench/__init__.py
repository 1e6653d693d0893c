"""Measuring and checking, shared by ``lstm-fast bench``, ``lstm-fast verify`` and ``benches/``.

===============  ================================================================================
problems         READ FIRST: the list of kernels; a problem's shape and its arrays
points           the swept points; those of verify, of benches/ and of the certificate
truth            the float64 reference through layers and directions
tolerance        how far a result may be from the float64 reference
engines          what an engine is; lstm_fast itself
baseline         the NumPy baseline
peers/           PyTorch, ONNX Runtime, OpenVINO, JAX, a user's own
timing           engines in turn, medians; the FMA peak, the caches' rate
roofline         what these two allow a layer at best
memory           what a call of ours takes beyond its inputs and outputs
sweep            check, then time, every point
report           what every run prints and writes: progress bar, JSON
sweep_report     the sweep's tables, paths, JSON
compare          a run beside an earlier one
chart            the pictures
modules          module against module in PyTorch: what is called, how, the list of cases
module_sweep     checks them against torch.nn in float64, then times them
module_report    their tables, JSON and chart
verification     every kernel against the reference; the certificate
machine          CPU, GPU, environment, thread counts of the others
packages         optional packages: versions, import with a clear message
===============  ================================================================================

Nothing here imports rich, matplotlib or a peer before it is needed.
"""
