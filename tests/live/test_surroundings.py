"""What a run depends on beside model and data."""

import json

import numpy as np
import torch

import bncli
from bncli.live.surroundings import surroundings


def test_versions_threads_and_the_processor():
    found = surroundings()
    assert json.loads(json.dumps(found)) == found
    assert (found["bncli"], found["numpy"]) == (bncli.__version__, np.__version__)
    assert found["torch"] == str(torch.__version__)
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
