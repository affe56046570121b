"""The post-mortem of an incident, written from the audit alone, in the form of the report of 18 October 2014.

`account.read` turns audit rows into what happened, `durations.of_lane` says where the time went, `report.write` makes a
document of both, and one module per format prints that.
"""
