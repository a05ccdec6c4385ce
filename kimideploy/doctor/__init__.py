"""The doctor: named checks that judge what a machine is against what a plan needs. Pure.

The probe gathers, checks judge: every verdict can be replayed from a facts file and a plan.
"""
