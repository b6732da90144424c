"""Rehearses a lab as each student: seed, execute, collect, judge, report."""
