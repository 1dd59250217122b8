"""Generated training data: sounds that a model makes of a corpus' classes, filtered, with manifests like `prepare`'s.

    train clips -> cells (labels, how many) -> sounds -> verdicts of judge and neighbours -> manifests, report

They go to the training split and nowhere else; each carries how it was made. `augment` is the whole.
"""
