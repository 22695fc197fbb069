"""`vdit.sample` for runs on the tiny data set, whose text encoder only tests know: `python -m tests.sample_tiny`."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_sample_cli import Words

from vdit.models.text.text_encoders import TEXT_ENCODERS

TEXT_ENCODERS["random"] = Words
runpy.run_module("vdit.sample", run_name="__main__")
