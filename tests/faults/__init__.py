"""The cases of trust: attacks and outages, each with the number that it has to keep.

Those that load or break servers are marked `faults`; FAULTS_SECONDS shortens them.
"""
