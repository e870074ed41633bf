"""Faults injected into sweeps and hostile input given to every reader, counted in one table.

    make chaos                                   # all of it, under 25 minutes on two cores
    make chaos CHAOS="--share"                   # two minutes of it
    make chaos CHAOS="--only kill --seed 3"      # rows whose name contains a word, at other moments

After every fault the same command is given again, and the run must hold what a run without faults holds: each row of
its table, each cell and each model, to the bit. The seed decides all moments, files, bits and mutations.
"""
