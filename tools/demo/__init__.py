"""``make demo``: run real jobs from end to end, in a namespace and a folder of its own, and check all of it.

Starts a broker if there is none, Jobtape and a mail catcher. Submits the example jobs on real input and a batch of a
thousand. Checks every result by a computation of its own, every history by a fold, and the counters. Leaves nothing
behind. Read ``__main__`` first, then ``stack`` (what is started), ``demo_jobs`` (what is submitted, and the check of
each result) and ``checks`` (what must hold for every job).
"""
