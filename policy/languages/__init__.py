"""The small languages inside arguments: sed, awk, jq, regular expressions, formats. Each is read by a linear scanner.

A text is accepted only if every implementation reads it in the same way and it then only reads, within `policy.limits`.
"""
