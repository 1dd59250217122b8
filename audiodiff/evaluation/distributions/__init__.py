"""Two sets of sounds compared as distributions: real and generated, no sample having a partner.

Plain functions on feature matrices [N, D] and class probabilities [N, K], computed in float64. `real` comes first,
`made` second. What a feature is, is the caller's affair: a score without the name of its features and the two sample
counts says nothing, for every measure here depends on both.
"""
