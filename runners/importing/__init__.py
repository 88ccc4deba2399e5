"""Runs of other machines, taken into this experiment log: found, judged, copied, each of them whole or not at all.

A run of another machine is a stranger's: nothing of it is believed that this machine would act on.
"""
