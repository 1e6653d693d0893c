"""What ``lstm-fast demo NAME`` runs: a module for each demo, with ``main(argv) -> exit code``.

================  ==============================================================================
stock             one LSTM unit followed by hand, then trained
text              a language model learns Python's documentation, by characters and by words
topics            a classifier learns from which part of that documentation a sentence comes
digits            plain nn.LSTM and the accelerated one learn handwritten digits, pixel by pixel
recall            RNN, GRU and LSTM have to tell the first symbol of a long sequence
gradients         not a demo but ``lstm-fast gradients``: gradients by distance
corpus            the text: training and held-out part, characters and words as numbers
sentences         its sentences with their groups of topics, and as ragged batches
language_model    embedding, LSTM, softmax: loss, gradients, generated text
classifier        embedding, bidirectional LSTM, softmax: many to one
bag_of_words      the classifier without an LSTM that it has to beat
parts             what both networks share: dropout, softmax loss, embedding's gradient
side_by_side      copies of a PyTorch model on the same batches: losses, accuracies, seconds
training          the loop: streams, carried state, schedule, time limit
adam, progress    the optimiser; the bar
chart             the pictures of learning
memory_chart      those of remembering: gradients and recall by distance, gates over a sentence
================  ==============================================================================

NumPy around the compiled layer; rich and matplotlib make it nicer where they are installed and are not needed. Only
digits and gradients need more: PyTorch and scikit-learn; rich.
"""
