"""The command line as a module, for programs that start modules, such as torchrun."""

import sys

from qpm_vision.cli import main

sys.exit(main())
