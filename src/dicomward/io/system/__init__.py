"""What the operating systems do differently, in one place: `calls` is chosen once, when this is imported.

`posix` and `windows` have the same names with the same meaning. All that `dicomward edge` and `dicomward enroll` need
goes through here: a test has mypy check that for Windows. On Linux the hot path uses the kernel's own calls.
"""

import sys

if sys.platform == "win32":
    from dicomward.io.system import windows as calls
else:
    from dicomward.io.system import posix as calls

__all__ = ["calls"]
