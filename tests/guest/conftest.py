"""Tiny guests need /dev/kvm: a machine without it fails, never skips."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
