"""The tests of bncli, which mirror its packages."""

import os
import sys

# Tensors as small as the tests' only wait for a second thread, which on a busy machine burns more
# time than the test takes. What depends on the number of threads sets it by itself. It stands here
# because NumPy and PyTorch read it when they are imported, and so does every process of a test.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without bytecode files, every process that a test starts compiles bncli anew, which takes half as
# long again, and every worker of pytest rewrites the assertions of all modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
