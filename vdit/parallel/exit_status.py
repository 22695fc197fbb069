"""Exit statuses of `vdit.train`, which launchers act upon; any other is a failure after which a restart may help."""

NUMERICS = 1
"""What --check compared differs: this machine or software computes something else than the CPU."""

USER_ERROR = 2
"""A mistake of the user, told in one line: starting it again changes nothing."""

PREEMPTED = 75
"""The run was asked to stop and has saved a checkpoint: started again, it goes on (EX_TEMPFAIL)."""

LOST_PEER = 69
"""Another process of the run is gone, hangs or has failed (EX_UNAVAILABLE): a restart of all goes on."""
