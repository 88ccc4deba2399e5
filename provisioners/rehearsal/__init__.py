"""RunPod on loopback, for rehearsals: its REST v2 and the GraphQL that is still needed, with pods that really run.

`emulator.Emulator` is the whole; `faults.Faults` what goes wrong on demand; `python -m provisioners.rehearsal` the same
as a process. Nothing is imported here, because the process that leads a pod should start at once.
"""
