"""Blind listening tests: a page to send to listeners, a key that stays, and what their answers say.

`stimuli` prepares the sounds, `design` decides what is asked and keeps the key, `page` writes the page, `answers` reads
what comes back against the key, `analysis` is the statistics, `report` tables and picture.
"""
