"""``python -m lstm_fast`` is the command ``lstm-fast``."""

import sys

from lstm_fast.cli import main

sys.exit(main())
