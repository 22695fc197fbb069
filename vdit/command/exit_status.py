"""Exit statuses of all commands, which launchers act upon; any other is a fault after which a restart may help."""

NUMERICS = 1
"""What `vdit.train --check` compared differs: this machine or software computes something else than the CPU."""

FAILED = 1
"""Some run of a sweep has failed for good (`launch.sweep`)."""

USER_ERROR = 2
"""A mistake of the user, told in one line: starting the same command again changes nothing."""

LOST_PEER = 69
"""Another process of the run is gone, hangs or has failed (EX_UNAVAILABLE): a restart of all goes on."""

STORAGE = 74
"""Storage fails for a reason that may pass (EX_IOERR): a restart goes on."""

PREEMPTED = 75
"""Asked to stop, by a signal or as nobody reads what it prints; what there is is saved (EX_TEMPFAIL): started again,
the same command resumes from there."""
