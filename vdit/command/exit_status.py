"""Exit statuses of all commands, which launchers act upon; any other is a fault after which a restart may help."""

NUMERICS = 1
"""What `vdit.train --check` compared differs: this machine or software computes something else than the CPU."""

FAILED = 1
"""Some run of a sweep has failed for good (`launch.sweep`)."""

USER_ERROR = 2
"""A mistake of the user, told in one line: starting the same command again changes nothing."""

LOST_PEER = 69
"""Another process of the run is gone, hangs or has failed (EX_UNAVAILABLE): restarting all of them resumes it."""

STORAGE = 74
"""Storage fails for a reason that may pass (EX_IOERR): a restart resumes."""

PREEMPTED = 75
"""Stopped by a signal or a closed output pipe; finished work is saved (EX_TEMPFAIL): started again,
the same command resumes from there."""
