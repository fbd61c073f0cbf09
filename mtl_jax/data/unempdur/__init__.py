"""People without a job until they have one."""
