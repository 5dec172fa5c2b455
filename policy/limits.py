"""The limits of what passes unasked, in one table. A command beyond one of them asks.

They keep a verdict cheap (under 5 ms for any input) and the command bounded in memory, output and time. Each number is
several times what the corpus of ordinary commands needs; where a number was measured, its line says so.
"""

MAX_COMMAND_BYTES = 1024
"""UTF-8 bytes of a line. The longest ordinary command has 101; the worst verdict grows with the square of this."""
MAX_PIECES = 160
"""Words, quotes and operators of a line: the grammar is slow for many of them."""
MAX_COMMANDS = 24
"""Commands of a chain."""
MAX_SCRIPT_LENGTH = 400
"""Characters of a sed, awk or jq script."""
MAX_REGEX_LENGTH = 400
"""Characters of a regular expression."""
MAX_REPETITIONS = 255
"""The upper bounds of all intervals in one expression, added, and multiplied by those of repeated groups.

GNU grep takes 5 GB for `a{1,32767}`.
"""
MAX_WIDE_REPETITIONS = 40
"""The same for `.`, classes and sets alone: `a.{200}c` takes ripgrep 350 MB and 20 s. A UUID needs 32."""
MAX_UNBOUNDED = 2
"""Stars and the like in an expression for an engine that backtracks: with four, 3 kB take 5 s."""
MAX_CHOICES = 256
"""The ways that `?`, `|` and intervals give such an engine, multiplied. Chosen, not measured."""
MAX_STARS = 6
"""Stars of a glob or a pattern of names: matching takes exponential time in some C libraries."""
MAX_ALTERNATIVES = 64
"""Alternatives of the braces in a pattern of names."""
MAX_WIDTH = 999
"""Columns, tab stops, padding, precision: a width is memory and output."""
MAX_COUNT_DIGITS = 9
"""Digits of a count of lines, bytes or levels: the input bounds what such a number costs."""
MAX_SMALL_COUNT = 9999
"""A number that a program allocates memory for, such as the shortest string of `strings`."""
MAX_THREADS = 64
MAX_LINES = 200_000
"""Lines that `seq` may print: 1.3 MB, as a long log has."""
MAX_SEQ_BYTES = 2_000_000
"""Bytes that `seq` may print, with its format and its separator; `seq 200000` prints 1.4 MB."""
MAX_GROWTH = 256
"""The factor by which the commands of a pipeline may lengthen their input, multiplied: `policy.growth`.

Ordinary pipelines need a tenth of it. Eight doublings reach it.
"""
MAX_FIELD = 999
"""The number of a field that an awk script may assign: all fields below it are created."""
MAX_LOOPS = 1
"""Loops over an array in an awk script: two nested ones print the square of the input."""
MAX_VARIABLE_LENGTH = 20
"""Characters of a variable of awk."""
MAX_JQ_DIGITS = 6
"""Digits of a number in jq: as an index that is assigned, or a factor of a text, a number is memory."""
