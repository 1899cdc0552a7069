"""What to train on next: beliefs about prompts and categories, and the prompt book that holds them.

    beta, drift_average, value_model     pass rates of prompts (MoPPS, SPO, PCL)
    bandits                              categories (SEC, DUMP)
    trackers                             quantiles and means of a run, as columns for `rmkit.shaping`
    utilities                            which prompts to propose
    flags, buckets, hints, routing       what a prompt's record says, and what to do with prompts that are too hard
    replay, recovery                     rollouts worth another look
    book                                 observe and propose; kept in the ledger

All of it is numpy; state is plain data, so it survives restarts and is the same for every worker.
"""
