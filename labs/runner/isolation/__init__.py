"""Proves that no student of a class reaches another's anything: every ordered pair, every door.

    doors.py      the doors, and what an answer at one means (pure)
    asks.py       what is asked at which door
    probe.py      what asks from inside a student's own pods
    outsiders.py  nobody, a forged name, an expired session, a deleted student
    prove.py      all students at once, in three rounds
    report.py     isolation.json, junit.xml, isolation.html

A refusal counts when somebody was let in at the same door in the same run.
"""
