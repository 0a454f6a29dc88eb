"""``python -m tools.demo``: everything once, for real, on a namespace and in a folder of its own, and then checked.

Starts a broker if there is none, Jobtape and a mail catcher; submits the example jobs on their real input and a batch
of a thousand; shows them live; checks every result against a computation of its own, every history against the fold,
and the counts; and leaves nothing behind. ``__main__`` is the story, ``stack`` what is started, ``orders`` what is
submitted with the check of each result, ``watch`` what is shown, ``checks`` what must hold for all of it.
"""
