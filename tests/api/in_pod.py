"""Runs a module of an operator as in a pod: the service account is a folder, no kubeconfig is read.

::

    python3 in_pod.py FOLDER MODULE

PyYAML, which reads kubeconfig files on a host, is not imported in a pod either.
"""

import runpy
import sys
from pathlib import Path

from pilothouse.kube import config

if __name__ == "__main__":
    _, folder, module = sys.argv
    config.SERVICE_ACCOUNT = Path(folder)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
