"""What ``lstm-fast demo NAME`` runs: a module for each demo, with ``main(argv) -> exit code``.

================  ==============================================================================
stock             one LSTM unit followed by hand, then trained
text              a language model learns Python's documentation, by characters and by words
corpus            the text: training and held-out part, characters and words as numbers
language_model    embedding, LSTM, softmax: loss, gradients, generated text
training          the loop: streams, carried state, schedule, time limit
adam, progress    the optimiser; the bar
chart             the pictures
================  ==============================================================================

NumPy around the compiled layer; rich and matplotlib make it nicer where they are installed and are not needed.
"""
